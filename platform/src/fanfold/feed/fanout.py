"""Fan-out: a post's way from its event through pages of followers into their feeds.

Each step is one stream message and bounded work, so that a long list of followers never holds up a short one, and a
crash costs at most one step done twice. All effects are idempotent.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final
from uuid import UUID

from fanfold.contracts import events, internal, live
from fanfold.contracts.ids import id_millis
from fanfold.feed import metrics
from fanfold.feed.jobs import LARGE, SMALL, Action, Chunk, Job, Lane, Split
from fanfold.feed.repository import member
from fanfold.feed.stored import ID_BYTES

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fanfold.feed.repository import FeedRepository
    from fanfold.feed.settings import FanoutSettings
    from fanfold.kit.peers import Peers

    Publish = Callable[[Lane, Job], Awaitable[None]]

END: Final = b"\xff" * ID_BYTES
"""Position after the last follower."""


class Pace:
    """Spreads work evenly over time: at most ``rate`` units a second."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._free_at = 0.0

    async def take(self, units: int) -> None:
        """Wait until ``units`` may be done."""
        now = asyncio.get_running_loop().time()
        start = max(now, self._free_at)
        self._free_at = start + units / self._rate
        if start > now:
            await asyncio.sleep(start - now)


class Fanout:
    """Decides by which lane a post travels, and does the steps of the way.

    Args:
        publish: Puts a job on a lane; returns when the lane has it.
    """

    def __init__(self, repository: FeedRepository, peers: Peers, publish: Publish, settings: FanoutSettings) -> None:
        self._repository = repository
        self._peers = peers
        self._publish = publish
        self._settings = settings
        self._pace = Pace(settings.large_lane_rate)

    async def handle(self, event: events.AnyEvent) -> None:
        """One event of the topics posts, follows and accounts; others are not for feeds."""
        match event:
            case events.PostCreated():
                await self._start("push", event.post_id, event.author_id)
            case events.PostDeleted():
                await self._start("remove", event.post_id, event.author_id)
            case events.PostShown():
                await self._again("restore", event.post_id)
                await self._start("restore", event.post_id, event.author_id)
            case events.AccountShown():
                # Its posts left feeds one by one, as these were read; nobody knows which.
                await self._again("invalidate", event.user_id)
                await self._publish(LARGE, Split("invalidate", event.user_id.bytes, event.user_id.bytes, b""))
            case events.Followed() | events.Unfollowed():
                # The follow service has told the feed service already, unless it died between commit and call.
                await self._repository.invalidate(event.follower_id.bytes)
            case events.Blocked():
                await self._repository.invalidate(event.blocker_id.bytes + event.blocked_id.bytes)
            case events.AccountDeleted():
                await self._repository.invalidate(event.user_id.bytes)
            case _:
                return

    async def run(self, lane: Lane, job: Job) -> None:
        """One job of a lane."""
        match job:
            case Split():
                await self._split(lane, job)
            case Chunk():
                await self._deliver(lane, job)

    async def _start(self, action: Action, post_id: UUID, author_id: UUID) -> None:
        tick = await self._repository.tick()
        page = await self._followers(author_id.bytes, b"")
        pulled = page.celebrity and self._settings.celebrity_mode == "pull"
        await self._note_crossing(post_id, author_id, pulled=pulled)
        recipients = author_id.bytes if self._settings.own_posts else b""
        if not pulled:
            recipients += page.follower_ids
        lane = SMALL if pulled or page.total <= self._settings.small_lane_followers else LARGE
        more = not pulled and self._is_full(page)
        index = 0 if action == "push" and not pulled else -1
        if recipients:
            job = Chunk(action, post_id.bytes, author_id.bytes, tick, recipients, index, last=not more)
            await self._publish(lane, job)
        if more:
            after = page.follower_ids[-ID_BYTES:]
            await self._publish(lane, Split(action, post_id.bytes, author_id.bytes, after, _next(index)))
        metrics.POSTS_FANNED_OUT.labels("pulled" if pulled else lane).inc()

    async def _again(self, action: Action, what: UUID) -> None:
        """Forget how far an earlier list for this was split: what is done may be asked for a second time."""
        await self._repository.set_split_position(Split(action, what.bytes, b"", b"").key, b"")

    async def _note_crossing(self, post_id: UUID, author_id: UUID, *, pulled: bool) -> None:
        """Feeds built before an author became a celebrity do not fold the author in: they are built again.

        The other way round nothing is missing: those feeds fold the author in, and get the pushes too.
        """
        if pulled == await self._repository.is_pulled(author_id):
            return
        if pulled:
            await self._publish(LARGE, Split("invalidate", post_id.bytes, author_id.bytes, b""))
        await self._repository.set_pulled(author_id, pulled=pulled)

    async def _split(self, lane: Lane, job: Split) -> None:
        if await self._repository.split_position(job.key) > job.after:
            return  # delivered twice: the message that follows this one is on its way
        tick = await self._repository.tick()
        page = await self._followers(job.author_id, job.after)
        more = self._is_full(page)
        # In this order: that a later position is known must mean that this page's chunk is on the lane.
        if page.follower_ids:
            chunk = Chunk(job.action, job.post_id, job.author_id, tick, page.follower_ids, job.index, last=not more)
            await self._publish(lane, chunk)
        elif job.index >= 0 and await self._repository.arrived(job.post_id, None, of=job.index):
            metrics.COMPLETION.labels(lane).observe(_age(job.post_id))
        position = END
        if more:
            position = page.follower_ids[-ID_BYTES:]
            await self._publish(lane, Split(job.action, job.post_id, job.author_id, position, _next(job.index)))
        await self._repository.set_split_position(job.key, position)

    async def _deliver(self, lane: Lane, job: Chunk) -> None:
        count = len(job.recipients) // ID_BYTES
        pace = self._pace.take if lane == LARGE else None
        post = member(job.post_id, job.author_id)
        match job.action:
            case "invalidate":
                if pace:
                    await pace(count)
                await self._repository.invalidate(job.recipients)
            case "remove":
                await self._repository.remove(job.recipients, [post], pace)
            case "restore":
                await self._repository.push(job.recipients, post, job.tick, pace)
            case "push":
                post_id = UUID(bytes=job.post_id)
                if await self._repository.deleted(post_id):
                    return
                warm = await self._repository.push(job.recipients, post, job.tick, pace)
                if lane == SMALL and count <= self._settings.announced_followers:
                    await self._repository.announce(job.recipients, live.new_post(post_id, UUID(bytes=job.author_id)))
                metrics.DELIVERIES.labels(lane, "warm").inc(warm)
                metrics.DELIVERIES.labels(lane, "cold").inc(count - warm)
                metrics.DELIVERY_AGE.labels(lane).observe(_age(job.post_id))
                if await self._completes(job):
                    metrics.COMPLETION.labels(lane).observe(_age(job.post_id))

    async def _completes(self, job: Chunk) -> bool:
        """Whether the post has now reached all its followers: chunks of many partitions arrive in any order."""
        if job.index < 0 or (job.index == 0 and job.last):
            return job.index == 0
        return await self._repository.arrived(job.post_id, job.index, of=job.index + 1 if job.last else 0)

    async def _followers(self, author_id: bytes, after: bytes) -> internal.FollowersPage:
        query = internal.FollowersQuery(author_id, after, self._settings.followers_page)
        return await self._peers.call(internal.FOLLOWERS, query)

    def _is_full(self, page: internal.FollowersPage) -> bool:
        """Whether there may be another page."""
        return len(page.follower_ids) >= self._settings.followers_page * ID_BYTES


def _next(index: int) -> int:
    """Number of the chunk after this one."""
    return index + 1 if index >= 0 else -1


def _age(post_id: bytes) -> float:
    """Seconds since the post was made."""
    return max(0.0, time.time() - id_millis(UUID(bytes=post_id)) / 1000)
