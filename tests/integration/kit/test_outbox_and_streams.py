from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import asyncpg
import pytest
from redis.asyncio import Redis
from sqlalchemy import text

from fanfold.contracts import events, keys
from fanfold.contracts.events import PostCreated
from fanfold.contracts.ids import new_id
from fanfold.kit import outbox, streams
from fanfold.kit.db import Database
from fanfold.kit.outbox import Outbox, Relay, outbox_table
from fanfold.kit.streams import Consumer, PoisonError
from fanfold.kit.valkey import redis_client
from tests.outboxes import with_outbox
from tests.waiting import eventually

if TYPE_CHECKING:
    from fanfold.dev.stores import BackingStores

pytestmark = pytest.mark.integration

TABLE = outbox_table("outbox_test")


@pytest.fixture
async def redis(stores: BackingStores) -> AsyncIterator[Redis]:
    client = redis_client(stores.valkey_url)
    yield client
    await client.flushdb()
    await client.aclose()


@pytest.fixture
async def database(stores: BackingStores) -> AsyncIterator[Database]:
    async with with_outbox(stores.database_url, TABLE) as database:
        yield database


@pytest.fixture
async def relay(stores: BackingStores, redis: Redis) -> AsyncIterator[Relay]:
    relay = Relay(schema="outbox_test", database_url=stores.database_url, redis=redis)
    task = asyncio.create_task(relay.run())
    yield relay
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def a_post() -> PostCreated:
    return PostCreated(post_id=new_id(), author_id=uuid4())


async def test_a_committed_event_reaches_its_partition_and_leaves_the_outbox(
    database: Database, relay: Relay, redis: Redis
) -> None:
    event = a_post()
    async with database.transaction() as session:
        await Outbox(TABLE).add(session, event)
    stream = keys.stream("posts", event.partition)

    async def arrived() -> bool:
        return bool(await redis.xlen(stream) == 1)

    await eventually(arrived)
    entries: Any = await redis.xrange(stream)
    assert events.decode(entries[0][1][b"event"]) == event

    async def emptied() -> bool:
        async with database.reading() as session:
            connection = await session.connection()
            return not (await connection.execute(TABLE.select())).all()

    await eventually(emptied)


@pytest.mark.parametrize("told", [True, False])
async def test_an_event_goes_when_it_is_told_and_soon_when_the_telling_was_lost(
    stores: BackingStores, database: Database, redis: Redis, monkeypatch: pytest.MonkeyPatch, told: bool
) -> None:
    """NOTIFY wakes the relay, however seldom it looks; it looks every so often, whoever tells it."""
    monkeypatch.setattr(outbox, "POLL_SECONDS", 3_600 if told else 0.3)
    relay = Relay(schema="outbox_test", database_url=stores.database_url, redis=redis)
    looks = asyncio.Semaphore(0)
    relay_once = relay.relay_once

    async def noted(*arguments: Any) -> int:
        looks.release()
        return await relay_once(*arguments)

    monkeypatch.setattr(relay, "relay_once", noted)
    task = asyncio.create_task(relay.run())
    async with asyncio.timeout(60):
        await looks.acquire()  # there was nothing; from here on it waits
    event = a_post()
    async with database.transaction() as session:
        if told:
            await Outbox(TABLE).add(session, event)
        else:
            row = {"topic": "posts", "partition": event.partition, "event": events.encode(event)}
            await (await session.connection()).execute(TABLE.insert(), [row])

    async def arrived() -> bool:
        return bool(await redis.xlen(keys.stream("posts", event.partition)))

    await eventually(arrived)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_an_event_of_a_rolled_back_transaction_is_never_published(
    database: Database, relay: Relay, redis: Redis
) -> None:
    lost, kept = a_post(), a_post()
    with pytest.raises(RuntimeError):
        async with database.transaction() as session:
            await Outbox(TABLE).add(session, lost)
            raise RuntimeError
    async with database.transaction() as session:
        await Outbox(TABLE).add(session, kept)

    async def arrived() -> bool:
        return bool(await redis.xlen(keys.stream("posts", kept.partition)))

    await eventually(arrived)
    total = sum([await redis.xlen(keys.stream("posts", number)) for number in range(events.PARTITIONS)])
    assert total == 1


async def test_a_relay_that_dies_before_the_delete_publishes_again(
    stores: BackingStores, database: Database, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    event = a_post()
    async with database.transaction() as session:
        await Outbox(TABLE).add(session, event)
    relay = Relay(schema="outbox_test", database_url=stores.database_url, redis=redis)
    connection = await asyncpg.connect(stores.database_url.replace("+asyncpg", ""))
    execute = asyncpg.Connection.execute
    monkeypatch.setattr(asyncpg.Connection, "execute", _refuse)
    with pytest.raises(ConnectionError):
        await relay.relay_once(connection)
    monkeypatch.setattr(asyncpg.Connection, "execute", execute)
    assert await relay.relay_once(connection) == 1
    assert await relay.relay_once(connection) == 0
    await connection.close()
    assert await redis.xlen(keys.stream("posts", event.partition)) == 2


async def _refuse(*_: Any) -> None:
    raise ConnectionError


async def test_the_relay_slows_while_consumers_cannot_follow_and_commits_go_on(
    stores: BackingStores, database: Database, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "BACKLOG_MESSAGES", 20)
    monkeypatch.setattr(outbox, "SLOW_BATCH", 3)
    monkeypatch.setattr(outbox, "SLOW_SECONDS", 0.01)
    seconds = 0.0
    relay = Relay(schema="outbox_test", database_url=stores.database_url, redis=redis, now=lambda: seconds)
    connection = await asyncpg.connect(stores.database_url.replace("+asyncpg", ""))

    async def commit(count: int) -> None:
        async with database.transaction() as session:
            await Outbox(TABLE).add(session, *(a_post() for _ in range(count)))

    async def left() -> int:
        count: int = await connection.fetchval("SELECT count(*) FROM outbox_test.outbox")
        return count

    try:
        await commit(4)
        assert await relay.relay_once(connection, await relay.allowance()) == 4
        stream = keys.stream("posts", 0)
        await redis.delete(stream)
        long_ago = 1_700_000_000_000
        for number in range(20):
            await redis.xadd(stream, {b"event": b""}, id=f"{long_ago + number}-0")
        await redis.xgroup_create(stream, "feed-worker", id="0")
        assert await relay.allowance() == outbox.BATCH  # measured a moment ago
        seconds += outbox.MEASURE_SECONDS
        assert await relay.allowance() == 3
        await commit(7)
        assert await relay.relay_once(connection, await relay.allowance()) == 3
        assert await left() == 4
        task = asyncio.create_task(relay.run())
        await commit(5)  # nothing is refused, and all of it goes, slowly
        await eventually(lambda: _is(left, 0))
        task.cancel()
        await redis.xgroup_setid(stream, "feed-worker", id="$")
        seconds += outbox.MEASURE_SECONDS
        assert await relay.allowance() == outbox.BATCH
    finally:
        await connection.close()


async def _is(count: Callable[[], Awaitable[int]], expected: int) -> bool:
    return await count() == expected


async def test_only_one_relay_of_a_schema_works_at_a_time_and_another_takes_over(
    stores: BackingStores, database: Database, redis: Redis
) -> None:
    tasks = [
        asyncio.create_task(Relay(schema="outbox_test", database_url=stores.database_url, redis=redis).run())
        for _ in range(2)
    ]

    async def leaders() -> int:
        async with database.reading() as session:
            connection = await session.connection()
            rows = await connection.execute(
                text(
                    "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = 4090 AND granted "
                    "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
                )
            )
            return int(rows.scalar_one())

    async def one_leads() -> bool:
        return await leaders() == 1

    await eventually(one_leads)
    tasks[0].cancel()
    await asyncio.sleep(0)
    event = a_post()
    async with database.transaction() as session:
        await Outbox(TABLE).add(session, event)

    async def arrived() -> bool:
        return bool(await redis.xlen(keys.stream("posts", event.partition)))

    await eventually(arrived)
    assert await leaders() == 1
    tasks[1].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class Handler:
    """Records what it was given; fails as it is told."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.seen: list[bytes] = []

    async def __call__(self, payload: bytes) -> None:
        if self.failures:
            raise self.failures.pop(0)
        self.seen.append(payload)


def consumer(redis: Redis, handler: Callable[[bytes], Awaitable[None]], name: str = "one") -> Consumer:
    return Consumer(redis, topic="posts", group="test", name=name, handle=handler, partitions=1)


@pytest.fixture
async def running() -> AsyncIterator[Callable[[Consumer], None]]:
    tasks: list[asyncio.Task[None]] = []
    yield lambda consumer: tasks.append(asyncio.create_task(consumer.run()))
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def nothing_pending(redis: Redis) -> bool:
    with suppress(Exception):
        pending: Any = await redis.xpending(keys.stream("posts", 0), "test")
        return bool(pending["pending"] == 0)
    return False


async def test_messages_from_before_the_group_are_handled_in_order_and_acknowledged(
    redis: Redis, running: Callable[[Consumer], None]
) -> None:
    for number in range(100):
        await streams.publish(redis, "posts", 0, b"%d" % number)
    handler = Handler()
    running(consumer(redis, handler))

    async def done() -> bool:
        return len(handler.seen) == 100 and await nothing_pending(redis)

    await eventually(done)
    assert handler.seen == [b"%d" % number for number in range(100)]


async def test_a_failing_handler_is_tried_again(redis: Redis, running: Callable[[Consumer], None]) -> None:
    handler = Handler(OSError("away"), OSError("still away"))
    await streams.publish(redis, "posts", 0, b"x")
    running(consumer(redis, handler))

    async def done() -> bool:
        return handler.seen == [b"x"] and await nothing_pending(redis)

    await eventually(done)


async def test_poison_goes_to_the_dead_letters_with_its_reason_and_can_be_replayed(
    redis: Redis, running: Callable[[Consumer], None]
) -> None:
    handler = Handler(PoisonError("no such field"))
    await streams.publish(redis, "posts", 0, b"x")
    running(consumer(redis, handler))

    async def buried() -> bool:
        return bool(await streams.list_dead(redis, "posts", 10))

    await eventually(buried)
    (letter,) = await streams.list_dead(redis, "posts", 10)
    assert (letter.reason, letter.group) == ("no such field", "test")
    assert await nothing_pending(redis)
    assert await streams.replay_dead(redis, "posts", 10) == 1

    async def handled() -> bool:
        return handler.seen == [b"x"]

    await eventually(handled)
    assert await streams.list_dead(redis, "posts", 10) == []


async def test_a_message_of_a_crashed_consumer_is_claimed_and_one_that_fails_for_ever_is_buried(
    redis: Redis, running: Callable[[Consumer], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "CLAIM_IDLE_MS", 50)
    monkeypatch.setattr(streams, "RETRY_SECONDS", ())
    stream = keys.stream("posts", 0)
    await redis.xgroup_create(stream, "test", id="0", mkstream=True)
    await streams.publish(redis, "posts", 0, b"stuck")
    await redis.xreadgroup("test", "crashed", {stream: ">"})
    handler = Handler(*[OSError("never mends")] * 100)
    await asyncio.sleep(0.1)
    monkeypatch.setattr(streams, "BLOCK_MS", 20)
    running(consumer(redis, handler, "two"))

    async def buried() -> bool:
        return bool(await streams.list_dead(redis, "posts", 10))

    await eventually(buried)
    assert len(handler.failures) == 100 - (streams.MAX_ATTEMPTS - 1)


async def test_a_slow_handler_keeps_its_message_and_those_behind_it(
    redis: Redis, running: Callable[[Consumer], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "CLAIM_IDLE_MS", 2_000)
    monkeypatch.setattr(streams, "BLOCK_MS", 20)
    done: list[tuple[str, bytes]] = []

    def slowly(name: str) -> Callable[[bytes], Awaitable[None]]:
        async def handle(payload: bytes) -> None:
            if payload == b"0":
                await asyncio.sleep(3.0)
            done.append((name, payload))

        return handle

    for number in range(2):
        await streams.publish(redis, "posts", 0, b"%d" % number)
    running(consumer(redis, slowly("one"), "one"))

    async def taken() -> bool:
        with suppress(Exception):
            pending: Any = await redis.xpending(keys.stream("posts", 0), "test")
            return bool(pending["pending"] == 2)
        return False

    await eventually(taken)
    running(consumer(redis, slowly("two"), "two"))
    await eventually(partial(nothing_pending, redis))
    assert done == [("one", b"0"), ("one", b"1")]


async def test_a_group_that_the_server_lost_is_made_again(redis: Redis, running: Callable[[Consumer], None]) -> None:
    handler = Handler()
    running(consumer(redis, handler))

    async def made() -> bool:
        return bool(await redis.exists(keys.stream("posts", 0)))

    await eventually(made)
    await redis.flushdb()
    await streams.publish(redis, "posts", 0, b"after")

    async def handled() -> bool:
        return handler.seen == [b"after"]

    await eventually(handled)


async def test_only_what_every_group_has_acknowledged_is_trimmed(redis: Redis) -> None:
    stream = keys.stream("posts", 0)
    for number in range(10):
        await streams.publish(redis, "posts", 0, b"%d" % number)
    assert await streams.trim_acknowledged(redis, "posts", 1) == 0
    for group in ("fast", "slow"):
        await redis.xgroup_create(stream, group, id="0")
    fast: Any = await redis.xreadgroup("fast", "c", {stream: ">"})
    await redis.xack(stream, "fast", *[message_id for message_id, _ in fast[0][1]])
    slow: Any = await redis.xreadgroup("slow", "c", {stream: ">"}, count=6)
    await redis.xack(stream, "slow", *[message_id for message_id, _ in slow[0][1]][:4])
    assert await streams.trim_acknowledged(redis, "posts", 1) == 4
    assert await redis.xlen(stream) == 6
