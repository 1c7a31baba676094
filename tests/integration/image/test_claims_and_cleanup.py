"""Claims by posts, presigned uploads, and the deletion of what nobody needs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import httpx
import msgspec
import pytest

from fanfold.contracts import events, internal, keys
from fanfold.contracts.blobs import ImageBlob
from fanfold.contracts.events import AccountDeleted, PostDeleted
from fanfold.contracts.ids import new_id
from fanfold.image import repository
from fanfold.image.cleanup import Cleanup
from fanfold.image.models import Image, Upload
from fanfold.kit.errors import Problem
from fanfold.kit.idempotency import REPLAYED
from fanfold.kit.objects import ObjectStoreError

if TYPE_CHECKING:
    from .conftest import Room

pytestmark = pytest.mark.integration

Find = Callable[[str], Path]


async def uploaded(room: Room, path: Path) -> bytes:
    return UUID((await room.upload(path)).json()["id"]).bytes


@pytest.fixture
async def cleanup(room: Room, database: Any) -> Cleanup:
    """With no grace at all: whatever is unused goes with the next sweep. What tests before left is gone."""
    cleanup = Cleanup(database=database, store=room.objects, grace=timedelta(0))
    await cleanup.sweep()
    return cleanup


async def claim(room: Room, house: Any, image_ids: list[bytes], used_by: bytes = b"") -> dict[bytes, bytes]:
    if used_by:
        await room.redis.set(keys.POST + used_by, b"packed")
    asked = internal.ImageClaim(room.user.bytes, image_ids, used_by)
    blobs: dict[bytes, bytes] = (await house.peers.call(internal.CLAIM_IMAGES, asked)).blobs
    return blobs


async def test_packed_pictures_tell_what_a_post_shows(room: Room, house: Any, worker: Any, photo: Find) -> None:
    image_id = await uploaded(room, photo("chelsea"))
    view = await room.settled(str(UUID(bytes=image_id)))
    for blobs in (
        (await house.peers.call(internal.IMAGES, internal.Ids([image_id, new_id().bytes]))).blobs,
        await claim(room, house, [image_id]),
    ):
        assert list(blobs) == [image_id]
        blob = msgspec.msgpack.decode(blobs[image_id], type=ImageBlob)
        assert (blob.width, blob.height, blob.blurhash) == (451, 300, view["blurhash"])
        assert blob.variants is not None
        assert (blob.variants.widths, blob.variants.formats) == ([150, 320, 451], ["avif", "webp", "jpeg"])
        assert f"/v1/media/{blob.variants.path}" == view["variants"]["url"].partition("?")[0]


async def test_a_claim_of_what_is_missing_or_somebody_elses_is_refused_by_name(
    room: Room, house: Any, photo: Find
) -> None:
    mine = await uploaded(room, photo("chelsea"))
    unknown = new_id()
    with pytest.raises(Problem, match=str(unknown)) as refused:
        await claim(room, house, [mine, unknown.bytes])
    assert refused.value.status == 422
    room.user = new_id()
    with pytest.raises(Problem, match=str(UUID(bytes=mine))):
        await claim(room, house, [mine])


async def test_a_failed_picture_cannot_be_claimed(room: Room, house: Any, database: Any, photo: Find) -> None:
    image_id = await uploaded(room, photo("chelsea"))
    async with database.transaction() as session:
        await repository.mark_failed(session, UUID(bytes=image_id), "it was no good")
    with pytest.raises(Problem, match="it was no good"):
        await claim(room, house, [image_id])


async def test_only_services_claim(room: Room) -> None:
    answer = await room.api.post(internal.CLAIM_IMAGES.path, content=b"", headers=room.me)
    assert answer.status_code == 403


async def test_an_unused_picture_is_deleted_after_its_grace_with_all_its_objects(
    room: Room, worker: Any, database: Any, cleanup: Cleanup, photo: Find
) -> None:
    image_id = await uploaded(room, photo("chelsea"))
    await room.settled(str(UUID(bytes=image_id)))
    assert len(await room.left_behind()) == 10
    patient = Cleanup(database=database, store=room.objects, grace=timedelta(hours=1))
    assert await patient.sweep() == 0
    assert await cleanup.sweep() == 1
    assert await room.left_behind() == []
    answer = await room.api.get(f"/v1/images/{UUID(bytes=image_id)}", headers=room.me)
    assert answer.status_code == 404


async def test_a_picture_stays_until_the_last_post_that_shows_it_is_deleted(
    room: Room, house: Any, cleanup: Cleanup, photo: Find
) -> None:
    image_id = await uploaded(room, photo("chelsea"))
    one, two = new_id(), new_id()
    for post in (one, two, two):
        await claim(room, house, [image_id], post.bytes)
    assert await cleanup.sweep() == 0
    await cleanup.handle(PostDeleted(post_id=one, author_id=room.user))
    assert await cleanup.sweep() == 0
    await cleanup.handle(PostDeleted(post_id=two, author_id=room.user))
    assert await cleanup.sweep() == 1


async def test_a_profile_picture_stays_whatever_posts_are_deleted(
    room: Room, house: Any, cleanup: Cleanup, photo: Find
) -> None:
    image_id, post = await uploaded(room, photo("chelsea")), new_id()
    await claim(room, house, [image_id])
    await claim(room, house, [image_id], post.bytes)
    await cleanup.handle(PostDeleted(post_id=post, author_id=room.user))
    assert await cleanup.sweep() == 0


async def test_a_claim_during_the_sweep_either_holds_the_picture_or_is_refused(
    room: Room, house: Any, cleanup: Cleanup, photo: Find
) -> None:
    for _ in range(5):
        image_id = await uploaded(room, photo("chelsea"))
        swept, claimed = await asyncio.gather(
            cleanup.sweep(), claim(room, house, [image_id], new_id().bytes), return_exceptions=True
        )
        assert swept == (1 if isinstance(claimed, Problem) else 0), (swept, claimed)
        assert len(await room.left_behind()) == (0 if swept else 1)
        await cleanup.handle(AccountDeleted(user_id=room.user))


async def test_a_deleted_account_takes_all_its_pictures_along_and_nobody_elses(
    room: Room, house: Any, worker: Any, photo: Find
) -> None:
    gone, names = room.user, ("chelsea", "coffee", "rocket")
    for name in names:
        image_id = await uploaded(room, photo(name))
        await claim(room, house, [image_id], new_id().bytes)
        await room.settled(str(UUID(bytes=image_id)))
    room.user = new_id()
    kept = str(UUID(bytes=await uploaded(room, photo("chelsea"))))
    await room.settled(kept)
    event = AccountDeleted(user_id=gone)
    await house.redis.xadd(keys.stream(event.topic, event.partition), {b"event": events.encode(event)})
    async with asyncio.timeout(60):
        while len(await room.left_behind()) > 10:
            await asyncio.sleep(0.05)
    assert (await room.image(kept))["status"] == "ready"


async def test_a_crash_between_storing_and_recording_is_swept_up(
    room: Room, database: Any, cleanup: Cleanup, photo: Find, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def crash(*_: Any) -> bool:
        raise ObjectStoreError("killed here")

    monkeypatch.setattr(repository, "add", crash)
    assert (await room.upload(photo("coffee"))).status_code == 503
    assert len(await room.left_behind()) == 1
    assert await cleanup.sweep() == 0  # it might still be under way
    async with database.transaction() as session:
        for upload in await repository.lock_expired(session, datetime.now(UTC) + timedelta(days=1), 10):
            upload.expires_at = datetime.now(UTC) - timedelta(seconds=1)
            session.add(upload)
    assert await cleanup.sweep() == 1
    assert await room.left_behind() == []


# ---- presigned uploads ----------------------------------------------------------------------------------------------


async def offered(room: Room) -> dict[str, Any]:
    answer = await room.api.post("/v1/images/uploads", headers=room.me)
    assert answer.status_code == 201
    ticket: dict[str, Any] = answer.json()
    return ticket


async def put(ticket: dict[str, Any], data: bytes) -> httpx.Response:
    async with httpx.AsyncClient(timeout=60) as client:
        return await client.post(ticket["url"], data=ticket["fields"], files={"file": data})


async def complete(room: Room, ticket: dict[str, Any]) -> httpx.Response:
    return await room.api.post(f"/v1/images/uploads/{ticket['id']}/complete", headers=room.me)


async def test_a_photo_uploaded_past_the_service_becomes_a_picture(room: Room, worker: Any, photo: Find) -> None:
    ticket = await offered(room)
    assert (await put(ticket, photo("dahlia").read_bytes())).is_success
    answer = await complete(room, ticket)
    assert answer.status_code == 201, answer.text
    image = await room.settled(answer.json()["id"])
    assert (image["status"], image["width"], image["height"]) == ("ready", 640, 427)
    again = await complete(room, ticket)
    assert again.json()["id"] == image["id"]
    assert not [key for key in await room.left_behind() if key.startswith("uploads/")]


async def test_a_repeated_offer_is_the_same_offer(room: Room) -> None:
    headers = {**room.me, "idempotency-key": "once"}
    first, second = [(await room.api.post("/v1/images/uploads", headers=headers)).json() for _ in range(2)]
    assert first == second
    assert (await offered(room))["id"] != first["id"]


async def test_a_form_takes_no_more_bytes_than_allowed_and_no_other_key(room: Room) -> None:
    ticket = await offered(room)
    assert (await put(ticket, bytes(ticket["max_bytes"] + 1))).status_code == 400
    stolen = {**ticket, "fields": {**ticket["fields"], "key": "originals/mine"}}
    assert (await put(stolen, b"x")).status_code == 403
    assert await room.left_behind() == []


async def test_what_is_no_picture_is_refused_on_completion_and_leaves_nothing(room: Room, database: Any) -> None:
    ticket = await offered(room)
    assert (await put(ticket, b"I am no picture")).is_success
    answer = await complete(room, ticket)
    assert answer.status_code == 415
    assert await room.left_behind() == []
    async with database.reading() as session:
        assert await session.get(Upload, UUID(ticket["id"])) is None
        assert await session.get(Image, UUID(ticket["id"])) is None


async def test_completing_before_uploading_says_so(room: Room) -> None:
    answer = await complete(room, await offered(room))
    assert answer.status_code == 409
    assert "post the form" in answer.json()["detail"]


async def test_a_completion_with_a_key_is_answered_once(room: Room, photo: Find) -> None:
    tickets = [await offered(room) for _ in range(2)]
    assert (await put(tickets[0], photo("dahlia").read_bytes())).is_success
    room.key = "completion-1"
    first, second = await complete(room, tickets[0]), await complete(room, tickets[0])
    assert (second.status_code, second.headers[REPLAYED], second.json()) == (201, "true", first.json())
    assert (await complete(room, tickets[1])).status_code == 422


async def test_nobody_completes_somebody_elses_upload(room: Room, photo: Find) -> None:
    ticket = await offered(room)
    await put(ticket, photo("dahlia").read_bytes())
    room.user = new_id()
    assert (await complete(room, ticket)).status_code == 404
