"""From an upload to variants that can be read for ever."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec
import pytest
from PIL import Image
from sqlalchemy import text

from fanfold.contracts import events, keys
from fanfold.contracts.blobs import UserBlob
from fanfold.contracts.events import ImageReady, ImageStored
from fanfold.contracts.ids import new_id
from fanfold.image import repository
from fanfold.image.pictures import render
from fanfold.image.processes import ChildError, Processes
from fanfold.image.rendering import Renderer
from fanfold.kit.objects import ObjectStore, ObjectStoreError

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from .conftest import Room

pytestmark = pytest.mark.integration

Find = Callable[[str], Path]


async def published(redis: Redis, topic: str) -> list[events.AnyEvent]:
    """Events on all partitions of a topic."""
    found = []
    for partition in range(events.PARTITIONS):
        entries: Any = await redis.xrange(keys.stream(topic, partition))
        found += [events.decode(fields[b"event"]) for _, fields in entries]
    return found


@pytest.fixture
async def ready(room: Room, worker: Any, camera_shot: Callable[..., Path]) -> dict[str, Any]:
    """A photo with GPS position that was stored sideways, in a post, once its variants can be read."""
    uploaded = (await room.upload(camera_shot(6))).json()
    await room.post(uploaded["id"])
    image = await room.settled(uploaded["id"])
    assert image["status"] == "ready", image
    return image


def url_of(image: dict[str, Any], width: int, kind: str) -> str:
    """Of one variant, as clients expand the template."""
    url: str = image["variants"]["url"]
    return url.replace("{width}", str(width)).replace("{format}", kind)


async def test_a_photo_gets_its_variants_and_everybody_can_read_them(
    room: Room,
    house: Any,
    ready: dict[str, Any],
    photo: Find,
    similar: Callable[[Image.Image, Image.Image], float],
) -> None:
    variants = ready["variants"]
    assert (variants["widths"], variants["formats"]) == ([150, 320, 640], ["avif", "webp", "jpeg"])
    heights = {150: 100, 320: 214, 640: 427}
    for width, kind in product(variants["widths"], variants["formats"]):
        answer = await room.api.get(url_of(ready, width, kind), headers=house.anonymous())
        assert answer.status_code == 200
        assert answer.headers["content-type"] == f"image/{kind}"
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert b"SecretCameraMaker" not in answer.content
        with Image.open(io.BytesIO(answer.content)) as picture, Image.open(photo("temple")) as upright:
            assert picture.format == kind.upper()
            assert picture.size == (width, heights[width])
            assert similar(picture, upright) < 8


async def test_the_ready_event_is_told_once(house: Any, ready: dict[str, Any]) -> None:
    async with asyncio.timeout(60):
        while not (told := await published(house.redis, "images")):
            await asyncio.sleep(0.05)
    assert [(type(event), str(getattr(event, "image_id", ""))) for event in told] == [(ImageReady, ready["id"])]


async def test_a_variant_is_not_sent_again_to_who_has_it(room: Room, ready: dict[str, Any]) -> None:
    url = url_of(ready, 150, "avif")
    first = await room.api.get(url, headers=room.me)
    again = await room.api.get(url, headers={**room.me, "if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]
    assert again.headers["cache-control"] == first.headers["cache-control"]
    other = await room.api.get(url, headers={**room.me, "if-none-match": '"other"'})
    assert other.content == first.content


async def test_a_part_of_a_variant_can_be_read(room: Room, ready: dict[str, Any]) -> None:
    url = url_of(ready, 640, "jpeg")
    whole = (await room.api.get(url, headers=room.me)).content
    part = await room.api.get(url, headers={**room.me, "range": "bytes=100-199"})
    assert part.status_code == 206
    assert part.content == whole[100:200]
    assert part.headers["content-range"] == f"bytes 100-199/{len(whole)}"
    tail = await room.api.get(url, headers={**room.me, "range": "bytes=-10"})
    assert tail.content == whole[-10:]
    beyond = await room.api.get(url, headers={**room.me, "range": f"bytes={len(whole)}-"})
    assert beyond.status_code == 416
    assert beyond.headers["content-range"] == f"bytes */{len(whole)}"
    changed = await room.api.get(url, headers={**room.me, "range": "bytes=0-9", "if-range": '"other"'})
    assert (changed.status_code, changed.content) == (200, whole)


async def test_head_tells_the_size_without_the_bytes(room: Room, ready: dict[str, Any]) -> None:
    url = url_of(ready, 640, "jpeg")
    whole = await room.api.get(url, headers=room.me)
    head = await room.api.head(url, headers=room.me)
    assert head.status_code == 200
    assert head.content == b""
    for name in ("content-length", "content-type", "etag", "cache-control"):
        assert head.headers[name] == whole.headers[name]


async def test_a_variant_that_is_still_being_made_says_when_to_come_back_and_is_not_kept(
    room: Room, database: Any, photo: Find
) -> None:
    uploaded = (await room.upload(photo("coffee"))).json()
    await room.post(uploaded["id"])
    async with database.reading() as session:
        (image,) = await repository.get_many(session, [UUID(uploaded["id"])])
    answer = await room.api.get(f"/v1/media/{image.media}/150.webp", headers=room.me)
    assert answer.status_code == 404
    assert answer.json()["type"].endswith("/not-ready")
    assert int(answer.headers["retry-after"]) >= 1
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    "path", [f"{'0' * 64}/150.webp", f"{'0' * 64}/150.exe", "0/150.webp", f"{'0' * 64}/..%2f150.webp"]
)
async def test_what_does_not_exist_is_refused_and_not_kept(room: Room, path: str) -> None:
    answer = await room.api.get(f"/v1/media/{path}", headers=room.me)
    assert answer.status_code in {404, 422}
    assert "immutable" not in answer.headers.get("cache-control", "")


async def test_originals_cannot_be_read_through_the_media_path(room: Room, photo: Find) -> None:
    await room.upload(photo("coffee"))
    (key,) = await room.left_behind()
    for path in (key, f"../{key}", f"%2e%2e/{key}"):
        answer = await room.api.get(f"/v1/media/{path}", headers=room.me)
        assert answer.status_code in {404, 422}


async def test_media_urls_begin_with_the_cdn_of_the_settings(
    house: Any, bucket: str, tmp_path: Path, photo: Find
) -> None:
    await house.start("image-worker", image_processes=1)
    cdn = "https://cdn.example/p/"
    api = await house.start("image", image_processes=1, spool_dir=tmp_path, media_base_url=cdn)
    user = new_id()
    await house.redis.set(keys.user(user), msgspec.msgpack.encode(UserBlob(user.bytes, "ada", "Ada", "")))
    me = house.as_user(user)
    content = photo("chelsea").read_bytes()
    image = (await api.post("/v1/images", files={"file": content}, headers=me)).json()
    async with asyncio.timeout(60):
        while image["status"] == "pending":
            await asyncio.sleep(0.05)
            image = (await api.get(f"/v1/images/{image['id']}", headers=me)).json()
    assert image["variants"]["url"].startswith("https://cdn.example/p/")
    assert "//" not in image["variants"]["url"].removeprefix("https://")


# ---- the worker's failures ------------------------------------------------------------------------------------------


async def test_a_picture_that_breaks_its_process_again_and_again_fails_with_the_reason(
    room: Room, worker: Any, photo: Find, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    async def crash(*_: Any) -> Any:
        nonlocal calls
        calls += 1
        raise ChildError("the decoding process crashed")

    monkeypatch.setattr("fanfold.image.processes.Processes.run", _only_render(crash))
    image = await room.settled((await room.upload(photo("coffee"))).json()["id"])
    assert image["status"] == "failed"
    assert "crashed" in image["failure"]
    assert calls == 3
    monkeypatch.undo()
    again = (await room.upload(photo("coffee"))).json()
    assert again["id"] == image["id"]
    assert (await room.settled(again["id"]))["status"] == "ready"


async def test_an_object_store_that_is_away_for_a_moment_costs_no_picture(
    room: Room, worker: Any, photo: Find, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = iter([ObjectStoreError("away"), ObjectStoreError("away")])
    download = ObjectStore.download

    async def sometimes(self: ObjectStore, *arguments: Any) -> None:
        for failure in failures:
            raise failure
        await download(self, *arguments)

    monkeypatch.setattr(ObjectStore, "download", sometimes)
    image = await room.settled((await room.upload(photo("coffee"))).json()["id"])
    assert image["status"] == "ready"
    assert next(failures, None) is None


async def test_a_picture_of_a_crashed_worker_is_taken_over(
    room: Room, house: Any, photo: Find, monkeypatch: pytest.MonkeyPatch
) -> None:
    uploaded = (await room.upload(photo("coffee"))).json()
    image_id = UUID(uploaded["id"])
    event = ImageStored(image_id=image_id, owner_id=room.user)
    stream = keys.stream(event.topic, event.partition)
    async with asyncio.timeout(60):
        while not await house.redis.exists(stream):
            await asyncio.sleep(0.02)
    await house.redis.xgroup_create(stream, "image-worker", id="0")
    assert await house.redis.xreadgroup("image-worker", "crashed", {stream: ">"})  # and never acknowledges
    monkeypatch.setattr("fanfold.kit.streams.CLAIM_IDLE_MS", 300)
    await asyncio.sleep(0.4)
    await house.start("image-worker", image_processes=1)
    assert (await room.settled(uploaded["id"]))["status"] == "ready"


async def test_a_message_delivered_twice_makes_no_variant_again(room: Room, house: Any, ready: dict[str, Any]) -> None:
    variants = [key for key in await room.left_behind() if key.startswith("media/")]
    await room.objects.delete(variants)
    event = ImageStored(image_id=UUID(ready["id"]), owner_id=room.user)
    stream = keys.stream(event.topic, event.partition)
    await house.redis.xadd(stream, {b"event": events.encode(event), b"request_id": b""})
    async with asyncio.timeout(60):
        while (await house.redis.xinfo_groups(stream))[0]["entries-read"] < await house.redis.xlen(stream):
            await asyncio.sleep(0.02)
        while (await house.redis.xpending(stream, "image-worker"))["pending"]:
            await asyncio.sleep(0.02)
    assert not set(variants) & set(await room.left_behind())


async def test_two_workers_with_one_picture_tell_of_it_once(
    room: Room, house: Any, database: Any, photo: Find, tmp_path: Path
) -> None:
    image_id = UUID((await room.upload(photo("coffee"))).json()["id"])
    settings = house.runtimes["image"].settings
    processes = Processes(2, 400 << 20, 60)
    renderer = Renderer(settings=settings, database=database, store=room.objects, processes=processes)
    await asyncio.gather(renderer.make(image_id), renderer.make(image_id))
    await processes.close()
    assert (await room.image(str(image_id)))["status"] == "ready"
    async with database.reading() as session:
        waiting = await session.exec(text("SELECT count(*) FROM image.outbox WHERE topic = 'images'"))
        assert int(waiting.scalar_one()) + len(await published(house.redis, "images")) == 1


async def test_the_store_itself_says_that_variants_never_change(room: Room, ready: dict[str, Any]) -> None:
    for key in await room.left_behind():
        stored = room.objects._client.stat_object("fanfold", key)
        expected = "public, max-age=31536000, immutable" if key.startswith("media/") else None
        assert (stored.metadata or {}).get("cache-control") == expected


def _only_render(replacement: Any) -> Any:
    """Inspection goes on; making variants is replaced."""
    real = Processes.run

    async def run(self: Processes, function: Any, *arguments: Any) -> Any:
        if function is render:
            return await replacement(*arguments)
        return await real(self, function, *arguments)

    return run
