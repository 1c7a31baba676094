"""Keeps streams short: what every consumer group has acknowledged is deleted, and the age of the rest is told."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from redis.exceptions import RedisError

from fanfold.kit import metrics
from fanfold.kit.logging import get_logger
from fanfold.kit.streams import oldest_seconds, trim_acknowledged

if TYPE_CHECKING:
    from collections.abc import Mapping

    from redis.asyncio import Redis

log = get_logger(__name__)

INTERVAL_SECONDS: Final = 5.0


class Housekeeper:
    """Trims streams every few seconds. Several replicas may do it at once: each deletes what nobody needs.

    Args:
        redis: redis-py client.
        groups: The consumer groups of each topic to look after.
    """

    def __init__(self, redis: Redis, groups: Mapping[str, tuple[str, ...]]) -> None:
        self._redis = redis
        self._groups = groups

    async def run(self) -> None:
        """Until cancelled. Losing Valkey is waited out."""
        while True:
            try:
                await self.sweep()
            except (RedisError, OSError) as error:
                log.warning("housekeeping_interrupted", error=str(error))
            await asyncio.sleep(INTERVAL_SECONDS)

    async def sweep(self) -> int:
        """Once over all topics; how many messages were deleted."""
        removed = 0
        for topic, groups in self._groups.items():
            removed += await trim_acknowledged(self._redis, topic, required=groups)
            for group in groups:
                age = await oldest_seconds(self._redis, topic, group)
                metrics.STREAM_OLDEST.labels(topic, group).set(age)
        return removed
