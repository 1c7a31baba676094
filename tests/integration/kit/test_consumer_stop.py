from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from fanfold.kit.streams import Consumer, publish
from fanfold.kit.valkey import redis_client

if TYPE_CHECKING:
    from fanfold.dev.stores import BackingStores

pytestmark = pytest.mark.integration


async def test_a_consumer_stops_though_something_in_it_swallowed_the_cancellation(stores: BackingStores) -> None:
    redis = redis_client(stores.valkey_url)
    reached = asyncio.Event()

    async def swallow(_: bytes) -> None:
        try:
            reached.set()
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return  # as asyncio.wait_for did before Python 3.12

    consumer = Consumer(redis, topic="fanout-stopped", group="group", name="one", handle=swallow, partitions=1)
    task = asyncio.create_task(consumer.run())
    await publish(redis, "fanout-stopped", 0, b"work")
    async with asyncio.timeout(60):
        await reached.wait()
        task.cancel()
        await asyncio.wait([task])
    assert task.cancelled()
    await redis.flushdb()
    await redis.aclose()
