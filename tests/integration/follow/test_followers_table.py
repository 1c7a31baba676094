"""The table of followers equals that of follows, whoever writes, also while it is filled under a running version."""

from __future__ import annotations

import asyncio
import importlib
import secrets
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from alembic import command
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from fanfold.contracts.ids import new_id
from fanfold.dev.stores import BackingStores
from fanfold.follow import repository
from fanfold.kit import migrations
from fanfold.kit.db import Database

pytestmark = pytest.mark.integration

REVISION = importlib.import_module("fanfold.follow.migrations.versions.0003_followers")
DIFFERENCE = """
SELECT count(*) FROM (SELECT follower_id, followee_id, id, created_at FROM follow.follow) AS one
FULL JOIN (SELECT follower_id, followee_id, id, created_at FROM follow.follower) AS other
ON one = other WHERE one IS NULL OR other IS NULL
"""
OLD_INSERT = "INSERT INTO follow.follow (follower_id, followee_id, id, created_at) VALUES ($1, $2, $3, now())"
OLD_DELETE = "DELETE FROM follow.follow WHERE follower_id = $1 AND followee_id = $2"
"""What the version before the table does; it knows of one table only."""
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"


@pytest.fixture
async def before(stores: BackingStores) -> AsyncIterator[str]:
    """URL of a database as the version before left it."""
    name = f"before_{secrets.token_hex(4)}"
    server = await asyncpg.connect(stores.database_url.replace("+asyncpg", ""), timeout=60)
    await server.execute(f"CREATE DATABASE {name}")
    url = f"{stores.database_url.rpartition('/')[0]}/{name}"
    await asyncio.to_thread(command.upgrade, migrations.config("follow", url), "0002")
    yield url
    await server.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await server.close(timeout=60)


async def old(url: str) -> Any:
    return await asyncpg.connect(url.replace("+asyncpg", ""), timeout=60)


async def filled(engine: AsyncEngine) -> None:
    async with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        await connection.run_sync(REVISION.fill)


async def test_a_follow_of_the_version_before_is_there_after_the_upgrade_and_while_both_run(
    before: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(REVISION, "PAGE", 7)
    connection = await old(before)
    people = [new_id() for _ in range(12)]
    pairs = [(one, other) for one in people for other in people if one != other]
    await connection.executemany(OLD_INSERT, [(*pair, new_id()) for pair in pairs])
    await asyncio.to_thread(migrations.upgrade, "follow", before)
    assert await connection.fetchval("SELECT count(*) FROM follow.follower") == len(pairs)
    assert await connection.fetchval(DIFFERENCE) == 0
    await connection.execute(OLD_INSERT, people[0], new_id(), new_id())
    await connection.executemany(OLD_DELETE, pairs[:20])
    assert await connection.fetchval("SELECT count(*) FROM follow.follower") == len(pairs) - 19
    assert await connection.fetchval(DIFFERENCE) == 0
    await connection.execute("DELETE FROM follow.follower")
    await asyncio.to_thread(migrations.upgrade, "follow", before)
    assert await connection.fetchval("SELECT count(*) FROM follow.follower") == 0, "filled once, not at every upgrade"
    await connection.close(timeout=60)


async def test_an_unfollow_that_meets_the_filling_does_not_stay(before: str, monkeypatch: pytest.MonkeyPatch) -> None:
    connection, leaver = await old(before), await old(before)
    await asyncio.to_thread(command.upgrade, migrations.config("follow", before), "0003")
    people = [new_id() for _ in range(4)]
    await connection.execute("ALTER TABLE follow.follow DISABLE TRIGGER USER")
    await connection.executemany(OLD_INSERT, [(people[0], other, new_id()) for other in people[1:]])
    await connection.execute("ALTER TABLE follow.follow ENABLE TRIGGER USER")
    engine = create_async_engine(before)
    leaving = leaver.transaction()
    await leaving.start()
    await leaver.execute(OLD_DELETE, people[0], people[2])
    filling = asyncio.create_task(filled(engine))
    async with asyncio.timeout(60):
        while not await connection.fetchval(WAITING):
            assert not filling.done(), "it waits for who is leaving"
            await asyncio.sleep(0.02)
    await leaving.commit()
    await filling
    assert await connection.fetchval("SELECT count(*) FROM follow.follower") == 2
    assert await connection.fetchval(DIFFERENCE) == 0
    await engine.dispose()
    for one in (connection, leaver):
        await one.close(timeout=60)


async def test_what_the_repository_does_is_in_both_tables(database_url: str) -> None:
    database = Database(create_async_engine(database_url))
    people = [new_id() for _ in range(6)]

    async def difference() -> tuple[int, list[UUID]]:
        async with database.reading() as session:
            connection = await session.connection()
            found = await repository.newest_followers(session, people[0], None, 10)
            return (await connection.execute(text(DIFFERENCE))).scalar_one(), [other for _, other in found]

    async with database.transaction() as session:
        for one in people[1:]:
            assert await repository.add(session, one, people[0])
            assert not await repository.add(session, one, people[0])
            assert await repository.add(session, people[0], one)
    assert await difference() == (0, people[:0:-1])
    async with database.transaction() as session:
        assert await repository.remove(session, people[2], people[0])
    assert await difference() == (0, [people[5], people[4], people[3], people[1]])
    with pytest.raises(ZeroDivisionError):
        async with database.transaction() as session:
            await repository.add(session, people[2], people[0])
            raise ZeroDivisionError
    assert await difference() == (0, [people[5], people[4], people[3], people[1]])
    async with database.transaction() as session:
        assert await repository.delete_some(session, people[0], 100) == 9
    assert await difference() == (0, [])
    await database.close()
