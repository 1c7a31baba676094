"""A relay whose machine is gone: no goodbye reaches PostgreSQL, which holds its lock until it notices."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import asyncpg
import pytest

from fanfold.contracts import keys
from fanfold.contracts.events import PostCreated
from fanfold.contracts.ids import new_id
from fanfold.kit.db import Database
from fanfold.kit.outbox import Outbox, Relay, outbox_table
from fanfold.kit.valkey import redis_client
from tests.outboxes import with_outbox
from tests.waiting import eventually

if TYPE_CHECKING:
    from fanfold.dev.stores import BackingStores

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0 or shutil.which("iptables") is None, reason="needs root and iptables"),
]

SCHEMA = "vanished_test"
TABLE = outbox_table(SCHEMA)
NOTICED_SECONDS = 60
"""20 s, and what a busy machine adds. Without a limit the kernel repeats an answer for a quarter of an hour."""


@contextmanager
def vanished(port: int) -> Iterator[None]:
    """Nothing from or to the client at this local port arrives."""
    with ExitStack() as stack:
        for end in ("--sport", "--dport"):
            rule = ["INPUT", "-i", "lo", "-p", "tcp", end, str(port), "-j", "DROP"]
            subprocess.run(["iptables", "-w", "-I", *rule], check=True, timeout=30)
            stack.callback(subprocess.run, ["iptables", "-w", "-D", *rule], check=True, timeout=30)
        yield


@pytest.fixture
async def database(stores: BackingStores) -> AsyncIterator[Database]:
    async with with_outbox(stores.database_url, TABLE) as database:
        yield database


async def test_a_relay_that_vanished_is_succeeded_within_half_a_minute(
    stores: BackingStores, database: Database
) -> None:
    """Though PostgreSQL has something to tell it: the notification of each post."""
    async with AsyncExitStack() as stack:
        redis = redis_client(stores.valkey_url)
        stack.push_async_callback(redis.aclose)
        observer = await asyncpg.connect(stores.database_url.replace("+asyncpg", ""))
        stack.push_async_callback(observer.close)

        async def begin() -> None:
            relay = Relay(schema=SCHEMA, database_url=stores.database_url, redis=redis)
            stack.push_async_callback(ended, asyncio.create_task(relay.run()))

        async def holder() -> int | None:
            query = (
                "SELECT client_port FROM pg_locks JOIN pg_stat_activity USING (pid) "
                "WHERE locktype = 'advisory' AND granted AND objid = hashtext($1)::bit(32)::bigint"
            )
            found: int | None = await observer.fetchval(query, SCHEMA)
            return found

        async def post() -> Any:
            event = PostCreated(post_id=new_id(), author_id=uuid4())
            async with database.transaction() as session:
                await Outbox(TABLE).add(session, event)
            return keys.stream(event.topic, event.partition)

        await begin()
        first = await eventually(holder, "the first relay leads")
        with vanished(first):
            began = time.monotonic()
            await begin()
            stream = await post()

            async def arrived() -> bool:
                return bool(await redis.xlen(stream))

            await eventually(arrived, "the post leaves the outbox", seconds=NOTICED_SECONDS)
            assert await holder() != first
            print(f"succeeded after {time.monotonic() - began:.1f} s")  # noqa: T201 - for who measures


async def ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
