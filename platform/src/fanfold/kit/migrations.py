"""Alembic for rooms: each has ``migrations/versions`` and a schema of its own, with its version table inside."""

from __future__ import annotations

import asyncio
from importlib import resources
from typing import TYPE_CHECKING

from alembic import command, context
from alembic.config import Config
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool
from sqlmodel import SQLModel

from fanfold.kit.db import engine_url

if TYPE_CHECKING:
    from sqlalchemy import Connection

_LOCK = 0x66616E666F6C64  # "fanfold": one migration at a time, whoever starts it


def config(room: str, url: str = "") -> Config:
    """Alembic's configuration of one room."""
    cfg = Config()
    cfg.set_main_option("script_location", str(resources.files("fanfold") / room / "migrations"))
    cfg.set_main_option("version_path_separator", "os")
    cfg.attributes.update(room=room, url=url)
    return cfg


def upgrade(room: str, url: str) -> None:
    """Bring one room's schema to its newest revision. Safe to run twice, and at once from two places."""
    command.upgrade(config(room, url), "head")


def _run(connection: Connection, room: str) -> None:
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
    connection.execute(text(f'CREATE SCHEMA IF NOT EXISTS "{room}"'))
    context.configure(
        connection=connection,
        target_metadata=SQLModel.metadata,
        version_table_schema=room,
        include_schemas=True,
        include_name=lambda name, kind, _: kind != "schema" or name == room,
        compare_type=True,
    )
    context.run_migrations()


async def _run_async(room: str, url: str) -> None:
    engine = create_async_engine(engine_url(url), poolclass=NullPool, connect_args={"timeout": 10})
    try:
        async with engine.begin() as connection:
            await connection.run_sync(_run, room)
    finally:
        await engine.dispose()


def run_environment() -> None:
    """What a room's ``migrations/env.py`` calls."""
    attributes = context.config.attributes
    asyncio.run(_run_async(attributes["room"], attributes["url"]))
