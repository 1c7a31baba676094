from __future__ import annotations

import io
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import msgspec
import pytest
from PIL import Image

from fanfold.contracts import keys
from fanfold.contracts.blobs import UserBlob
from fanfold.contracts.ids import new_id
from fanfold.post.models import Post

SMALL: dict[str, Any] = {"image_processes": 1, "image_process_mib": 400}


@dataclass
class Room:
    """The post service between the real image and activity services, and its users."""

    house: Any
    api: httpx.AsyncClient
    images: httpx.AsyncClient
    activity: httpx.AsyncClient
    spool: Path

    async def user(self, name: str = "ada") -> UUID:
        user_id = new_id()
        blob = msgspec.msgpack.encode(UserBlob(user_id.bytes, name, name.title(), ""))
        await self.house.redis.set(keys.user(user_id), blob)
        await self.house.redis.set(keys.blocks(user_id), b"")
        return user_id

    async def image(self, owner: UUID) -> str:
        file = io.BytesIO()
        color = (new_id().bytes[-1], new_id().bytes[-2], new_id().bytes[-3])
        Image.new("RGB", (32, 24), color).save(file, "PNG")
        data = file.getvalue()
        answer = await self.images.post(
            "/v1/images", files={"file": ("a.png", data)}, headers=self.house.as_user(owner)
        )
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    async def try_post(self, owner: UUID, body: dict[str, Any], key: str = "") -> httpx.Response:
        head = self.house.as_user(owner) | ({"Idempotency-Key": key} if key else {})
        return await self.api.post("/v1/posts", json=body, headers=head)

    async def post(self, owner: UUID, caption: str = "", **more: Any) -> dict[str, Any]:
        body = {"image_ids": [await self.image(owner)], "caption": caption, **more}
        answer = await self.try_post(owner, body)
        assert answer.status_code == 201, answer.text
        made: dict[str, Any] = answer.json()
        return made

    async def rows(self, author: UUID, count: int) -> list[UUID]:
        """Posts straight into the table, oldest first: nobody was told."""
        made = [new_id() for _ in range(count)]
        async with self.house.runtimes["post"].database.transaction() as session:
            for post_id in made:
                session.add(Post(id=post_id, author_id=author, caption="", created_at=datetime.now(UTC)))
        return made

    async def get(self, path: str, viewer: UUID, **params: Any) -> httpx.Response:
        return await self.api.get(path, params=params, headers=self.house.as_user(viewer))

    async def timeline(self, author: UUID, viewer: UUID, limit: int = 100) -> list[str]:
        """Ids on an author's timeline, through all pages."""
        found: list[str] = []
        params: dict[str, Any] = {"limit": limit}
        while True:
            answer = await self.get(f"/v1/users/{author}/posts", viewer, **params)
            assert answer.status_code == 200, answer.text
            page = answer.json()
            found += [post["id"] for post in page["items"]]
            if page["next_cursor"] is None:
                return found
            params["cursor"] = page["next_cursor"]


@pytest.fixture
async def room(house: Any, bucket: str, tmp_path: Path) -> Room:
    spool = tmp_path / "spool"
    spool.mkdir()
    images = await house.start("image", **SMALL, spool_dir=spool)
    activity = await house.start("activity")
    return Room(house, await house.start("post"), images, activity, spool)
