"""A cache full of feeds: users, posts with their photos, counts and likes, as the services write them."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from uuid import UUID

import msgspec

from fanfold.contracts import keys
from fanfold.contracts.blobs import CountsBlob, ImageBlob, PostBlob, UserBlob, VariantsBlob
from fanfold.contracts.ids import id_millis, new_id
from fanfold.feed.stored import build
from fanfold.image.pictures import ENCODERS, WIDTHS
from fanfold.kit.valkey import Valkey

if TYPE_CHECKING:
    from collections.abc import Sequence

BATCH: Final = 500
FOLLOWEES_SHARE: Final = 20
"""One post of every twenty is of the same author."""


@dataclass
class Seeded:
    """What there is: the feed of ``users[n]`` holds ``members[n]``, newest first."""

    users: list[UUID]
    members: list[list[bytes]]


async def seed(url: str, *, users: int, posts: int, length: int, chance: random.Random) -> Seeded:
    """Fill the cache. Counts are stamped an hour ahead, so that they stay fresh for the whole run."""
    valkey = Valkey(url)
    authors = [new_id() for _ in range(max(1, posts // FOLLOWEES_SHARE))]
    members = sorted((new_id().bytes + chance.choice(authors).bytes for _ in range(posts)), reverse=True)
    await write(valkey, [("SET", keys.user(author), user_blob(author)) for author in authors])
    await write(valkey, [("SET", keys.POST + one[:16], post_blob(one, chance)) for one in members])
    fresh = int((time.time() + 3600) * 1000)
    counts = [msgspec.msgpack.encode(CountsBlob(chance.randrange(900), chance.randrange(90), fresh)) for _ in range(64)]
    await write(valkey, [("SET", keys.COUNTS + one[:16], chance.choice(counts)) for one in members])
    readers = [new_id() for _ in range(users)]
    feeds = [sorted(chance.sample(members, length), reverse=True) for _ in readers]
    commands: list[Sequence[bytes | str | int]] = []
    for reader, feed in zip(readers, feeds, strict=True):
        commands.append(("RPUSH", keys.feed(reader), *build(feed, b"1800000000000000", length)))
        liked = [part for one in feed[::7] for part in (id_millis(UUID(bytes=one[:16])), one[:16])]
        commands.append(("ZADD", keys.liked(reader), 0, keys.COMPLETE, *liked))
    await write(valkey, commands)
    await valkey.close()
    return Seeded(readers, feeds)


def user_blob(user_id: UUID) -> bytes:
    """A user with a picture."""
    name = f"user{user_id.int % 10**8}"
    return msgspec.msgpack.encode(UserBlob(user_id.bytes, name, name.title(), f"images/{user_id.hex}/150.webp"))


def post_blob(member: bytes, chance: random.Random) -> bytes:
    """A post with one photo in all its variants: twelve, as the image worker makes them."""
    image = new_id()
    name = f"{chance.getrandbits(128):032x}"
    variants = VariantsBlob(f"{name}/{{width}}.{{format}}", list(WIDTHS), list(ENCODERS))
    photo = ImageBlob(image.bytes, 4000, 3200, "LEHV6nWB2yk8pyo0adR*.7kCMdnj", "", variants)
    created = int.from_bytes(member[:6], "big")
    caption = "A morning by the lake, long before anybody else was up. #lake #morning"
    return msgspec.msgpack.encode(PostBlob(member[:16], member[16:], caption, created, [photo]))


async def write(valkey: Valkey, commands: Sequence[Sequence[bytes | str | int]]) -> None:
    """Carry out commands, a batch at once; the first error is raised."""
    for start in range(0, len(commands), BATCH):
        await valkey.all(commands[start : start + BATCH])
