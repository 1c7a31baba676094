"""Uploads through the service: what is taken, what is refused, and that a refusal leaves nothing behind."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from PIL import Image
from sqlalchemy import text

from fanfold.contracts.ids import new_id
from fanfold.image.pictures import Limits, inspect
from fanfold.kit.idempotency import REPLAYED

if TYPE_CHECKING:
    from .conftest import Room

pytestmark = pytest.mark.integration

Find = Callable[[str], Path]


def spooled(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


async def rows(database: Any, table: str) -> int:
    async with database.reading() as session:
        result = await session.exec(text(f"SELECT count(*) FROM image.{table}"))
        return int(result.scalar_one())


@pytest.fixture
async def nothing_stays(room: Room, database: Any) -> AsyncIterator[None]:
    before = {table: await rows(database, table) for table in ("image", "upload")}
    events = await rows(database, "outbox")
    yield
    assert await room.left_behind() == []
    assert {table: await rows(database, table) for table in before} == before
    assert await rows(database, "outbox") <= events  # those of tests before may have been relayed meanwhile


async def test_a_photo_is_taken_with_its_upright_size_and_a_blurhash(
    room: Room, camera_shot: Callable[..., Path]
) -> None:
    answer = await room.upload(camera_shot(6))
    assert answer.status_code == 201, answer.text
    image = answer.json()
    assert (image["width"], image["height"]) == (640, 427)
    assert len(image["blurhash"]) == 28
    assert image["status"] == "pending"
    assert image["variants"] is None
    assert await room.image(image["id"]) == image


async def test_the_original_is_stored_as_it_came_and_the_spool_is_empty(room: Room, photo: Find) -> None:
    path = photo("chelsea")
    await room.upload(path)
    (key,) = await room.left_behind()
    assert key.startswith("originals/")
    reader = await room.objects.open(key)
    assert b"".join([chunk async for chunk in reader]) == path.read_bytes()
    assert reader.content_type == "image/png"


async def test_the_same_bytes_of_one_owner_are_one_picture_and_of_two_owners_two(room: Room, photo: Find) -> None:
    first = (await room.upload(photo("coffee"))).json()
    assert (await room.upload(photo("coffee"))).json()["id"] == first["id"]
    room.user = new_id()
    assert (await room.upload(photo("coffee"))).json()["id"] != first["id"]
    assert len(await room.left_behind()) == 2


async def test_the_same_photo_sent_many_times_at_once_is_one_picture(room: Room, photo: Find) -> None:
    answers = await asyncio.gather(*(room.upload(photo("rocket")) for _ in range(6)))
    assert [answer.status_code for answer in answers] == [201] * 6
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert len(await room.left_behind()) == 1


async def test_an_upload_with_a_key_is_answered_once(room: Room, photo: Find) -> None:
    """Though each form has another boundary. Another photo under the key is refused, and not kept."""
    room.key = "photo-1"
    first, second = await room.upload(photo("coffee")), await room.upload(photo("coffee"))
    assert (first.status_code, second.status_code, second.headers[REPLAYED]) == (201, 201, "true")
    assert second.json() == first.json()
    kept = await room.left_behind()
    await refused(await room.upload(photo("rocket")), 422, "idempotency-key-reused")
    assert await room.left_behind() == kept


async def test_no_picture_bytes_are_in_the_database(room: Room, database: Any, photo: Find) -> None:
    await room.upload(photo("retina"))
    async with database.reading() as session:
        binary = await session.exec(
            text(
                "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'image' "
                "AND (data_type IN ('bytea', 'oid') OR udt_name LIKE '%bytea')"
            )
        )
        assert [tuple(row) for row in binary] == [("outbox", "event")]
        sizes = await session.exec(
            text("SELECT max(pg_column_size(i.*)) FROM image.image i UNION SELECT max(length(event)) FROM image.outbox")
        )
        assert max(size for (size,) in sizes if size) < 1_000


async def test_the_models_are_what_the_migrations_make(schema_differences: Any) -> None:
    assert await schema_differences("image") == []


# ---- refusals -------------------------------------------------------------------------------------------------------


async def refused(answer: httpx.Response, status: int, kind: str) -> str:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["type"].endswith("/" + kind)
    return str(problem["detail"])


@pytest.mark.usefixtures("nothing_stays")
async def test_a_text_named_jpg_is_refused(room: Room) -> None:
    answer = await room.upload(b"I am not a picture.\n" * 100)
    assert "JPEG" in await refused(answer, 415, "unsupported-media")


@pytest.mark.usefixtures("nothing_stays")
async def test_a_bomb_is_refused_by_its_header(room: Room, png_claiming: Callable[[int, int], bytes]) -> None:
    answer = await room.upload(png_claiming(30_000, 30_000))
    assert "30000 x 30000" in await refused(answer, 422, "too-many-pixels")


@pytest.mark.usefixtures("nothing_stays")
async def test_a_picture_that_lies_about_its_size_and_ends_early_is_refused(
    room: Room, png_claiming: Callable[[int, int], bytes]
) -> None:
    await refused(await room.upload(png_claiming(7_000, 7_000)), 422, "damaged-image")


@pytest.mark.usefixtures("nothing_stays")
async def test_a_truncated_photo_is_refused(room: Room, photo: Find) -> None:
    data = photo("temple").read_bytes()
    await refused(await room.upload(data[: len(data) // 2]), 422, "damaged-image")


@pytest.mark.usefixtures("nothing_stays")
async def test_an_animation_is_refused(room: Room) -> None:
    buffer = io.BytesIO()
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue")]
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    await refused(await room.upload(buffer.getvalue()), 422, "animated-image")


@pytest.mark.usefixtures("nothing_stays")
async def test_a_file_over_the_limit_is_refused_by_its_announced_length(room: Room) -> None:
    await refused(await room.upload(bytes(5 << 20)), 413, "too-large")


@pytest.mark.usefixtures("nothing_stays")
async def test_a_file_over_the_limit_is_refused_while_it_comes(room: Room) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        while sent < 200 << 20:
            sent += 1 << 16
            yield bytes(1 << 16)

    headers = {**room.me, "content-type": "multipart/form-data; boundary=x"}
    answer = await room.api.post("/v1/images", content=endless(), headers=headers)
    await refused(answer, 413, "too-large")


@pytest.mark.usefixtures("nothing_stays")
async def test_the_limit_of_a_file_is_exact(room: Room) -> None:
    await refused(await room.upload(bytes((4 << 20) + 1)), 413, "too-large")
    await refused(await room.upload(bytes(4 << 20)), 415, "unsupported-media")


@pytest.mark.usefixtures("nothing_stays")
async def test_a_form_without_the_file_or_with_two_is_refused(room: Room, photo: Find) -> None:
    data = photo("coffee").read_bytes()
    await refused(await room.upload(data, field="picture"), 422, "unprocessable")
    two = [("file", ("a.png", data)), ("file", ("b.png", data))]
    await refused(await room.api.post("/v1/images", files=two, headers=room.me), 422, "unprocessable")


@pytest.mark.usefixtures("nothing_stays")
@pytest.mark.parametrize(
    ("content_type", "body", "status", "kind"),
    [
        ("application/json", b"{}", 415, "unsupported-media"),
        ("multipart/form-data", b"", 400, "bad-request"),
        ("multipart/form-data; boundary=x", b"--y\r\n\r\n", 400, "bad-request"),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\nabc',
            400,
            None,
        ),
        ("multipart/form-data; boundary=x", b"--x\r\n" + b"a" * 50_000, 400, "bad-request"),
    ],
)
async def test_malformed_forms_are_refused(
    room: Room, content_type: str, body: bytes, status: int, kind: str | None
) -> None:
    headers = {**room.me, "content-type": content_type}
    await refused(await room.api.post("/v1/images", content=body, headers=headers), status, kind or "bad-request")


@pytest.mark.usefixtures("nothing_stays")
async def test_an_upload_that_the_client_breaks_off_leaves_nothing(room: Room) -> None:
    head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + bytes(1 << 20)
    lines = [f"{name}: {value}" for name, value in room.me.items()]
    request = "\r\n".join(
        [
            "POST /v1/images HTTP/1.1",
            "Host: test",
            *lines,
            "Content-Type: multipart/form-data; boundary=x",
            "Content-Length: 3000000",
            "\r\n",
        ]
    )
    reader, writer = await asyncio.open_connection(room.api.base_url.host, room.api.base_url.port)
    del reader
    writer.write(request.encode() + head)
    await writer.drain()
    async with asyncio.timeout(60):
        while not room.spooled():
            await asyncio.sleep(0.01)
    writer.transport.abort()
    async with asyncio.timeout(60):
        while room.spooled():
            await asyncio.sleep(0.01)


@pytest.mark.usefixtures("nothing_stays")
async def test_nobody_uploads_without_a_user(room: Room, house: Any, photo: Find) -> None:
    files = {"file": photo("coffee").read_bytes()}
    assert (await room.api.post("/v1/images", files=files, headers=house.anonymous())).status_code == 401
    assert (await room.api.post("/v1/images", files=files)).status_code == 401


async def test_decoding_takes_no_time_of_the_event_loop(room: Room, tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    Image.linear_gradient("L").resize((7_000, 7_000)).save(path, compress_level=1)
    started = time.thread_time()
    inspect(str(path), Limits())
    decoding = time.thread_time() - started  # CPU time of one thread: how busy the machine is does not matter
    uploads = [asyncio.create_task(room.upload(path)) for _ in range(2)]
    longest, last = 0.0, time.thread_time()
    while not all(task.done() for task in uploads):
        await asyncio.sleep(0.005)
        longest, last = max(longest, time.thread_time() - last), time.thread_time()
    assert [task.result().status_code for task in uploads] == [201] * 2
    assert longest < decoding / 2


async def test_more_uploads_at_once_than_allowed_are_sent_away_with_a_time_to_come_back(
    house: Any, bucket: str, tmp_path: Path
) -> None:
    api = await house.start("image", image_processes=1, upload_concurrency=1, spool_dir=tmp_path)
    go = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"--x\r\n"
        await go.wait()
        yield b"--x--\r\n"

    headers = {**house.as_user(new_id()), "content-type": "multipart/form-data; boundary=x"}
    first = asyncio.create_task(api.post("/v1/images", content=slow(), headers=headers))
    async with asyncio.timeout(60):
        while not spooled(tmp_path):
            await asyncio.sleep(0.01)
    answer = await api.post("/v1/images", content=b"--x--", headers=headers)
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) >= 1
    go.set()
    await first


async def test_an_upload_that_takes_too_long_is_ended(house: Any, bucket: str, tmp_path: Path) -> None:
    api = await house.start("image", image_processes=1, upload_seconds=0.2, spool_dir=tmp_path)

    async def stalled() -> AsyncIterator[bytes]:
        yield b"--x\r\n"
        await asyncio.sleep(3)
        yield b"--x--\r\n"

    headers = {**house.as_user(new_id()), "content-type": "multipart/form-data; boundary=x"}
    answer = await api.post("/v1/images", content=stalled(), headers=headers)
    await refused(answer, 408, "request-timeout")
    assert not spooled(tmp_path)
