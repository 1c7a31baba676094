"""PostgreSQL through SQLModel's async session: one engine a process, one transaction a unit of work."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from sqlalchemy import URL, Row, make_url, text
from sqlalchemy.exc import ArgumentError, IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlmodel.ext.asyncio.session import AsyncSession

from fanfold.kit.settings import SettingsError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from fanfold.kit.settings import Settings

__all__ = ["Database", "IntegrityError", "Row", "SQLAlchemyError", "engine_url"]
# What repositories return and raise, for services that must name it without knowing SQL.

STATEMENT_TIMEOUT_MS = 5_000
"""No hot query comes near; one that does must not hold a connection for ever."""


def engine_url(url: str) -> URL:
    """A PostgreSQL URL for SQLAlchemy with asyncpg, however it is written: Secrets of operators say ``postgresql://``.

    Raises:
        SettingsError: No URL of a PostgreSQL.
    """
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise SettingsError("the secret 'database_url' is no URL: postgresql://user:password@host:5432/name") from error
    if parsed.get_backend_name() not in {"postgresql", "postgres"}:
        raise SettingsError(f"the secret 'database_url' names {parsed.drivername}: it must begin with postgresql://")
    return parsed.set(drivername="postgresql+asyncpg")


class Database:
    """The process's connections. Services open transactions, repositories run the SQL, nobody else commits."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine

    @classmethod
    def connect(cls, settings: Settings) -> Database:
        """An engine on the secret ``database_url`` (``postgresql://…``); connects on first use."""
        engine = create_async_engine(
            engine_url(settings.secrets.read("database_url")),
            pool_size=settings.database_pool,
            max_overflow=settings.database_pool,
            pool_timeout=5,
            pool_pre_ping=True,
            connect_args={
                "timeout": 5,
                "server_settings": {
                    "application_name": f"fanfold-{settings.service}",
                    "statement_timeout": str(STATEMENT_TIMEOUT_MS),
                    "idle_in_transaction_session_timeout": "30000",
                },
            },
        )
        return cls(engine)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncSession]:
        """A session that commits at the end of the block and rolls back on any exception."""
        async with AsyncSession(self.engine, expire_on_commit=False) as session, session.begin():
            yield session

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncSession]:
        """A session for reads only; never commits."""
        async with AsyncSession(self.engine, expire_on_commit=False) as session:
            yield session

    async def ping(self) -> None:
        """One round trip.

        Raises:
            Exception: The database cannot be reached.
        """
        async with self.engine.connect() as connection:
            await connection.execute(text("SELECT 1"))

    async def close(self) -> None:
        """Close all connections."""
        await self.engine.dispose()
