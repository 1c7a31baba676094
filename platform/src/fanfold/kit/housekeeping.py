"""What is done for streams beside consuming: those acknowledged are deleted, the backlog of the rest is told."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from redis.exceptions import RedisError

from fanfold.kit import metrics
from fanfold.kit.logging import get_logger
from fanfold.kit.streams import Backlog, backlog, count_dead, trim_acknowledged

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping

    from redis.asyncio import Redis

log = get_logger(__name__)

INTERVAL_SECONDS: Final = 5.0
MEASURE_SECONDS: Final = 10.0
"""A measurement that takes longer has failed."""


async def _forever(work: Callable[[], Awaitable[object]], what: str) -> None:
    """Until cancelled. Losing Valkey is waited out."""
    while True:
        try:
            await work()
        except (RedisError, OSError, TimeoutError) as error:
            log.warning("housekeeping_interrupted", what=what, error=str(error))
        await asyncio.sleep(INTERVAL_SECONDS)


class Housekeeper:
    """Trims streams every few seconds. Several replicas may do it at once: each deletes what nobody needs.

    It also tells the age of every group's oldest message, for groups live in services that do not measure it, and how
    many dead letters there are.

    Args:
        redis: redis-py client.
        groups: The consumer groups of each topic to look after.
    """

    def __init__(self, redis: Redis, groups: Mapping[str, tuple[str, ...]]) -> None:
        self._redis = redis
        self._groups = groups

    async def run(self) -> None:
        """Until cancelled. Losing Valkey is waited out."""
        await _forever(self.sweep, "streams")

    async def sweep(self) -> int:
        """Once over all topics; how many messages were deleted."""
        removed = 0
        for topic, groups in self._groups.items():
            removed += await trim_acknowledged(self._redis, topic, required=groups)
            metrics.DEAD_LETTERS.labels(topic).set(await count_dead(self._redis, topic))
            for group in groups:
                age = (await backlog(self._redis, topic, group)).oldest_seconds()
                metrics.STREAM_OLDEST.labels(topic, group).set(age)
        return removed


class BacklogGauge:
    """Tells what waits for one group, of its topics and in all: what its workers are scaled by.

    When it cannot be measured the numbers disappear: an old one would be taken for the truth.

    Args:
        redis: redis-py client.
        group: The consumer group.
        topics: What it consumes.
    """

    def __init__(self, redis: Redis, group: str, topics: Collection[str]) -> None:
        self._redis = redis
        self._group = group
        self._topics = topics

    async def run(self) -> None:
        """Until cancelled. Losing Valkey is waited out."""
        await _forever(self.measure, "backlog")

    async def measure(self) -> Backlog:
        """Once; what waits in all.

        Raises:
            RedisError, OSError, TimeoutError: It could not be measured.
        """
        total = Backlog()
        try:
            async with asyncio.timeout(MEASURE_SECONDS):
                for topic in self._topics:
                    waiting = await backlog(self._redis, topic, self._group)
                    metrics.STREAM_WAITING.labels(topic, self._group).set(waiting.messages)
                    total += waiting
        except BaseException:
            for gauge in (metrics.STREAM_WAITING, metrics.BACKLOG_MESSAGES, metrics.BACKLOG_OLDEST):
                gauge.clear()
            raise
        metrics.BACKLOG_MESSAGES.labels(self._group).set(total.messages)
        metrics.BACKLOG_OLDEST.labels(self._group).set(total.oldest_seconds())
        return total
