"""Puts a graph into a platform's PostgreSQL by COPY: a million API calls would take hours.

The one place of the load test that knows tables of the platform (profile.user, profile.credential, follow.follow).
Chunks are transactions. Each leaves a row in the table ``loadtest.seeded`` in the same transaction, so an interrupted
seeding goes on where it ended, and a finished one is done in no time: nothing is seeded twice. Ids come from the
graph's tag, so even without that table a repetition changes nothing.

Marks of celebrities need no care: fan-out sets a missing one before it delivers the next post.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import asyncpg
import numpy as np
from argon2 import PasswordHasher

from fanfold_loadtest.crowd import USERNAME

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from fanfold_loadtest.crowd import Crowd
    from fanfold_loadtest.population import Population

CHUNK: Final = 100_000
"""Rows of a transaction: some seconds of work to be lost by an interruption."""
EPOCH_MS: Final = 1_767_225_600_000
"""2026-01-01 UTC. Person n joined n milliseconds later, follow n came to be as much after the last of them."""
POSTGRES_EPOCH_MS: Final = 946_684_800_000
CONNECT_SECONDS: Final = 10.0
STATEMENT_SECONDS: Final = 300.0
HASHER: Final = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)
"""As the platform hashes passwords (OWASP's argon2id)."""
_SIGNATURE: Final = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
_END: Final = b"\xff\xff"
_LOCK: Final = 0x0FF5

_PREPARE: Final = """
CREATE SCHEMA IF NOT EXISTS loadtest;
CREATE TABLE IF NOT EXISTS loadtest.seeded (
  graph text, part text, chunk integer, PRIMARY KEY (graph, part, chunk));
CREATE TEMPORARY TABLE new_person (id uuid, username text, created_at timestamptz) ON COMMIT DELETE ROWS;
CREATE TEMPORARY TABLE new_follow (follower_id uuid, followee_id uuid, id uuid, created_at timestamptz)
  ON COMMIT DELETE ROWS;
"""
_PEOPLE: Final = """
INSERT INTO profile."user" (id, username, display_name, bio, picture_path, created_at)
SELECT id, username, username, '', '', created_at FROM new_person ON CONFLICT DO NOTHING
"""
_FOLLOWS: Final = """
INSERT INTO follow.follow (follower_id, followee_id, id, created_at)
SELECT follower_id, followee_id, id, created_at FROM new_follow ON CONFLICT DO NOTHING
"""
_CREDENTIALS: Final = """
INSERT INTO profile.credential (user_id, password_hash) SELECT unnest($1::uuid[]), $2
ON CONFLICT (user_id) DO UPDATE SET password_hash = excluded.password_hash
"""


class SeedError(Exception):
    """The graph could not be loaded; the message says why, in one line."""


async def seed(url: str, population: Population, crowd: Crowd, tell: Callable[[str, int, int], None]) -> int:
    """Load what is not there yet; how many rows that was.

    Args:
        url: Of PostgreSQL, with the right to write into the platform's tables.
        population: The graph.
        crowd: Who of it gets the password.
        tell: Called after each chunk: ``people`` or ``follows``, rows done, rows in all.

    Raises:
        SeedError: No connection, other tables than expected, or another seeding of this graph is under way.
    """
    try:
        connection = await asyncpg.connect(
            url.replace("+asyncpg", "", 1), timeout=CONNECT_SECONDS, command_timeout=STATEMENT_SECONDS
        )
    except (OSError, TimeoutError, ValueError, asyncpg.PostgresError) as error:
        raise SeedError(f"no connection to PostgreSQL: {error or type(error).__name__}") from error
    try:
        return await _Seeding(connection, population, tell).perform(crowd)
    except (asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError, asyncpg.NotNullViolationError) as error:
        raise SeedError(f"the tables are not those of this version: {error}; is `fanfold migrate` done?") from error
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise SeedError(f"{error or type(error).__name__}; run the command again: it goes on from here") from error
    finally:
        connection.terminate()


class _Seeding:
    def __init__(self, connection: Any, population: Population, tell: Callable[[str, int, int], None]) -> None:
        self._connection = connection
        self._population = population
        self._tell = tell
        self._ids = person_ids(population)
        self._new = 0

    async def perform(self, crowd: Crowd) -> int:
        tag = self._population.tag
        if not await self._connection.fetchval("SELECT pg_try_advisory_lock($1, hashtext($2))", _LOCK, tag):
            raise SeedError(f"graph {tag} is being seeded by another process")
        await self._connection.execute(_PREPARE)
        await self._load("people", self._population.people, self._people, "new_person", _PEOPLE)
        await self._load("follows", self._population.followees.size, self._follows, "new_follow", _FOLLOWS)
        members = [UUID(bytes=self._ids[number].tobytes()) for number in crowd.members]
        password = await asyncio.to_thread(HASHER.hash, crowd.password)
        await self._connection.execute(_CREDENTIALS, members, password)
        if self._new:
            await self._connection.execute('ANALYZE profile."user"; ANALYZE follow.follow, follow.follower')
        return self._new

    async def _load(self, part: str, rows: int, make: Callable[[int, int], bytes], into: str, move: str) -> None:
        query = "SELECT chunk FROM loadtest.seeded WHERE graph = $1 AND part = $2"
        done = {row["chunk"] for row in await self._connection.fetch(query, self._population.tag, part)}
        for chunk, start in enumerate(range(0, rows, CHUNK)):
            end = min(rows, start + CHUNK)
            if chunk not in done:
                async with self._connection.transaction():
                    await self._connection.copy_to_table(into, source=_source(make(start, end)), format="binary")
                    self._new += int((await self._connection.execute(move)).rpartition(" ")[2])
                    await self._connection.execute(
                        "INSERT INTO loadtest.seeded VALUES ($1, $2, $3)", self._population.tag, part, chunk
                    )
            self._tell(part, end, rows)

    def _people(self, start: int, end: int) -> bytes:
        names = [USERNAME.format(tag=self._population.tag, number=number) for number in range(start, end)]
        fields = {
            "id": self._ids[start:end],
            "username": np.array(names, dtype="S"),
            "created_at": _moments(np.arange(start, end)),
        }
        return _rows(fields)

    def _follows(self, start: int, end: int) -> bytes:
        numbers = np.arange(start, end) + self._population.people
        fields = {
            "follower_id": self._ids[self._population.followers[start:end]],
            "followee_id": self._ids[self._population.followees[start:end]],
            "id": _ids(numbers, int(self._population.tag, 16) + start),
            "created_at": _moments(numbers),
        }
        return _rows(fields)


def person_ids(population: Population) -> NDArray[np.void]:
    """Id of each person, 16 bytes."""
    return _ids(np.arange(population.people), int(population.tag, 16))


def _ids(numbers: NDArray[np.int64], seed: int) -> NDArray[np.void]:
    """UUIDs of version 7 (RFC 9562), each a millisecond after the one before."""
    made = np.frombuffer(np.random.default_rng(seed).bytes(16 * numbers.size), dtype=np.uint8).reshape(-1, 16).copy()
    made[:, :6] = (EPOCH_MS + numbers).astype(">u8").view(np.uint8).reshape(-1, 8)[:, 2:]
    made[:, 6] = made[:, 6] & 0x0F | 0x70
    made[:, 8] = made[:, 8] & 0x3F | 0x80
    return made.view("V16").reshape(-1)


def _moments(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """PostgreSQL's timestamps: microseconds since 2000."""
    return (EPOCH_MS - POSTGRES_EPOCH_MS + numbers) * 1000


def _rows(fields: dict[str, NDArray[Any]]) -> bytes:
    """Rows in PostgreSQL's binary COPY format, made column by column."""
    layout: list[tuple[str, Any]] = [("fields", ">i2")]
    for name, values in fields.items():
        layout += [(f"{name} length", ">i4"), (name, ">i8" if values.dtype == np.int64 else values.dtype)]
    rows = np.empty(len(next(iter(fields.values()))), dtype=layout)
    rows["fields"] = len(fields)
    for name, values in fields.items():
        rows[name] = values
        rows[f"{name} length"] = values.dtype.itemsize
    return _SIGNATURE + rows.tobytes() + _END


async def _source(content: bytes) -> Any:
    """In pieces that leave the event loop room."""
    for start in range(0, len(content), 1 << 20):
        yield content[start : start + (1 << 20)]
