"""Transactional outbox: the event is committed with the change it tells of, then relayed to its stream.

One relay per schema works at a time (a PostgreSQL session lock elects it), woken by NOTIFY and by a polling floor. A
row is deleted after the stream has it: a crash between the two publishes it twice, never zero times.

When consumers cannot follow, the relay slows: what waits then waits in PostgreSQL, whose disks hold more than Valkey's
memory. Commits go on as before.
"""

from __future__ import annotations

import asyncio
import math
import time
from typing import TYPE_CHECKING, Any, Final

import asyncpg
from redis.exceptions import RedisError
from sqlalchemy import BigInteger, Column, DateTime, Identity, LargeBinary, Table, Text, func, insert, select
from sqlmodel import SQLModel

from fanfold.contracts import events, keys
from fanfold.kit import metrics
from fanfold.kit.db import VANISHING, engine_url
from fanfold.kit.logging import get_logger, request_id
from fanfold.kit.streams import backlog

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis.asyncio import Redis
    from sqlmodel.ext.asyncio.session import AsyncSession

log = get_logger(__name__)

POLL_SECONDS: Final = 1.0
"""Floor when a notification was lost."""
BATCH: Final = 500
RETRY_SECONDS: Final = 1.0
BACKLOG_SECONDS: Final = 60.0
BACKLOG_MESSAGES: Final = 10_000
"""Consumers cannot follow when so many messages of one group wait, the oldest of them so long. Age alone may be one
message that fails, number alone a moment's crowd."""
MEASURE_SECONDS: Final = 5.0
SLOW_BATCH: Final = 100
SLOW_SECONDS: Final = 1.0
"""Then so many rows go at once, and the next after this pause."""
_LOCK_CLASS: Final = 0x0FFA  # first key of the two-key advisory lock; the second is the schema's hash


def outbox_table(schema: str) -> Table:
    """The outbox of a room's schema; rooms declare it in ``models.py`` and create it in their first migration."""
    return Table(
        "outbox",
        SQLModel.metadata,
        Column("id", BigInteger, Identity(always=True), primary_key=True),
        Column("topic", Text, nullable=False),
        Column("partition", BigInteger, nullable=False),
        Column("event", LargeBinary, nullable=False),
        Column("request_id", Text, nullable=False, server_default=""),
        Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
        schema=schema,
        extend_existing=True,
    )


class Outbox:
    """Writes events of one room into its outbox, inside the caller's transaction."""

    def __init__(self, table: Table) -> None:
        self._table = table

    async def add(self, session: AsyncSession, *new: events.Event) -> None:
        """Commit these events with the transaction of ``session``; the relay is notified on commit."""
        rows = [
            {
                "topic": event.topic,
                "partition": event.partition,
                "event": events.encode(event),
                "request_id": request_id.get(),
            }
            for event in new
        ]
        connection = await session.connection()
        await connection.execute(insert(self._table), rows)
        await connection.execute(select(func.pg_notify(f"outbox_{self._table.schema}", "")))


class Relay:
    """Moves rows of one outbox to the streams, oldest first, while it holds the schema's lock.

    Args:
        schema: Whose outbox.
        database_url: Where it is.
        redis: redis-py client of the streams.
        now: Seconds on a clock that never goes back.
    """

    def __init__(
        self, *, schema: str, database_url: str, redis: Redis, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._schema = schema
        self._now = now
        self._topics: set[str] = set()
        self._measured_at = -math.inf
        self._crowded = False
        self._dsn = engine_url(database_url).set(drivername="postgresql").render_as_string(hide_password=False)
        self._redis = redis
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """Until cancelled. Losing PostgreSQL or Valkey is waited out: rows stay where they are."""
        while True:
            try:
                await self._lead()
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, RedisError) as error:
                log.warning("outbox_relay_interrupted", schema=self._schema, error=str(error))
            await asyncio.sleep(RETRY_SECONDS)

    async def _lead(self) -> None:
        connection = await asyncpg.connect(self._dsn, timeout=5, command_timeout=30, server_settings=VANISHING)
        try:
            lock = "SELECT pg_try_advisory_lock($1, hashtext($2))"
            while not await connection.fetchval(lock, _LOCK_CLASS, self._schema):  # noqa: ASYNC110 - another process's lock
                await asyncio.sleep(POLL_SECONDS)
            await connection.add_listener(f"outbox_{self._schema}", lambda *_: self._wake.set())
            log.info("outbox_relay_leads", schema=self._schema)
            while True:
                self._wake.clear()
                limit = await self.allowance()
                if await self.relay_once(connection, limit) == limit:
                    await asyncio.sleep(SLOW_SECONDS if self._crowded else 0)
                    continue
                try:
                    async with asyncio.timeout(POLL_SECONDS):
                        await self._wake.wait()
                except TimeoutError:
                    continue  # the polling floor
        finally:
            connection.terminate()

    async def allowance(self) -> int:
        """Rows that may go at once: few while consumers of this outbox's topics cannot follow."""
        if self._now() - self._measured_at >= MEASURE_SECONDS:
            crowded = await self._measure()
            if crowded != self._crowded:
                log.warning("outbox_relay_slowed" if crowded else "outbox_relay_at_full_speed", schema=self._schema)
            self._crowded, self._measured_at = crowded, self._now()
        return SLOW_BATCH if self._crowded else BATCH

    async def _measure(self) -> bool:
        for topic in sorted(self._topics):
            for group in events.GROUPS.get(topic, ()):
                waiting = await backlog(self._redis, topic, group)
                if waiting.messages >= BACKLOG_MESSAGES and waiting.oldest_seconds() >= BACKLOG_SECONDS:
                    return True
        return False

    async def relay_once(self, connection: asyncpg.Connection, limit: int = BATCH) -> int:
        """Publish and delete up to ``limit`` rows; how many there were."""
        table = f'"{self._schema}".outbox'
        rows = await connection.fetch(
            f"SELECT id, topic, partition, event, request_id, extract(epoch FROM created_at) AS at "  # noqa: S608 - own schema name
            f"FROM {table} ORDER BY id LIMIT {limit}"
        )
        metrics.OUTBOX_LAG.labels(self._schema).set(time.time() - float(rows[0]["at"]) if rows else 0.0)
        if not rows:
            return 0
        self._topics.update(row["topic"] for row in rows)
        async with self._redis.pipeline(transaction=False) as pipe:
            for row in rows:
                fields: dict[Any, Any] = {b"event": row["event"], b"request_id": row["request_id"]}
                pipe.xadd(keys.stream(row["topic"], row["partition"]), fields)
            await pipe.execute()
        await connection.execute(f"DELETE FROM {table} WHERE id = ANY($1)", [row["id"] for row in rows])  # noqa: S608 - own schema name
        for row in rows:
            metrics.EVENTS_PUBLISHED.labels(row["topic"]).inc()
        return len(rows)
