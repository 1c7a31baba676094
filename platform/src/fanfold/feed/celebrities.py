"""Timelines of celebrities, kept in this process for a second by the replica that owns the reader.

However many followers read at once, each replica reads a celebrity's timeline once a second. With many replicas that
is still many reads of one key: then there are copies of it, and each replica reads one, always the same.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from fanfold.contracts import internal
from fanfold.contracts.keys import FEED_MEMBER_BYTES
from fanfold.feed.stored import split_ids
from fanfold.feed.window import Source
from fanfold.kit.flight import SingleFlight

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fanfold.feed.repository import FeedRepository
    from fanfold.kit.peers import Peers

FRESH_SECONDS: Final = 1.0
LIMIT: Final = 10_000
"""Timelines kept, about 1.5 kB each."""
CALLS: Final = 8
"""Calls of the post service at once, for timelines that the cache has lost."""


class CelebrityTimelines:
    """Newest posts by author: from this process, else from Valkey, else from the post service.

    Args:
        repository: Reads the timelines the post service keeps in Valkey.
        peers: Asks the post service.
        length: Posts a timeline is read to.
        copy: Which copy of the timelines is read, of how many.
        now: Seconds on a clock that never goes back.
    """

    def __init__(
        self,
        repository: FeedRepository,
        peers: Peers,
        *,
        length: int,
        copy: tuple[int, int] = (0, 1),
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._repository = repository
        self._peers = peers
        self._length = length
        self._copy = copy
        self._now = now
        self._known: OrderedDict[bytes, tuple[float, Source]] = OrderedDict()
        self._flights: SingleFlight[Source] = SingleFlight()
        self._calls = asyncio.Semaphore(CALLS)

    async def get(self, author_ids: Sequence[bytes]) -> list[Source]:
        """One source per author, in order.

        Raises:
            Unavailable: The post service was needed and does not answer.
        """
        stale_before = self._now() - FRESH_SECONDS
        known = [self._known.get(author) for author in author_ids]
        if all(entry is not None and entry[0] > stale_before for entry in known):
            return [entry[1] for entry in known if entry is not None]
        return await asyncio.gather(*(self._fresh(author, stale_before) for author in author_ids))

    async def _fresh(self, author_id: bytes, stale_before: float) -> Source:
        entry = self._known.get(author_id)
        if entry is not None and entry[0] > stale_before:
            return entry[1]
        return await self._flights.do(author_id, lambda: self._read(author_id))

    async def _read(self, author_id: bytes) -> Source:
        read_at = self._now()
        members = await self._repository.timeline(author_id, *self._copy)
        if members is None:
            async with self._calls:
                query = internal.TimelinesQuery(author_id, self._length, copy=self._copy[0])
                answer = await self._peers.call(internal.TIMELINES, query)
            members = split_ids(answer.members, FEED_MEMBER_BYTES)
        source = Source(members, complete=len(members) < self._length)
        self._known[author_id] = (read_at, source)
        self._known.move_to_end(author_id)
        if len(self._known) > LIMIT:
            self._known.popitem(last=False)
        return source
