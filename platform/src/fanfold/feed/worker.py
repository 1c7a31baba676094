"""Composition root of the fan-out worker: events to lanes, lanes to feeds."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from fanfold.contracts import events
from fanfold.feed.fanout import Fanout
from fanfold.feed.jobs import LANES, LARGE, Job, Lane, decode, encode, partition
from fanfold.feed.repository import FeedRepository
from fanfold.feed.settings import FanoutSettings
from fanfold.kit import streams
from fanfold.kit.housekeeping import BacklogGauge, Housekeeper

if TYPE_CHECKING:
    from fanfold.kit.runtime import Runtime

SETTINGS = FanoutSettings
GROUP: Final = "feed-worker"
TOPICS: Final = tuple(topic for topic, groups in events.GROUPS.items() if GROUP in groups)
LARGE_LANE_COUNT: Final = 4
"""Chunks of 80 kB read at once from a partition: paced, so that more would only wait with this consumer."""


async def build(runtime: Runtime[FanoutSettings]) -> None:
    """Wire consumers of the events and of the lanes, and the trimming of all streams."""
    settings = runtime.settings
    repository = FeedRepository(runtime.valkey, length=settings.feed_length, ttl_seconds=settings.feed_ttl_seconds)

    async def publish(lane: Lane, job: Job) -> None:
        await streams.publish(runtime.redis, lane, partition(job), encode(job))

    fanout = Fanout(repository, runtime.peers, publish, settings)

    async def handle_job(lane: Lane, payload: bytes) -> None:
        await fanout.run(lane, decode(payload))

    def consume(topic: str, handle: Any, count: int = streams.COUNT) -> None:
        consumer = streams.Consumer(
            runtime.redis, topic=topic, group=GROUP, name=settings.instance, handle=handle, count=count
        )
        runtime.background(f"consume-{topic}", consumer.run)

    for topic in TOPICS:
        consume(topic, streams.of_events(fanout.handle))
    for lane in LANES:
        consume(lane, partial(handle_job, lane), LARGE_LANE_COUNT if lane == LARGE else streams.COUNT)
    groups = dict(events.GROUPS)
    groups.update((lane, (GROUP,)) for lane in LANES)
    runtime.background("housekeeping", Housekeeper(runtime.redis, groups).run)
    runtime.background("backlog", BacklogGauge(runtime.redis, GROUP, (*TOPICS, *LANES)).run)
