"""The hot queries' plans: over an index alone, without sorting, of one user's part of the table only."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import create_async_engine

from fanfold.contracts.ids import new_id
from fanfold.follow import repository
from fanfold.kit.db import Database

pytestmark = pytest.mark.integration


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(create_async_engine(database_url))
    async with database.transaction() as session:
        for _ in range(50):
            await repository.add(session, new_id(), new_id())
    yield database
    await database.close()


async def plan(database: Database, query: Any, *arguments: Any) -> str:
    """EXPLAIN of the last statement that ``query(session, *arguments)`` runs."""
    statements: list[tuple[str, Any]] = []

    def note(_: Any, __: Any, statement: str, parameters: Any, *___: Any) -> None:
        statements.append((statement, parameters))

    engine = database.engine.sync_engine
    event.listen(engine, "before_cursor_execute", note)
    try:
        async with database.reading() as session:
            # The planner reads a table of one page whole; what is asked here is which index a large one would take.
            await (await session.connection()).execute(text("SET LOCAL enable_seqscan = off"))
            await (await session.connection()).execute(text("SET LOCAL enable_bitmapscan = off"))
            await query(session, *arguments)
            statement, parameters = statements[-1]
            connection = await session.connection()
            answer = await connection.exec_driver_sql("EXPLAIN " + statement, parameters)
            return "\n".join(row[0] for row in answer)
    finally:
        event.remove(engine, "before_cursor_execute", note)


async def test_a_page_of_followers_is_read_from_its_index_in_order(database: Database) -> None:
    explained = await plan(database, repository.followers_page, new_id(), new_id(), 5_000)
    assert "Index Only Scan using follower_pkey" in explained
    assert "Sort" not in explained


async def test_followers_are_counted_over_the_index_alone(database: Database) -> None:
    explained = await plan(database, repository.count_followers, new_id())
    assert "Index Only Scan using follower_" in explained


async def test_the_newest_followers_come_from_their_index_without_sorting(database: Database) -> None:
    explained = await plan(database, repository.newest_followers, new_id(), new_id(), 20)
    assert "Index Scan using follower_newest_idx" in explained
    assert "Sort" not in explained


async def test_followees_are_found_by_the_primary_key(database: Database) -> None:
    explained = await plan(database, repository.followees, new_id())
    assert "using follow_pkey" in explained
    assert "Seq Scan on follow" not in explained
