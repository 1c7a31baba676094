"""The newest rows of something, mirrored in a sorted set that is complete down to its floor, or counts as missing.

The rows are the truth. Who commits a change tells the mirror after it (`add`, `remove`); who finds the mirror missing
fills it from the rows (`refill`). A change that meets a refill under way calls it off, so that no refill can write what
it read before the change: while one is under way the set holds a random marker instead of `keys.COMPLETE`.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from fanfold.contracts.keys import COMPLETE
from fanfold.kit.flight import SingleFlight
from fanfold.kit.valkey import Script

if TYPE_CHECKING:
    from fanfold.kit.valkey import Argument, Valkey

MARKER_SECONDS: Final = 30
"""Life of the marker of a refill: longer than any statement may run."""
ATTEMPTS: Final = 5
"""Refills in a row that changes may call off; then the rows are answered without being kept."""


class Entry(NamedTuple):
    """A member and its score. Scores are positive; greater is newer."""

    score: int
    member: bytes


class Mirrored(NamedTuple):
    """Members newest first. ``complete``: there are none below."""

    members: list[bytes]
    complete: bool


Load = Callable[[], Awaitable[Sequence[Entry]]]

# KEYS: the set. All scripts touch this one key, so they run on any cluster.
_BEGIN = Script("""
redis.call('DEL', KEYS[1])
redis.call('ZADD', KEYS[1], 0, ARGV[1])
redis.call('EXPIRE', KEYS[1], ARGV[2])
""")

# ARGV: marker, COMPLETE, floor, seconds to live, then score and member of each entry.
_FILL = Script("""
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) then return 0 end
redis.call('DEL', KEYS[1])
redis.call('ZADD', KEYS[1], ARGV[3], ARGV[2])
for i = 5, #ARGV, 1000 do
  redis.call('ZADD', KEYS[1], unpack(ARGV, i, math.min(i + 999, #ARGV)))
end
redis.call('EXPIRE', KEYS[1], ARGV[4])
return 1
""")

# ARGV: COMPLETE, score, member, limit, seconds to live (0: as before).
# A set over its limit loses its lowest entry to the floor.
_ADD = Script("""
local floor = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not floor then redis.call('DEL', KEYS[1]) return end
if tonumber(ARGV[2]) <= tonumber(floor) then return end
redis.call('ZADD', KEYS[1], ARGV[2], ARGV[3])
if redis.call('ZCARD', KEYS[1]) > tonumber(ARGV[4]) + 1 then
  local lowest = redis.call('ZRANGE', KEYS[1], 1, 1, 'WITHSCORES')
  redis.call('ZREM', KEYS[1], lowest[1])
  redis.call('ZADD', KEYS[1], lowest[2], ARGV[1])
end
if tonumber(ARGV[5]) > 0 then redis.call('EXPIRE', KEYS[1], ARGV[5]) end
""")

# ARGV: COMPLETE, member. A set with a floor would no longer be full: it goes, and is filled again when it is read.
_REMOVE = Script("""
if redis.call('ZSCORE', KEYS[1], ARGV[1]) == '0' then redis.call('ZREM', KEYS[1], ARGV[2])
else redis.call('DEL', KEYS[1]) end
""")


class RecentSet:
    """Mirrors of one kind.

    Args:
        valkey: Where they are.
        limit: Entries each holds at most; those of the highest scores.
        seconds: Time to live since the last refill.
        renewed: Whether a change begins it anew.
    """

    def __init__(self, valkey: Valkey, *, limit: int, seconds: int, renewed: bool = True) -> None:
        self._valkey = valkey
        self._limit = limit
        self._seconds = seconds
        self._renewed_seconds = seconds if renewed else 0
        self._flights: SingleFlight[Mirrored] = SingleFlight()

    async def read(self, key: bytes) -> Mirrored | None:
        """All entries; None when the mirror is missing."""
        found: list[Any] = await self._valkey.execute("ZRANGE", key, 0, -1, "REV", "WITHSCORES")
        if not found or found[-2] != COMPLETE:
            return None
        return Mirrored(found[:-2:2], complete=float(found[-1]) == 0)

    async def refill(self, key: bytes, load: Load) -> Mirrored:
        """Fill the mirror with what ``load`` reads: the newest ``limit`` entries, newest first. Once at a time."""
        return await self._flights.do(key, lambda: self._refill(key, load))

    async def add(self, key: bytes, entry: Entry) -> None:
        """Tell of a row that is committed. Safe to repeat."""
        await self._valkey.script(_ADD, [key], [COMPLETE, *entry, self._limit, self._renewed_seconds])

    async def remove(self, key: bytes, member: bytes) -> None:
        """Tell of a row whose deletion is committed. Safe to repeat."""
        await self._valkey.script(_REMOVE, [key], [COMPLETE, member])

    async def drop(self, key: bytes) -> None:
        """Make the mirror missing, and call off a refill under way."""
        await self._valkey.execute("UNLINK", key)

    async def _refill(self, key: bytes, load: Load) -> Mirrored:
        entries: Sequence[Entry] = ()
        for _ in range(ATTEMPTS):
            marker = os.urandom(16)
            await self._valkey.script(_BEGIN, [key], [marker, MARKER_SECONDS])
            entries = await load()
            floor = entries[-1].score if len(entries) >= self._limit else 0
            flat: list[Argument] = [part for entry in entries for part in entry]
            if await self._valkey.script(_FILL, [key], [marker, COMPLETE, floor, self._seconds, *flat]):
                break
        return Mirrored([entry.member for entry in entries], complete=len(entries) < self._limit)
