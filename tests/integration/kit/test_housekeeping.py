from __future__ import annotations

import math
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import REGISTRY
from redis.exceptions import RedisError

from fanfold.contracts import keys
from fanfold.kit import metrics, streams
from fanfold.kit.housekeeping import BacklogGauge, Housekeeper
from fanfold.kit.streams import backlog, drop_dead, publish
from fanfold.kit.valkey import redis_client

if TYPE_CHECKING:
    from fanfold.dev.stores import BackingStores

pytestmark = pytest.mark.integration

TOPIC = "fanout-kept"
STREAM = keys.stream(TOPIC, 3)
MINUTE_AGO_MS = 60_000


@pytest.fixture
async def redis(stores: BackingStores) -> AsyncIterator[Any]:
    client = redis_client(stores.valkey_url)
    yield client
    await client.flushdb()
    await client.aclose()


async def read(redis: Any, group: str, count: int = 10) -> list[bytes]:
    answer = await redis.xreadgroup(group, "one", {STREAM: ">"}, count=count)
    return [message_id for message_id, _ in answer[0][1]] if answer else []


async def test_only_what_all_groups_have_acknowledged_is_deleted(redis: Any) -> None:
    for group in ("fast", "slow"):
        await redis.xgroup_create(STREAM, group, id="0", mkstream=True)
    for number in range(4):
        await publish(redis, TOPIC, 3, b"%d" % number)
    await redis.xack(STREAM, "fast", *await read(redis, "fast"))
    slow = await read(redis, "slow", count=3)
    await redis.xack(STREAM, "slow", slow[0], slow[2])  # the second is still under way

    keeper = Housekeeper(redis, {TOPIC: ("fast", "slow")})
    assert await keeper.sweep() == 1
    assert [fields[b"event"] for _, fields in await redis.xrange(STREAM)] == [b"1", b"2", b"3"]


async def test_nothing_is_deleted_before_a_group_that_needs_it_exists(redis: Any) -> None:
    await redis.xgroup_create(STREAM, "early", id="0", mkstream=True)
    await publish(redis, TOPIC, 3, b"for both")
    await redis.xack(STREAM, "early", *await read(redis, "early"))
    keeper = Housekeeper(redis, {TOPIC: ("early", "late")})

    assert await keeper.sweep() == 0
    await redis.xgroup_create(STREAM, "late", id="0")
    await redis.xack(STREAM, "late", *await read(redis, "late"))
    assert await keeper.sweep() == 1


async def test_dead_letters_are_told_until_they_are_dropped(redis: Any) -> None:
    await redis.xgroup_create(STREAM, "group", id="0", mkstream=True)
    await redis.xadd(keys.dead_letters(TOPIC), {b"reason": b"poison"})
    keeper = Housekeeper(redis, {TOPIC: ("group",)})
    await keeper.sweep()
    assert dead_letters() == 1.0
    await drop_dead(redis, TOPIC)
    await keeper.sweep()
    assert dead_letters() == 0.0


def dead_letters() -> float | None:
    return REGISTRY.get_sample_value("fanfold_dead_letters", {"topic": TOPIC})


async def test_a_backlog_counts_messages_under_way_and_those_not_yet_read(redis: Any) -> None:
    assert (await backlog(redis, TOPIC, "group")).oldest_seconds() == 0.0
    await redis.xgroup_create(STREAM, "group", id="0", mkstream=True)
    seconds, _ = await redis.time()
    await redis.xadd(STREAM, {b"event": b"old"}, id=f"{seconds * 1000 - MINUTE_AGO_MS}-0")
    await publish(redis, TOPIC, 3, b"new")
    waiting = await backlog(redis, TOPIC, "group")
    assert waiting.messages == 2
    assert 59 < waiting.oldest_seconds() < 70, "not yet read"

    old, new = await read(redis, "group")
    waiting = await backlog(redis, TOPIC, "group")
    assert waiting.messages == 2
    assert 59 < waiting.oldest_seconds() < 70, "read, not acknowledged"
    await redis.xack(STREAM, "group", old)
    waiting = await backlog(redis, TOPIC, "group")
    assert waiting.messages == 1
    assert waiting.oldest_seconds() < 10
    await redis.xack(STREAM, "group", new)
    waiting = await backlog(redis, TOPIC, "group")
    assert (waiting.messages, waiting.oldest_seconds()) == (0, 0.0)


async def test_messages_acknowledged_between_two_questions_are_no_backlog(redis: Any) -> None:
    await redis.xgroup_create(STREAM, "group", id="0", mkstream=True)
    await publish(redis, TOPIC, 3, b"one")
    (message_id,) = await read(redis, "group")
    (known,) = await redis.xinfo_groups(STREAM)
    await redis.xack(STREAM, "group", message_id)
    assert known["pending"] == 1
    assert await streams._oldest_ms(redis, STREAM, known) == math.inf


async def test_a_backlog_stays_counted_when_acknowledged_messages_are_trimmed_or_some_deleted(redis: Any) -> None:
    await redis.xgroup_create(STREAM, "group", id="0", mkstream=True)
    for number in range(6):
        await publish(redis, TOPIC, 3, b"%d" % number)
    await redis.xack(STREAM, "group", *await read(redis, "group", count=2))
    assert await Housekeeper(redis, {TOPIC: ("group",)}).sweep() == 2
    assert (await backlog(redis, TOPIC, "group")).messages == 4
    unread = [message_id for message_id, _ in await redis.xrange(STREAM)]
    await redis.xdel(STREAM, unread[1])  # the server cannot tell the lag any more
    assert (await backlog(redis, TOPIC, "group")).messages == 3


def shown(gauge: Any) -> dict[tuple[str, ...], float]:
    """Samples of this test's group: other tests of the same process measure others."""
    samples = [one for family in gauge.collect() for one in family.samples if one.labels["group"] == "group"]
    return {tuple(one.labels.values()): one.value for one in samples}


async def test_what_workers_are_scaled_by_disappears_when_it_cannot_be_measured(redis: Any) -> None:
    await redis.xgroup_create(STREAM, "group", id="0", mkstream=True)
    await publish(redis, TOPIC, 3, b"one")
    await BacklogGauge(redis, "group", (TOPIC, "fanout-other")).measure()
    assert shown(metrics.BACKLOG_MESSAGES) == {("group",): 1.0}
    assert shown(metrics.STREAM_WAITING) == {(TOPIC, "group"): 1.0, ("fanout-other", "group"): 0.0}
    assert 0 <= shown(metrics.BACKLOG_OLDEST)["group",] < 10

    gone = redis_client("redis://127.0.0.1:1/0")
    with pytest.raises((RedisError, OSError)):
        await BacklogGauge(gone, "group", (TOPIC,)).measure()
    await gone.aclose()
    assert shown(metrics.BACKLOG_MESSAGES) == shown(metrics.BACKLOG_OLDEST) == shown(metrics.STREAM_WAITING) == {}
