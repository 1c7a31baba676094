"""Who may read a photo under which address."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest

from fanfold.contracts import keys
from fanfold.contracts.ids import new_id
from fanfold.dev.process import free_ports
from fanfold.kit.keyring import Keyring
from fanfold.kit.media import LABEL, MediaSigner

from .conftest import SMALL

if TYPE_CHECKING:
    import httpx

    from .conftest import Room

pytestmark = pytest.mark.integration

Find = Callable[[str], Path]
PUBLIC = "public, max-age=31536000, immutable"


def expand(image: dict[str, Any]) -> str:
    url: str = image["variants"]["url"]
    return url.replace("{width}", "150").replace("{format}", "webp")


@pytest.fixture
async def image(room: Room, worker: Any, photo: Find) -> dict[str, Any]:
    """A photo with variants, shown by nothing."""
    return await room.settled((await room.upload(photo("chelsea"))).json()["id"])


@pytest.fixture
def bare(image: dict[str, Any]) -> str:
    """The address of a variant, without a signature."""
    return expand(image).partition("?")[0]


@pytest.fixture
def read(room: Room, house: Any) -> Callable[..., Any]:
    async def get(url: str, **headers: str) -> httpx.Response:
        return await room.api.get(url, headers={**house.anonymous(), **headers})

    return get


async def refused(read: Callable[..., Any], url: str) -> None:
    """Wait for the refusal: a photo that was shown is taken for shown for some seconds."""
    async with asyncio.timeout(60):
        while (answer := await read(url)).status_code == 200:
            await asyncio.sleep(0.2)
    assert answer.status_code == 403


async def test_what_nothing_shows_is_its_owners(
    room: Room, house: Any, read: Callable[..., Any], image: dict[str, Any], bare: str
) -> None:
    answer = await read(bare)
    assert answer.status_code == 403
    assert answer.json()["type"].endswith("/media-address-expired")
    assert "read the post" in answer.json()["detail"]
    assert answer.headers["cache-control"] == "no-store"
    mine = await read(expand(image))
    assert mine.status_code == 200
    cached = mine.headers["cache-control"].split(", ")
    assert (cached[0], cached[2]) == ("private", "immutable")
    expires = int(parse_qs(urlsplit(expand(image)).query)["expires"][0])
    assert abs(int(cached[1].removeprefix("max-age=")) - (expires - time.time())) < 30
    other = await room.api.get(f"/v1/images/{image['id']}", headers=house.as_user(new_id()))
    assert other.status_code == 404


async def test_conditions_and_parts_need_the_same(
    room: Room, house: Any, read: Callable[..., Any], image: dict[str, Any], bare: str
) -> None:
    mine = await read(expand(image))
    again = await read(expand(image), **{"if-none-match": mine.headers["etag"]})
    assert (again.status_code, again.headers["cache-control"][:8]) == (304, "private,")
    part = await read(expand(image), range="bytes=0-9")
    assert (part.status_code, part.content, part.headers["cache-control"][:8]) == (206, mine.content[:10], "private,")
    assert (await room.api.head(expand(image), headers=house.anonymous())).status_code == 200
    assert (await room.api.head(bare, headers=house.anonymous())).status_code == 403
    assert (await read(bare, **{"if-none-match": mine.headers["etag"]})).status_code == 403
    assert (await read(bare, range="bytes=0-9")).status_code == 403


async def test_a_post_of_a_public_account_opens_its_photo_to_everybody(
    room: Room, house: Any, read: Callable[..., Any], image: dict[str, Any], bare: str
) -> None:
    assert (await read(bare)).status_code == 403
    post = await room.post(image["id"])
    answer = await read(bare)
    assert (answer.status_code, answer.headers["cache-control"]) == (200, PUBLIC)
    shown = await room.image(image["id"])
    assert expand(shown) == bare
    other = await room.api.get(f"/v1/images/{image['id']}", headers=house.as_user(new_id()))
    assert (other.status_code, other.json()["variants"]["url"]) == (200, shown["variants"]["url"])
    assert (await read(f"{bare}?expires=1&signature=old")).headers["cache-control"] == PUBLIC

    await room.redis.set(keys.post(post), keys.TOMBSTONE)  # hidden, or deleted
    await refused(read, bare)
    assert (await read(expand(image))).status_code == 200
    await room.post(image["id"])
    assert (await read(bare)).status_code == 200


async def test_privacy_closes_and_opens_what_was_shown(
    room: Room, read: Callable[..., Any], image: dict[str, Any], bare: str
) -> None:
    await room.post(image["id"])
    assert (await read(bare)).status_code == 200
    await room.person(room.user, private=True)
    await refused(read, bare)
    signed = expand(await room.image(image["id"]))
    assert (await read(signed)).headers["cache-control"].startswith("private")
    await room.person(room.user)
    assert (await read(bare)).headers["cache-control"] == PUBLIC  # at once
    await room.redis.set(keys.user(room.user), keys.TOMBSTONE)  # hidden account
    await refused(read, bare)


async def test_a_profile_picture_is_for_everybody_while_its_account_is(
    room: Room, house: Any, read: Callable[..., Any], image: dict[str, Any], bare: str
) -> None:
    await room.person(room.user, private=True)
    await room.claim(image["id"])
    assert (await read(bare)).headers["cache-control"] == PUBLIC
    await room.redis.set(keys.user(room.user), keys.TOMBSTONE)
    await refused(read, bare)


async def test_addresses_that_were_changed_have_expired_or_are_of_another_key_are_refused(
    room: Room, house: Any, read: Callable[..., Any], image: dict[str, Any], bare: str
) -> None:
    media = urlsplit(bare).path.split("/")[3]
    secret = house.secrets.read("identity_key")
    good = MediaSigner(Keyring(secret, LABEL))
    assert (await read(f"{bare}?{good.query(media, time.time())}")).status_code == 200
    for query in (
        good.query(media, time.time() - 7200),
        good.query("0" * 64, time.time()),
        MediaSigner(Keyring("00" * 32, LABEL)).query(media, time.time()),
        MediaSigner(Keyring(secret)).query(media, time.time()),
        good.query(media, time.time()).replace("expires=", "expires=1"),
    ):
        assert (await read(f"{bare}?{query}")).status_code == 403, query


async def test_the_setting_signs_everything_or_nothing(
    room: Room, house: Any, image: dict[str, Any], bare: str
) -> None:
    await room.post(image["id"])
    for signed_photos, statuses in (("all", (403, 200)), ("none", (200, 200))):
        other = {"traffic_port": free_ports(1)[0], "spool_dir": room.spool}
        api = await house.start("image", **SMALL, **other, signed_photos=signed_photos)
        shown = (await api.get(f"/v1/images/{image['id']}", headers=room.me)).json()
        assert ("signature=" in shown["variants"]["url"]) is (signed_photos == "all")
        found = [(await api.get(url, headers=house.anonymous())).status_code for url in (bare, expand(image))]
        assert tuple(found) == statuses


async def test_an_owner_who_does_not_answer_closes_nothing_that_was_shown(
    room: Room, read: Callable[..., Any], image: dict[str, Any], bare: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fanfold.image.visibility.FRESH_SECONDS", -1.0)  # judged with every read
    await room.post(image["id"])
    assert (await read(bare)).status_code == 200
    await room.redis.delete(keys.user(room.user))  # and the profile service is not there
    for _ in range(2):
        assert (await read(bare)).status_code == 200


async def test_what_cannot_be_judged_is_not_shown(
    room: Room, read: Callable[..., Any], image: dict[str, Any], bare: str
) -> None:
    await room.post(image["id"])
    await room.redis.delete(keys.user(room.user))
    answer = await read(bare)
    assert (answer.status_code, "retry-after" in answer.headers) == (503, True)
