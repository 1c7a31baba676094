from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import msgspec
import pytest

from fanfold.contracts import headers, internal, keys
from fanfold.contracts.blobs import UserBlob
from fanfold.contracts.ids import new_id
from fanfold.kit.objects import ObjectStore
from fanfold.kit.settings import ObjectStoreSettings

SMALL: dict[str, Any] = {"image_processes": 1, "image_process_mib": 400}


def content_of(data: bytes | Path) -> bytes:
    return data if isinstance(data, bytes) else data.read_bytes()


def files_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


@dataclass
class Room:
    """The image service, a user of it, and its stores from the outside."""

    api: httpx.AsyncClient
    objects: ObjectStore
    signed: Callable[[UUID], dict[str, str]]
    internal: dict[str, str]
    redis: Any
    spool: Path
    """Where the service keeps files under way."""
    user: UUID = field(default_factory=new_id)
    key: str = ""
    """Idempotency-Key of the user's requests."""

    @property
    def me(self) -> dict[str, str]:
        return self.signed(self.user) | ({headers.IDEMPOTENCY_KEY: self.key} if self.key else {})

    async def person(self, user: UUID, *, private: bool = False) -> UUID:
        """What the profile service tells of a user."""
        blob = UserBlob(user.bytes, "ada", "Ada", "", private)
        await self.redis.set(keys.user(user), msgspec.msgpack.encode(blob))
        return user

    async def claim(self, image_id: str, used_by: bytes = b"") -> None:
        """What the post service does for a post of the user's, and the profile service for their picture."""
        claim = internal.ImageClaim(self.user.bytes, [UUID(image_id).bytes], used_by)
        content = msgspec.msgpack.encode(claim)
        answer = await self.api.post(internal.CLAIM_IMAGES.path, content=content, headers=self.internal)
        assert answer.status_code == 200, answer.text

    async def post(self, image_id: str) -> UUID:
        """A post of the user's that shows the image."""
        post_id = new_id()
        await self.claim(image_id, post_id.bytes)
        await self.redis.set(keys.post(post_id), b"packed")
        return post_id

    async def upload(self, data: bytes | Path, name: str = "photo.jpg", field: str = "file") -> httpx.Response:
        files = {field: (name, content_of(data), "image/jpeg")}
        return await self.api.post("/v1/images", files=files, headers=self.me)

    async def image(self, image_id: str) -> dict[str, Any]:
        answer = await self.api.get(f"/v1/images/{image_id}", headers=self.me)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def settled(self, image_id: str) -> dict[str, Any]:
        """The image once it is no longer pending."""
        async with asyncio.timeout(60):
            while (image := await self.image(image_id))["status"] == "pending":
                await asyncio.sleep(0.05)
        return image

    def spooled(self) -> list[str]:
        """Names of the files under way."""
        return files_in(self.spool)

    async def left_behind(self) -> list[str]:
        """Keys of objects and names of spool files there are."""
        return [*await self.objects.list_keys(""), *self.spooled()]


@pytest.fixture
async def room(house: Any, bucket: str, settings_for: Any, tmp_path: Path) -> AsyncIterator[Room]:
    """The image service without its worker: pictures stay pending."""
    spool = tmp_path / "spool"
    spool.mkdir()
    api = await house.start("image", **SMALL, spool_dir=spool, upload_bytes=4 << 20)
    objects = ObjectStore(settings_for("test", kind=ObjectStoreSettings))
    await objects.delete(await objects.list_keys(""))
    room = Room(api, objects, house.as_user, house.as_service("test"), house.redis, spool)
    await room.person(room.user)
    yield room
    await objects.close()


@pytest.fixture
async def worker(house: Any, room: Room) -> Any:
    """The image worker, running."""
    await house.start("image-worker", **SMALL, spool_dir=room.spool)
    return house.runtimes["image-worker"]


@pytest.fixture
async def database(house: Any, room: Room) -> Any:
    """The room's database."""
    return house.runtimes["image"].database
