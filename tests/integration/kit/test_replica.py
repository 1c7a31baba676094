"""Reads that may lag, with a real streaming replica: served there while it keeps up, else by the primary."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from fanfold.contracts.ids import new_id
from fanfold.dev.postgres import Postgres
from fanfold.dev.store import Store
from fanfold.kit import metrics
from fanfold.kit.db import Database
from fanfold.kit.replica import INTERVAL_SECONDS, Replica
from tests.waiting import eventually

if TYPE_CHECKING:
    from sqlmodel.ext.asyncio.session import AsyncSession

pytestmark = pytest.mark.integration

PASSWORD = "streaming1"
LIMIT = 0.5


class Standby(Postgres):
    """A hot standby that streams from another cluster."""

    name = "standby"

    def __init__(self, folder: Path, primary: Postgres) -> None:
        super().__init__(folder, PASSWORD, durable=False)
        self._primary = primary

    def wait(self) -> None:
        Store.wait(self)

    def _make_cluster(self) -> None:
        source = self._primary.url.replace("+asyncpg", "").rpartition("/")[0] + "/postgres"
        command = [self._program("pg_basebackup"), f"--pgdata={self._data}", f"--dbname={source}"]
        command += ["--checkpoint=fast", "--write-recovery-conf", "--no-sync", "--wal-method=stream"]
        subprocess.run(command, check=True, timeout=180, user=self.user, cwd=self.folder, capture_output=True)
        self._data.chmod(0o700)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Postgres, Standby]]:
    folder = tmp_path_factory.mktemp("replica")
    primary = Postgres(folder / "primary", PASSWORD, durable=False)
    started: list[Store] = []
    try:
        standby = Standby(folder / "standby", primary)
        for server in (primary, standby):
            server.start()
            started.append(server)
            server.wait()
        yield primary, standby
    finally:
        for one in reversed(started):
            one.stop()
            shutil.rmtree(one.folder.resolve(), ignore_errors=True)


class Clock:
    def __init__(self) -> None:
        self.seconds = 1_000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def database(servers: tuple[Postgres, Standby], clock: Clock) -> AsyncIterator[Database]:
    primary = create_async_engine(servers[0].url)
    made = Database(primary, Replica(create_async_engine(servers[1].url, pool_pre_ping=True), primary, LIMIT, clock))
    async with made.transaction() as session:
        connection = await session.connection()
        await connection.execute(text("CREATE TABLE IF NOT EXISTS note (told text)"))
    yield made
    await made.close()


async def where(session: AsyncSession) -> str:
    standby = (await (await session.connection()).execute(text("SELECT pg_is_in_recovery()"))).scalar_one()
    return "replica" if standby else "primary"


async def write(database: Database, told: str) -> None:
    async with database.transaction() as session:
        assert await where(session) == "primary"
        await (await session.connection()).execute(text("INSERT INTO note VALUES (:told)"), {"told": told})


async def on_standby(database: Database, sql: str) -> Any:
    assert database.replica is not None
    async with database.replica.engine.connect() as connection:
        return (await connection.execute(text(sql))).scalar()


async def keeps_up(database: Database) -> bool:
    assert database.replica is not None
    await database.replica.measure()
    return database.replica.usable


async def test_what_may_lag_is_read_from_the_replica_and_nothing_else(database: Database) -> None:
    assert await database.browse(where) == "primary", "not before it has told how far it is"
    await eventually(lambda: keeps_up(database))
    assert await database.browse(where) == "replica"
    async with database.reading() as session:
        assert await where(session) == "primary"


async def test_who_has_just_written_reads_the_primary_until_the_replica_must_have_it(
    database: Database, clock: Clock
) -> None:
    writer, other = new_id(), new_id()
    await eventually(lambda: keeps_up(database))
    database.wrote(writer)
    assert [await database.browse(where, by=one) for one in (writer, other, None)] == ["primary", "replica", "replica"]
    clock.seconds += LIMIT + 2 * INTERVAL_SECONDS + 0.01
    await eventually(lambda: keeps_up(database))
    assert await database.browse(where, by=writer) == "replica"


async def test_a_replica_that_lags_is_not_read_until_it_has_caught_up(database: Database, clock: Clock) -> None:
    await eventually(lambda: keeps_up(database))
    await on_standby(database, "SELECT pg_wal_replay_pause()")
    await eventually(lambda: paused(database))
    await write(database, "one")
    assert await keeps_up(database), "it lacks something, but not for long"
    clock.seconds += LIMIT + 0.1
    assert not await keeps_up(database)
    assert metrics.REPLICA_LAG._value.get() > LIMIT
    assert await database.browse(where) == "primary"
    await on_standby(database, "SELECT pg_wal_replay_resume()")
    await eventually(lambda: keeps_up(database))
    assert await database.browse(where) == "replica"


async def paused(database: Database) -> bool:
    return bool(await on_standby(database, "SELECT pg_get_wal_replay_pause_state()") == "paused")


async def test_an_idle_primary_does_not_make_a_replica_old(database: Database, clock: Clock) -> None:
    await eventually(lambda: keeps_up(database))
    for _ in range(5):
        clock.seconds += 100
        await eventually(lambda: keeps_up(database))
    assert await database.browse(where) == "replica"


async def test_a_replica_that_is_away_fails_nothing_and_comes_back(
    database: Database, servers: tuple[Postgres, Standby]
) -> None:
    await eventually(lambda: keeps_up(database))
    failed = metrics.REPLICA_READS.labels("failed")
    before = failed._value.get()
    servers[1].stop()
    try:
        assert await asyncio.gather(*(database.browse(where) for _ in range(20))) == ["primary"] * 20
        assert failed._value.get() > before
        assert not await keeps_up(database)
        asked = failed._value.get()
        assert await database.browse(where) == "primary"
        assert failed._value.get() == asked, "it is not tried by every read"
    finally:
        servers[1].start()
        servers[1].wait()
    await eventually(lambda: keeps_up(database))
    assert await database.browse(where) == "replica"


async def test_what_follows_nobody_is_never_read(servers: tuple[Postgres, Standby]) -> None:
    engine = create_async_engine(servers[0].url)
    database = Database(engine, Replica(create_async_engine(servers[0].url), engine, LIMIT))
    assert not await keeps_up(database)
    assert await database.browse(where) == "primary"
    await database.close()
