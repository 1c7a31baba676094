"""What an account may take along, and that nothing of it stays anywhere when it goes."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from PIL import Image
from sqlalchemy import text

from fanfold.contracts import keys
from fanfold.contracts.exports import PIECE
from fanfold.image.settings import ImageSettings
from fanfold.kit.objects import ObjectStore
from tests.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.relations.conftest import Town

pytestmark = pytest.mark.integration

PASSWORD = "a long enough passphrase"


def noise(seed: int, side: int) -> bytes:
    """A photo that does not compress: ``side`` of 700 is more than one piece of an archive."""
    pixels = hashlib.shake_128(str(seed).encode()).digest(side * side * 3)
    file = io.BytesIO()
    Image.frombytes("RGB", (side, side), pixels).save(file, "PNG")
    return file.getvalue()


async def photo(town: Town, user: UUID, data: bytes) -> str:
    answer = await town.call("image", "POST", "/v1/images", user, key="a-photo", files={"file": ("a.png", data)})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


async def register(town: Town, name: str) -> UUID:
    body = {"username": name, "password": PASSWORD}
    answer = await town.apis["profile"].post("/v1/accounts", json=body, headers=town.house.anonymous())
    session = await town.apis["profile"].post("/v1/sessions", json=body, headers=town.house.anonymous())
    assert session.status_code == 201, session.text
    return UUID(answer.json()["id"])


@pytest.fixture
async def store(settings_for: Any, bucket: str) -> Any:
    opened = ObjectStore(settings_for("image", kind=ImageSettings))
    yield opened
    await opened.close()


@pytest.fixture
async def whole_town(town: Town, store: Any, tmp_path: Path) -> Town:
    small: dict[str, Any] = {"image_processes": 1, "image_process_mib": 400, "spool_dir": tmp_path}
    town.apis["image"] = await town.house.start("image", **small)
    await town.house.start("image-worker", **small)
    return town


async def live(town: Town, ada: UUID, bob: UUID, eve: UUID, name: str, seed: int) -> tuple[str, str, bytes]:
    """Ada does everything that leaves something somewhere; her post, her comment under Bob's, her photo."""
    for follower, followee in ((ada, bob), (bob, ada)):
        assert await town.follow(follower, followee) == 204
    picture = noise(seed, 700)
    assert len(picture) > PIECE
    shown = [await photo(town, ada, picture)]
    body = {"image_ids": shown, "caption": "#sea and @bob.b", "alt_texts": ["noise"]}
    post = (await town.call("post", "POST", "/v1/posts", ada, key="a-post", json=body)).json()["id"]
    by_bob = await town.post(bob)
    calls: list[tuple[str, str, str, UUID, Any]] = [
        ("activity", "PUT", f"/v1/posts/{by_bob}/like", ada, None),
        ("activity", "PUT", f"/v1/posts/{post}/like", bob, None),
        ("activity", "POST", f"/v1/posts/{post}/comments", bob, {"text": "nice"}),
        ("profile", "PUT", "/v1/users/me/picture", ada, {"image_id": shown[0]}),
        ("profile", "PATCH", "/v1/users/me", ada, {"bio": "I am " + name}),
        ("post", "PUT", f"/v1/posts/{by_bob}/report", ada, {"reason": "other", "note": "for the archive"}),
        ("profile", "PUT", f"/v1/users/{bob}/report", ada, {"reason": "spam"}),
        ("follow", "PUT", f"/v1/users/me/blocks/{eve}", ada, None),
        ("notification", "PATCH", "/v1/notifications/preferences", ada, {"mention": False}),
    ]
    for service, method, path, user, sent in calls:
        answer = await town.call(service, method, path, user, json=sent)
        assert answer.status_code < 300, (path, answer.text)
    said = {"text": "me too"}
    comment = await town.call("activity", "POST", f"/v1/posts/{by_bob}/comments", ada, key="a-comment", json=said)
    for user in (ada, bob):
        await town.feed(user)
    return post, comment.json()["id"], picture


async def test_the_archive_has_everything_of_an_account_and_its_photos_as_they_were_sent(whole_town: Town) -> None:
    town = whole_town
    ada, bob, eve = [await register(town, name) for name in ("ada.a", "bob.b", "eve.e")]
    post, comment, picture = await live(town, ada, bob, eve, "ada.a", 1)

    async def told() -> bool:
        return len(await town.told(ada)) == 3

    await eventually(told)
    answer = await town.call("profile", "GET", "/v1/users/me/export", ada)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/zip"
    archive = zipfile.ZipFile(io.BytesIO(answer.content))
    assert archive.testzip() is None
    parts = {name: json.loads(archive.read(name)) for name in archive.namelist() if name.endswith(".json")}
    assert {name: len(rows) for name, rows in parts.items()} == {
        "user.json": 1,
        "sessions.json": 1,
        "following.json": 1,
        "followers.json": 1,
        "follow-requests.json": 0,
        "blocks.json": 1,
        "posts.json": 1,
        "reports-of-posts.json": 1,
        "reports-of-users.json": 1,
        "likes.json": 1,
        "comments.json": 1,
        "notifications.json": 3,
        "muted.json": 1,
        "images.json": 1,
    }
    assert parts["posts.json"][0]["id"] == post
    assert parts["posts.json"][0]["images"][0]["alt_text"] == "noise"
    assert parts["comments.json"][0]["id"] == comment
    assert parts["user.json"][0]["bio"] == "I am ada.a"
    [name] = [name for name in archive.namelist() if name.startswith("photos/")]
    assert name == f"photos/{parts['images.json'][0]['id']}.png"
    assert archive.read(name) == picture
    assert "hash" not in json.dumps(parts["sessions.json"])
    assert str(eve) not in json.dumps(parts["followers.json"])


PASSING = (b"user:", b"post:", b"liked:", b"feed:", b"idempotency:")
"""What stays for a day at most: tombstones, ids of posts that are gone in the feeds and likes of others, and sealed
answers."""


def needles(*words: str | UUID) -> list[bytes]:
    """How the stores may write ids and names: as text, as raw bytes, and as both in hex."""
    found = [word.encode() if isinstance(word, str) else word.bytes for word in words]
    found += [str(word).encode() for word in words if isinstance(word, UUID)]
    return found + [word.hex().encode() for word in found]


async def in_rows(town: Town, wanted: list[bytes]) -> set[str]:
    """Tables with a row that has any of these."""
    found = set()
    async with town.house.runtimes["post"].database.engine.connect() as connection:
        tables = await connection.execute(
            text("SELECT schemaname, tablename FROM pg_tables WHERE schemaname !~ '^(pg_|information_schema)'")
        )
        for schema, table in tables.all():
            for (row,) in await connection.execute(text(f'SELECT t::text FROM "{schema}"."{table}" AS t')):
                if any(word in row.encode() for word in wanted):
                    found.add(f"{schema}.{table}")
    return found


async def in_valkey(town: Town, wanted: list[bytes]) -> dict[bytes, int]:
    """Keys that have any of these in their name or value, with the seconds they have left; -1: no end."""
    redis = town.house.redis
    read = {
        b"string": redis.get,
        b"hash": redis.hgetall,
        b"zset": lambda key: redis.zrange(key, 0, -1, withscores=True),
        b"set": redis.smembers,
        b"list": lambda key: redis.lrange(key, 0, -1),
        b"stream": redis.xrange,
    }
    found = {}
    async for key in redis.scan_iter(count=1_000):
        kind = await redis.type(key)
        value = await read[kind](key) if kind in read else b""
        whole = key + b"\n" + b"\n".join(_flat(value))
        if any(word in whole for word in wanted):
            found[key] = await redis.ttl(key)
    return found


def _flat(value: Any) -> list[bytes]:
    if isinstance(value, bytes):
        return [value]
    if isinstance(value, dict):
        return [part for item in value.items() for part in _flat(item)]
    if isinstance(value, list | tuple | set):
        return [part for item in value for part in _flat(item)]
    return []


async def test_a_deleted_account_leaves_nothing_in_any_store(whole_town: Town, store: Any) -> None:
    town = whole_town
    ada, bob, eve = [await register(town, name) for name in ("ada.gone", "bob.stays", "eve.stays")]
    others = set(await store.list_keys(""))
    post, comment, picture = await live(town, ada, bob, eve, "ada.gone", 2)
    sha256 = hashlib.sha256(picture).hexdigest()
    wanted = needles(ada, UUID(post), UUID(comment), "ada.gone", sha256)

    async def rendered() -> bool:
        return any(key.startswith("media/") for key in set(await store.list_keys("")) - others)

    await eventually(rendered)
    assert {"profile.user", "post.post", "activity.comment", "image.image"} <= await in_rows(town, wanted)
    assert await in_valkey(town, wanted)
    head = town.house.as_user(ada)
    gone = await town.apis["profile"].request("DELETE", "/v1/users/me", json={"password": PASSWORD}, headers=head)
    assert gone.status_code == 204, gone.text

    async def nothing() -> bool:
        rows, objects = await in_rows(town, wanted), set(await store.list_keys("")) - others
        left = {key for key in await in_valkey(town, wanted) if not key.startswith(PASSING)}
        return not rows and not objects and not left

    await eventually(nothing)
    left = await in_valkey(town, wanted)
    assert keys.user(ada) in left
    assert keys.feed(ada) not in left
    assert all(0 < seconds <= 24 * 3600 for seconds in left.values()), left
    assert len([key for key in left if key.startswith(b"idempotency:")]) == 3
    assert await in_valkey(town, needles("ada.gone", "me too", "#sea", sha256)) == {}, "nothing that can be read"
