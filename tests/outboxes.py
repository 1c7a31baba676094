"""A schema with nothing but an outbox in it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import Table, text
from sqlalchemy.ext.asyncio import create_async_engine

from fanfold.kit.db import Database


@asynccontextmanager
async def with_outbox(database_url: str, table: Table) -> AsyncIterator[Database]:
    """Its database; the schema is gone afterwards."""
    engine = create_async_engine(database_url)
    async with engine.begin() as connection:
        await connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {table.schema}"))
        await connection.run_sync(table.create)
    yield Database(engine)
    async with engine.begin() as connection:
        await connection.execute(text(f"DROP SCHEMA {table.schema} CASCADE"))
    await engine.dispose()
