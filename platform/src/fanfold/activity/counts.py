"""Counts of likes and comments: SELECT COUNT, kept for seconds, counted once however many ask."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING
from uuid import UUID

import msgspec

from fanfold.activity import repository
from fanfold.contracts import keys
from fanfold.contracts.blobs import COUNTS_FRESH_MS, CountsBlob
from fanfold.kit.valkey import Script

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fanfold.kit.db import Database
    from fanfold.kit.valkey import Valkey

Counted = tuple[int, int]
"""Likes, comments."""

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(CountsBlob)

# KEYS: the post's counts. ARGV: more likes, more comments. Their age stays: they are counted again when it is time.
_ADJUST = Script("""
local old = redis.call('GET', KEYS[1])
if not old then return end
local counts = cmsgpack.unpack(old)
counts[1] = math.max(0, counts[1] + ARGV[1])
counts[2] = math.max(0, counts[2] + ARGV[2])
redis.call('SET', KEYS[1], cmsgpack.pack(counts), 'KEEPTTL')
""")


class Counts:
    """Likes and comments of posts.

    A change told by `changed` shows at once in what is cached. A count that another process began before the change
    and wrote after it is off by it until it is counted again, `COUNTS_FRESH_MS` later.
    """

    def __init__(self, database: Database, valkey: Valkey, seconds: int) -> None:
        self._database = database
        self._valkey = valkey
        self._seconds = seconds
        self._flights: dict[bytes, asyncio.Task[dict[bytes, Counted]]] = {}

    async def of(self, post_ids: list[bytes]) -> dict[bytes, Counted]:
        """Counts of every post asked for."""
        if not post_ids:
            return {}
        found = await self._cached(post_ids)
        missing = [post_id for post_id in post_ids if post_id not in found]
        return found | await self._counted(missing)

    async def changed(self, post_id: UUID, *, likes: int = 0, comments: int = 0) -> None:
        """Tell of a committed change."""
        self._flights.pop(post_id.bytes, None)  # who asks from here on is not to wait for a count that lacks it
        await self._valkey.script(_ADJUST, [keys.counts(post_id)], [likes, comments])

    async def forget(self, post_ids: Iterable[UUID]) -> None:
        """Have posts counted again."""
        names = [keys.counts(post_id) for post_id in set(post_ids)]
        for name in names:
            self._flights.pop(name.removeprefix(keys.COUNTS), None)
        await self._valkey.pipeline([("UNLINK", name) for name in names])

    async def _cached(self, post_ids: list[bytes]) -> dict[bytes, Counted]:
        values = await self._valkey.execute("MGET", *(keys.COUNTS + post_id for post_id in post_ids))
        oldest = time.time() * 1000 - COUNTS_FRESH_MS
        blobs = {
            post_id: _decoder.decode(value)
            for post_id, value in zip(post_ids, values, strict=True)
            if value is not None
        }
        return {post_id: (blob.likes, blob.comments) for post_id, blob in blobs.items() if blob.counted_ms >= oldest}

    async def _counted(self, post_ids: list[bytes]) -> dict[bytes, Counted]:
        """Counts from SQL; posts that are being counted are waited for, the others are one query."""
        new = [post_id for post_id in post_ids if post_id not in self._flights]
        if new:
            flight = asyncio.create_task(self._count(new))
            flight.add_done_callback(lambda done: done.cancelled() or done.exception())
            self._flights.update(dict.fromkeys(new, flight))
        flights = dict.fromkeys(self._flights[post_id] for post_id in post_ids)
        answers = await asyncio.gather(*(asyncio.shield(flight) for flight in flights))
        return {post_id: answer[post_id] for answer in answers for post_id in post_ids if post_id in answer}

    async def _count(self, post_ids: list[bytes]) -> dict[bytes, Counted]:
        flight = asyncio.current_task()
        counted_ms = int(time.time() * 1000)
        unchanged: list[bytes] = []
        try:
            async with self._database.reading() as session:
                found = await repository.post_counts(session, [UUID(bytes=post_id) for post_id in post_ids])
        finally:
            for post_id in post_ids:
                if self._flights.get(post_id) is flight:
                    del self._flights[post_id]
                    unchanged.append(post_id)
        counts = {post_id.bytes: counted for post_id, counted in found.items()}
        await self._valkey.pipeline(
            [
                ("SET", keys.COUNTS + post_id, _pack(counts[post_id], counted_ms), "EX", self._seconds)
                for post_id in unchanged
            ]
        )
        return counts


def _pack(counted: Counted, counted_ms: int) -> bytes:
    return _encoder.encode(CountsBlob(*counted, counted_ms))
