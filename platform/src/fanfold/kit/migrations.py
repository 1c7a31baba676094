"""Alembic for rooms: each has ``migrations/versions`` and a schema of its own, with its version table inside."""

from __future__ import annotations

import asyncio
from importlib import resources
from typing import TYPE_CHECKING

from alembic import command, context
from alembic.config import Config
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool
from sqlmodel import SQLModel

from fanfold.kit import compatibility
from fanfold.kit.db import engine_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from sqlalchemy import Connection

_LOCK = 0x66616E666F6C64  # "fanfold": one migration at a time, whoever starts it


def config(room: str, url: str = "") -> Config:
    """Alembic's configuration of one room."""
    cfg = Config()
    cfg.set_main_option("script_location", str(resources.files("fanfold") / room / "migrations"))
    cfg.set_main_option("version_path_separator", "os")
    cfg.attributes.update(room=room, url=url)
    return cfg


def check(rooms: Iterable[str], url: str) -> None:
    """Whether this version can work with all these schemas as they are, and migrate them under what runs.

    Raises:
        IncompatibleError: It cannot; nothing was changed.
    """
    asyncio.run(_in_transaction(url, lambda connection: [_judged(connection, room) for room in rooms]))


def upgrade(room: str, url: str) -> None:
    """Bring one room's schema to its newest revision. Safe to run twice, and at once from two places.

    A schema that is newer than this version, and says that it works with it, is left as it is.

    A revision may have a ``fill(connection)`` beside its ``upgrade()``: it puts into what was added that which is there
    already, in transactions of its own, after all revisions are committed. It is called at every upgrade.

    Raises:
        IncompatibleError: This version cannot work with it; nothing was changed.
    """
    command.upgrade(config(room, url), "head")
    fills = [one.module.fill for one in compatibility.scripts(config(room)) if hasattr(one.module, "fill")]
    if fills:
        asyncio.run(_each_alone(url, fills))


def _judged(connection: Connection, room: str) -> tuple[str | None, compatibility.Lineage, compatibility.Mark]:
    known = compatibility.lineage(config(room))
    current, mark = compatibility.read(connection, room)
    return current, known, compatibility.judge(room, known, current, mark)


def _run(connection: Connection, room: str) -> None:
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
    connection.execute(text(f'CREATE SCHEMA IF NOT EXISTS "{room}"'))
    current, known, mark = _judged(connection, room)
    context.configure(
        connection=connection,
        target_metadata=SQLModel.metadata,
        version_table_schema=room,
        include_schemas=True,
        include_name=lambda name, kind, _: kind != "schema" or name == room,
        compare_type=True,
    )
    if current is None or current in known.revisions:
        context.run_migrations()
    compatibility.write(connection, room, mark)


def _engine(url: str) -> AsyncEngine:
    return create_async_engine(engine_url(url), poolclass=NullPool, connect_args={"timeout": 10})


async def _in_transaction(url: str, work: Callable[[Connection], object]) -> None:
    engine = _engine(url)
    try:
        async with engine.begin() as connection:
            await connection.run_sync(work)
    finally:
        await engine.dispose()


async def _each_alone(url: str, works: Sequence[Callable[[Connection], None]]) -> None:
    """Each statement in a transaction of its own."""
    engine = _engine(url).execution_options(isolation_level="AUTOCOMMIT")
    try:
        async with engine.connect() as connection:
            for work in works:
                await connection.run_sync(work)
    finally:
        await engine.dispose()


def run_environment() -> None:
    """What a room's ``migrations/env.py`` calls."""
    attributes = context.config.attributes
    room = attributes["room"]
    asyncio.run(_in_transaction(attributes["url"], lambda connection: _run(connection, room)))
