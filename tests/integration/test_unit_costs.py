"""docs/scaling.md calculates with the bytes of single rows and keys: measured here, so that the page stays true."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import asyncpg
import msgspec
import pytest

from fanfold.contracts import keys
from fanfold.contracts.blobs import CountsBlob, ImageBlob, PostBlob, UserBlob, VariantsBlob
from fanfold.contracts.ids import id_millis, new_id
from fanfold.feed import stored
from fanfold.feed.repository import LEFT, SPARE
from fanfold.image.pictures import ENCODERS, WIDTHS

pytestmark = pytest.mark.integration

PAGE: Final = Path(__file__).parents[2] / "docs" / "scaling.md"
ROWS: Final = 20_000
KEYS: Final = 2_000
LENGTH: Final = 20
TOLERANCE: Final = 0.15
"""Pages fill differently from run to run, and a version of a store may lay things out otherwise."""
CAPTION: Final = "A morning by the lake, long before anybody else was up. #lake #morning"
NOW: Final = datetime(2026, 1, 1, tzinfo=UTC)


def told() -> dict[str, int]:
    """Bytes by what they are of, as the page's table has them."""
    rows = re.findall(r"^\| `([a-z.:_]+)` \|.*\| ([\d,]+) \|$", PAGE.read_text(), re.MULTILINE)
    return {name: int(number.replace(",", "")) for name, number in rows}


def rows() -> dict[str, tuple[list[str], Callable[[int], tuple[Any, ...]]]]:
    """Tables with their columns, and a maker of rows of one of them."""
    users = [new_id() for _ in range(200)]
    posts = [new_id() for _ in range(ROWS)]

    def moment(number: int) -> datetime:
        return NOW + timedelta(seconds=number)

    return {
        "profile.user": (
            ["id", "username", "display_name", "bio", "picture_path", "created_at"],
            lambda n: (
                new_id(),
                f"user{n}.{secrets.token_hex(3)}",
                "Somebody Anybody",
                "",
                "images/x/320.jpeg",
                moment(n),
            ),
        ),
        "follow.follow": (
            ["follower_id", "followee_id", "id", "created_at"],
            lambda n: (new_id(), users[n % len(users)], new_id(), moment(n)),
        ),
        "post.post": (
            ["id", "author_id", "caption", "created_at", "version"],
            lambda n: (posts[n], users[n % len(users)], CAPTION, moment(n), 1),
        ),
        "post.post_image": (["post_id", "position", "image_id", "alt_text"], lambda n: (posts[n], 0, new_id(), "")),
        "activity.activity": (
            ["id", "kind", "parent_type", "parent_id", "user_id", "created_at"],
            lambda n: (new_id(), "like", "post", posts[n % 500], new_id(), moment(n)),
        ),
        "notification.notification": (
            ["user_id", "id", "kind", "actor_id", "subject_id", "post_id", "created_at"],
            lambda n: (users[n % len(users)], new_id(), "like", new_id(), posts[n], posts[n], moment(n)),
        ),
    }


async def test_the_bytes_of_rows_are_what_the_page_says(database_url: str) -> None:
    connection = await asyncpg.connect(database_url.replace("+asyncpg", ""), timeout=60)
    found: dict[str, int] = {}
    try:
        for name, (columns, make) in rows().items():
            schema, table = name.split(".")
            records = [make(number) for number in range(ROWS)]
            await connection.copy_records_to_table(table, schema_name=schema, records=records, columns=columns)
        for name in (*rows(), "follow.follower"):  # the last one is written by the follows' triggers
            size = await connection.fetchval(f"SELECT pg_total_relation_size('{name}'::regclass)")
            found[name] = round(size / ROWS)
    finally:
        await connection.close(timeout=60)
    check(found)


async def test_the_bytes_of_keys_are_what_the_page_says(house: Any) -> None:
    redis = house.redis

    async def feed(user: UUID) -> None:
        pushed = [new_id().bytes + new_id().bytes for _ in range((SPARE + LEFT) // 2)]
        members = [new_id().bytes + new_id().bytes for _ in range(LENGTH)]
        await redis.rpush(keys.feed(user), *stored.build(members, b"1800000000000000", LENGTH))
        for one in pushed:  # as many as a feed has on the average, between two cuts
            await redis.rpushx(keys.feed(user), one)
        await redis.expire(keys.feed(user), 86_400)

    async def blob(key: bytes, value: msgspec.Struct) -> None:
        await redis.set(key, msgspec.msgpack.encode(value), ex=86_400)

    async def post(post_id: UUID) -> None:
        variants = VariantsBlob(f"{post_id.hex}{post_id.hex}/{{width}}.{{format}}", list(WIDTHS), list(ENCODERS))
        photo = ImageBlob(new_id().bytes, 4_000, 3_000, "LEHV6nWB2yk8pyo0adR*.7kCMdnj", "", variants)
        await blob(keys.post(post_id), PostBlob(post_id.bytes, new_id().bytes, CAPTION, id_millis(post_id), [photo]))

    makers: dict[str, Callable[[UUID], Awaitable[None]]] = {
        "feed:": feed,
        "user:": lambda user: blob(
            keys.user(user), UserBlob(user.bytes, "somebody", "Somebody Anybody", "images/x/320.jpeg")
        ),
        "post:": post,
        "counts:": lambda post_id: blob(keys.counts(post_id), CountsBlob(120, 12, 1_800_000_000_000)),
    }
    found: dict[str, int] = {}
    for name, make in makers.items():
        before = await emptied(redis)
        for _ in range(KEYS):
            await make(new_id())
        found[name] = round(((await redis.info("memory"))["used_memory"] - before) / KEYS)
    check(found)


async def emptied(redis: Any) -> int:
    """Bytes in use once nothing is kept: Valkey frees what was in the background, which must not count as a saving."""
    await redis.execute_command("FLUSHALL", "SYNC")
    async with asyncio.timeout(60):
        while True:
            used = (await redis.info("memory"))["used_memory"]
            await asyncio.sleep(0.25)
            facts = await redis.info("memory")
            if facts["lazyfree_pending_objects"] == 0 and abs(facts["used_memory"] - used) < KEYS:
                return int(facts["used_memory"])


def check(found: dict[str, int]) -> None:
    page = told()
    wrong = {
        name: f"the page says {page.get(name)}, measured {size}"
        for name, size in found.items()
        if abs(page.get(name, 0) - size) > TOLERANCE * size
    }
    assert not wrong, "\n".join(f"{name}: {what}" for name, what in wrong.items())
