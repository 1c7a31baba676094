"""Feeds in Valkey: the room's only data access."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Final
from uuid import UUID

from fanfold.contracts import keys
from fanfold.feed import scripts, stored
from fanfold.feed.stored import ID_BYTES, CachedFeed, split_ids

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from fanfold.kit.valkey import Script, Valkey

    Pacing = Callable[[int], Awaitable[None]]

FEEDS_PER_CALL: Final = 500
"""Feeds one script call serves: two milliseconds of the server, short enough for reads to pass between."""
LEASE_MS: Final = 5_000
"""A rebuild that takes longer is taken for dead; longer than any peer call waits."""
CURSOR_SECONDS: Final = 86_400

PROGRESS_SECONDS: Final = 3_600
"""Nobody asks how long a post took that takes longer."""

_SPLIT: Final = b"split:"
_PROGRESS: Final = b"progress:"
_PREFIXES: Final = tuple(keys.feed_prefix(number) for number in range(keys.BUCKETS))
_REBUILT: Final = tuple(keys.rebuilt(number) for number in range(keys.BUCKETS))
SPARE: Final = 12
"""Posts a feed may have beyond its length before it is cut: cutting ten at once costs a push a tenth of it."""
LEFT: Final = 2
"""Of them, how many stay: so many may come late and no feed has to be rebuilt for that."""


def member(post_id: bytes, author_id: bytes) -> bytes:
    """A post as feeds and timelines hold it."""
    return post_id + author_id


def _by_bucket(user_ids: bytes) -> Iterable[tuple[int, list[bytes]]]:
    """Feed keys of concatenated user ids, in lists of one bucket, which is named, and at most `FEEDS_PER_CALL`."""
    buckets: dict[int, list[bytes]] = {}
    for start in range(0, len(user_ids), ID_BYTES):
        number = user_ids[start + ID_BYTES - 1] % keys.BUCKETS
        buckets.setdefault(number, []).append(_PREFIXES[number] + user_ids[start : start + ID_BYTES])
    for number, feeds in buckets.items():
        for start in range(0, len(feeds), FEEDS_PER_CALL):
            yield number, feeds[start : start + FEEDS_PER_CALL]


class FeedRepository:
    """Commands and scripts of one platform's feeds.

    Args:
        valkey: The auto-pipelining client.
        length: Posts a feed holds.
        ttl_seconds: Life of a feed from its rebuild.
        spare: Posts it may have beyond them; more than two.
    """

    def __init__(self, valkey: Valkey, *, length: int, ttl_seconds: int, spare: int = SPARE) -> None:
        self._valkey = valkey
        self._length = length
        self._ttl = ttl_seconds
        self._limits = (1 + length + spare, length + LEFT)

    async def read(self, user_id: UUID) -> CachedFeed | None:
        """The feed in one round trip; None when it is cold or being rebuilt."""
        return await self._usable(user_id, await self._valkey.execute("LRANGE", keys.feed(user_id), 0, -1))

    async def tick(self) -> int:
        """Next tick of the clock that orders rebuilds and reads of follower lists."""
        return int(await self._valkey.script(scripts.TICK, [keys.FEED_CLOCK]))

    async def begin(self, user_id: UUID) -> bytes | None:
        """Begin a rebuild; its marker. None: another rebuild is under way, or the feed is there."""
        feed, marker = keys.feed(user_id), os.urandom(ID_BYTES)
        if not await self._valkey.script(scripts.BEGIN, [feed], [stored.header(marker, stored.UNARMED), LEASE_MS]):
            return None
        armed_header = stored.header(marker, b"%d" % await self.tick())
        armed = await self._valkey.script(scripts.ARM, [feed, _REBUILT[keys.bucket(user_id)]], [armed_header])
        return marker if armed else None

    async def finish(
        self, user_id: UUID, marker: bytes, members: Sequence[bytes], celebrities: bytes
    ) -> CachedFeed | None:
        """Make the rebuilt posts, newest first, and those pushed meanwhile the feed. None: it was called off."""
        floor = stored.floor_of(members, self._length)
        built = await self._valkey.script(
            scripts.FINISH,
            [keys.feed(user_id)],
            [marker, stored.WHOLE, floor, celebrities, self._ttl, *reversed(members)],
        )
        return await self._usable(user_id, built or ())

    async def _usable(self, user_id: UUID, elements: Sequence[bytes]) -> CachedFeed | None:
        feed = stored.parse(elements)
        if feed is not None and not feed.complete and len(feed.members) < self._length:
            await self.invalidate(user_id.bytes)  # posts are missing, and only a rebuild knows which
            return None
        return feed

    async def push(self, user_ids: bytes, post: bytes, tick: int, pace: Pacing | None = None) -> int:
        """Add ``post`` (a member) to the warm feeds among ``user_ids``; how many those were.

        With `pace`, which is asked before each `FEEDS_PER_CALL` of them, these go one after the other, and others'
        reads come in between. All at once they fill the server's buffer of this connection, which it empties in one go.
        """
        return await self._each_bucket(scripts.PUSH, _REBUILT, user_ids, [tick, post, *self._limits], pace)

    async def remove(self, user_ids: bytes, posts: Sequence[bytes], pace: Pacing | None = None) -> int:
        """Take ``posts`` (members) out of feeds; how many were found. `pace` as of `push`."""
        return await self._each_bucket(scripts.REMOVE, None, user_ids, [stored.WHOLE, *posts], pace)

    async def invalidate(self, user_ids: bytes) -> None:
        """Delete feeds, and call off their rebuilds: the next read starts from the follow list as it then is."""
        await self._valkey.all([("UNLINK", *feeds) for _, feeds in _by_bucket(user_ids)])

    async def announce(self, user_ids: bytes, payload: bytes) -> None:
        """Publish ``payload`` to the users' channels, for those who listen."""
        channels = [keys.notifications(UUID(bytes=user_id)) for user_id in split_ids(user_ids)]
        await self._valkey.all([("PUBLISH", channel, payload) for channel in channels])

    async def timeline(self, author_id: bytes, copy: int = 0, of: int = 1) -> list[bytes] | None:
        """The author's newest posts as the post service cached them, newest first; None when it has not.

        Args:
            author_id: Whose.
            copy: Which copy.
            of: How many there are; of one, it is the timeline itself.
        """
        author = UUID(bytes=author_id)
        key = keys.timeline(author) if of == 1 else keys.timeline_copy(author, copy, of)
        found = await self._valkey.execute("ZRANGE", key, 0, self._length, "REV")
        if len(found) <= self._length and keys.COMPLETE not in found:
            return None
        return [entry for entry in found if entry != keys.COMPLETE][: self._length]

    async def deleted(self, post_id: UUID) -> bool:
        """Whether the post has a tombstone."""
        return bool(await self._valkey.execute("GET", keys.post(post_id)) == keys.TOMBSTONE)

    async def is_pulled(self, author_id: UUID) -> bool:
        """Whether fan-out last treated the author as one whose posts are pulled."""
        return bool(await self._valkey.execute("EXISTS", keys.pulled(author_id)))

    async def set_pulled(self, author_id: UUID, *, pulled: bool) -> None:
        """Remember how fan-out treats the author's posts."""
        key = keys.pulled(author_id)
        await self._valkey.execute(*(("SET", key, b"1") if pulled else ("DEL", key)))

    async def split_position(self, job_key: bytes) -> bytes:
        """Up to where a list of followers has been split already; empty at its beginning."""
        return await self._valkey.execute("GET", _SPLIT + job_key) or b""

    async def set_split_position(self, job_key: bytes, position: bytes) -> None:
        """Remember it for a day: longer than a message is tried again."""
        await self._valkey.execute("SET", _SPLIT + job_key, position, "EX", CURSOR_SECONDS)

    async def arrived(self, post_id: bytes, index: int | None, *, of: int = 0) -> bool:
        """Note that a post's chunk ``index`` arrived, and how many chunks there are once that is known.

        Returns:
            Whether now all have arrived: true once for a post.
        """
        told: list[bytes | int] = [] if index is None else [b"%d" % index, 1]
        if of:
            told += [b"of", of]
        key = _PROGRESS + post_id
        return bool(await self._valkey.script(scripts.ARRIVED, [key], [PROGRESS_SECONDS, *told]))

    async def _each_bucket(
        self,
        script: Script,
        first: Sequence[bytes] | None,
        user_ids: bytes,
        arguments: Sequence[bytes | int],
        pace: Pacing | None,
    ) -> int:
        """Sum of a script's answers for all feeds; its first key is the bucket's own of ``first``."""
        calls = list(_by_bucket(user_ids))
        total = 0
        while calls:
            some = [calls.pop()]
            count = len(some[0][1])
            while calls and (pace is None or count + len(calls[-1][1]) <= FEEDS_PER_CALL):
                some.append(calls.pop())
                count += len(some[-1][1])
            if pace is not None:
                await pace(count)
            named = ([first[number], *feeds] if first else feeds for number, feeds in some)
            total += sum(await asyncio.gather(*(self._valkey.script(script, one, arguments) for one in named)))
        return total
