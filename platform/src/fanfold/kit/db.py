"""PostgreSQL through SQLModel's async session: one engine a process, one transaction a unit of work.

Reads that may lag (`Database.browse`) go to a replica where there is one; all others, to the primary.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import URL, Row, make_url, text
from sqlalchemy.exc import ArgumentError, IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlmodel.ext.asyncio.session import AsyncSession

from fanfold.kit import metrics, replica
from fanfold.kit.replica import Replica
from fanfold.kit.settings import SettingsError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from uuid import UUID

    from fanfold.kit.settings import Settings

Found = TypeVar("Found")

__all__ = ["Database", "IntegrityError", "Row", "SQLAlchemyError", "engine_url"]
# What repositories return and raise, for services that must name it without knowing SQL.

CONNECT_SECONDS = 5.0
"""For a connection: a new one, or one of the pool's."""
STATEMENT_TIMEOUT_MS = 5_000
"""No hot query comes near; one that does must not hold a connection for ever."""
REPLICA_SECONDS = 1
"""A replica that cannot be reached within this is not waited for: the primary answers."""
VANISHING: dict[str, str] = {
    "tcp_user_timeout": "20000",
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "2",
}
"""Session settings by which PostgreSQL sees within 20 s that a client's machine is gone, and frees what it had locked.

Keepalives see it of a connection at rest. With an answer or a notification under way they are not sent, and the kernel
repeats that for a quarter of an hour unless a limit is set.
"""


def engine_url(url: str, secret: str = "database_url") -> URL:  # noqa: S107 - the name of a secret
    """A PostgreSQL URL for SQLAlchemy with asyncpg, however it is written: Secrets of operators say ``postgresql://``.

    Raises:
        SettingsError: No URL of a PostgreSQL.
    """
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise SettingsError(f"the secret {secret!r} is no URL: postgresql://user:password@host:5432/name") from error
    if parsed.get_backend_name() not in {"postgresql", "postgres"}:
        raise SettingsError(f"the secret {secret!r} names {parsed.drivername}: it must begin with postgresql://")
    return parsed.set(drivername="postgresql+asyncpg")


class Database:
    """The process's connections. Services open transactions, repositories run the SQL, nobody else commits."""

    def __init__(self, engine: AsyncEngine, read_replica: Replica | None = None) -> None:
        self.engine = engine
        self.replica = read_replica

    @classmethod
    def connect(cls, settings: Settings) -> Database:
        """Engines on the secrets ``database_url`` (``postgresql://…``) and, if it is there, ``database_read_url``.

        They connect on first use.
        """
        engine = _engine(settings, "database_url", connect_seconds=CONNECT_SECONDS, statement_ms=STATEMENT_TIMEOUT_MS)
        if not settings.secrets.has("database_read_url"):
            return cls(engine)
        reading = _engine(
            settings, "database_read_url", connect_seconds=REPLICA_SECONDS, statement_ms=STATEMENT_TIMEOUT_MS // 2
        )
        return cls(engine, Replica(reading, engine, settings.database_replica_lag_seconds))

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

    async def browse(self, query: Callable[[AsyncSession], Awaitable[Found]], by: UUID | None = None) -> Found:
        """Read what may be some seconds old: from the replica if there is one that can be read, else from the primary.

        Args:
            query: Reads in a session; called again with another one when the replica fails.
            by: Who reads. Who has just written (`wrote`) reads the primary, and so what they wrote.
        """
        if self.replica is not None:
            if self.replica.lacks(by):
                served = "written"
            elif not self.replica.usable:
                served = "lagging"
            else:
                try:
                    async with AsyncSession(self.replica.engine, expire_on_commit=False) as session:
                        found = await query(session)
                except replica.FAILURES as error:
                    self.replica.failed(error)
                    served = "failed"
                else:
                    metrics.REPLICA_READS.labels("replica").inc()
                    return found
            metrics.REPLICA_READS.labels(served).inc()
        async with self.reading() as session:
            return await query(session)

    def wrote(self, user_id: UUID) -> None:
        """A user's change was committed. One process serves a user, so that it knows of all they wrote."""
        if self.replica is not None:
            self.replica.wrote(user_id)

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
        if self.replica is not None:
            await self.replica.engine.dispose()


def _engine(settings: Settings, secret: str, *, connect_seconds: float, statement_ms: int) -> AsyncEngine:
    options: dict[str, Any] = {
        "timeout": connect_seconds,
        "server_settings": {
            "application_name": f"fanfold-{settings.service}",
            "statement_timeout": str(statement_ms),
            "idle_in_transaction_session_timeout": "30000",
            **VANISHING,
        },
    }
    return create_async_engine(
        engine_url(settings.secrets.read(secret), secret),
        pool_size=settings.database_pool,
        max_overflow=settings.database_pool,
        pool_timeout=connect_seconds,
        pool_pre_ping=True,
        connect_args=options,
    )
