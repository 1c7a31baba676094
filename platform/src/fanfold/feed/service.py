"""Feed reads: from the cache when it is warm, rebuilt once when it is cold, from SQL below what is cached."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Final

from fanfold.contracts import internal
from fanfold.contracts.keys import FEED_MEMBER_BYTES
from fanfold.feed import metrics
from fanfold.feed.stored import split_ids
from fanfold.feed.window import ABOVE_ALL, Source, Window, page
from fanfold.kit.errors import Unavailable
from fanfold.kit.flight import SingleFlight
from fanfold.kit.logging import get_logger

if TYPE_CHECKING:
    from uuid import UUID

    from fanfold.feed.celebrities import CelebrityTimelines
    from fanfold.feed.repository import FeedRepository
    from fanfold.feed.settings import FeedSettings
    from fanfold.feed.stored import CachedFeed
    from fanfold.kit.peers import Peers

log = get_logger(__name__)

REBUILD_SECONDS: Final = 10.0
"""A reader waits no longer: a lease of a crashed rebuild, and one more rebuild, fit in."""
_POLL_SECONDS: Final = 0.02


class FeedService:
    """Decides where a page comes from, and what a change of the follow graph does to a feed."""

    def __init__(
        self, repository: FeedRepository, peers: Peers, celebrities: CelebrityTimelines, settings: FeedSettings
    ) -> None:
        self._repository = repository
        self._peers = peers
        self._settings = settings
        self._celebrities = celebrities
        self._flights: SingleFlight[CachedFeed] = SingleFlight()
        self._slots = asyncio.Semaphore(settings.rebuilds)

    async def page(self, user_id: UUID, limit: int, before: UUID | None = None) -> Window:
        """Members of one page, newest first, below the post ``before``.

        Raises:
            Unavailable: The feed is cold and cannot be rebuilt now.
        """
        position = ABOVE_ALL if before is None else before.bytes
        cached = await self._repository.read(user_id)
        outcome = "warm"
        if cached is None:
            cached, outcome = await self._flights.do(user_id, lambda: self._rebuild(user_id)), "rebuilt"
        window = page(await self._sources(cached), limit, position)
        if window is None:
            window, outcome = await self._deep(user_id, limit, position), "deep"
        metrics.READS[outcome].inc()
        return window

    async def invalidate(self, user_id: UUID) -> None:
        """The user's followees changed: no read that begins after this shows the feed as it was."""
        await self._repository.invalidate(user_id.bytes)

    async def forget(self, user_id: UUID, gone: list[bytes]) -> None:
        """Take posts that hydration found deleted out of the feed (a late push may have brought one back)."""
        await self._repository.remove(user_id.bytes, gone)

    async def _sources(self, cached: CachedFeed) -> list[Source]:
        own = Source(cached.members, complete=cached.complete)
        if not cached.celebrities:
            return [own]
        return [own, *await self._celebrities.get(cached.celebrities)]

    async def _deep(self, user_id: UUID, limit: int, position: bytes) -> Window:
        pushed, celebrities = await self._authors(user_id)
        query = internal.TimelinesQuery(pushed + celebrities, limit + 1, b"" if position is ABOVE_ALL else position)
        answer = await self._peers.call(internal.TIMELINES, query)
        members = split_ids(answer.members, FEED_MEMBER_BYTES)
        return Window(members[:limit], more=len(members) > limit)

    async def _authors(self, user_id: UUID) -> tuple[bytes, bytes]:
        """Whose posts are in the feed: (those pushed into it, those folded in)."""
        followees = await self._peers.call(internal.FOLLOWEES, internal.FolloweesQuery(user_id.bytes))
        own = user_id.bytes if self._settings.own_posts else b""
        if self._settings.celebrity_mode == "batched":
            return own + followees.pushed + followees.celebrities, b""
        return own + followees.pushed, followees.celebrities

    async def _rebuild(self, user_id: UUID) -> CachedFeed:
        """Rebuild the feed, or wait for the replica that does."""
        try:
            async with asyncio.timeout(REBUILD_SECONDS), self._slots:
                while True:
                    marker = await self._repository.begin(user_id)
                    built = await (self._build(user_id, marker) if marker else self._repository.read(user_id))
                    if built is not None:
                        return built
                    # Another replica is at it, or a follow called this one off.
                    await asyncio.sleep(_POLL_SECONDS * random.uniform(0.5, 1.5))  # noqa: S311 - jitter
        except TimeoutError as error:
            log.warning("rebuild_timed_out")
            raise Unavailable("The feed is being rebuilt; try again.") from error

    async def _build(self, user_id: UUID, marker: bytes) -> CachedFeed | None:
        try:
            with metrics.REBUILD_SECONDS.time():
                pushed, celebrities = await self._authors(user_id)
                query = internal.TimelinesQuery(pushed, self._settings.feed_length)
                answer = await self._peers.call(internal.TIMELINES, query)
                members = split_ids(answer.members, FEED_MEMBER_BYTES)
                return await self._repository.finish(user_id, marker, members, celebrities)
        except BaseException:
            await self._repository.invalidate(user_id.bytes)  # else readers wait for the lease to run out
            raise
