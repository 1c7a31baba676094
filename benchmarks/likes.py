"""A post with a million likes: what counting it costs, and what it costs those who look at other posts.

    uv run python benchmarks/likes.py

The activity service's own counts (`SELECT COUNT` on an index, kept for seconds, counted once however many ask) beside
a COUNT for each read, on one PostgreSQL with one pool of connections.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import uvloop
from common.house import House, stopping
from common.processes import Workshop
from common.results import save, say, summary

from fanfold.activity import repository
from fanfold.activity.counts import Counts
from fanfold.contracts.ids import new_id
from fanfold.dev.postgres import Postgres
from fanfold.kit.db import Database
from fanfold.kit.migrations import upgrade
from fanfold.kit.settings import Settings
from fanfold.kit.valkey import Valkey

OTHERS: Final = 2_000
"""Other posts, each with few likes."""
LIKES_EACH: Final = 20
READERS: Final = 8
"""At once, of the one post and of others each."""

Ask = Callable[[bytes], Awaitable[object]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--likes", type=int, default=1_000_000, help="of the one post (default 1,000,000)")
    parser.add_argument("--rounds", type=int, default=3, help="interleaved rounds (default 3)")
    parser.add_argument("--seconds", type=float, default=6, help="of each way in one round (default 6)")
    options = parser.parse_args()
    with Workshop() as shop:
        house = House(shop)
        house.start_valkey()
        postgres = Postgres(shop.folder / "postgres", "bench", durable=False)
        postgres.start()
        shop.keep(stopping(postgres))
        postgres.wait()
        (house.secrets / "database_url").write_text(postgres.url)
        upgrade("activity", postgres.url)
        figures = uvloop.run(measure(house.secrets, house.valkey_url, options))
    notes = [
        f"{options.likes:,} likes of one post, {LIKES_EACH} of each of {OTHERS:,} others.",
        f"{READERS} readers of the one and {READERS} of the others ask as fast as they are answered.",
        "Others are counted for each read in both ways: what they wait for is the database, and its connections.",
    ]
    say(str(save("likes", figures, notes=notes)))


async def measure(secrets: Path, valkey_url: str, options: argparse.Namespace) -> dict[str, Any]:
    """One COUNT alone, then both ways in turn."""
    database = Database.connect(Settings(service="bench", secrets_dir=secrets))
    valkey = Valkey(valkey_url)
    hot, others = new_id(), [new_id() for _ in range(OTHERS)]
    await fill(database, hot, options.likes, others)
    counts = Counts(database, valkey, seconds=3_600)

    async def plainly(post_id: bytes) -> object:
        async with database.reading() as session:
            return await repository.post_counts(session, [UUID(bytes=post_id)])

    async def kept(post_id: bytes) -> object:
        return await counts.of([post_id])

    alone = []
    for _ in range(5):
        began = time.perf_counter()
        await plainly(hot.bytes)
        alone.append(1_000 * (time.perf_counter() - began))
    ways: dict[str, Ask] = {"kept": kept, "each": plainly}
    found: dict[str, dict[str, list[float]]] = {name: {} for name in ways}
    for number in range(options.rounds):
        for name, ask in ways.items():
            one = await together(ask, plainly, hot, others, options.seconds)
            say(f"round {number}, {name}: {one}")
            for what, value in one.items():
                found[name].setdefault(what, []).append(value)
    await valkey.close()
    await database.close()
    return {
        "count_ms": summary(alone),
        "ways": {name: {what: summary(values) for what, values in one.items()} for name, one in found.items()},
    }


async def together(ask: Ask, ask_other: Ask, hot: UUID, others: list[UUID], seconds: float) -> dict[str, float]:
    """Readers of the one post and readers of others; answers a second of both, and what the others wait."""
    until = time.perf_counter() + seconds
    waited: list[float] = []
    answered = 0

    async def of_one() -> None:
        nonlocal answered
        while time.perf_counter() < until:
            await ask(hot.bytes)
            answered += 1

    async def of_others(first: int) -> None:
        position = first
        while time.perf_counter() < until:
            began = time.perf_counter()
            await ask_other(others[position % len(others)].bytes)
            waited.append(1_000 * (time.perf_counter() - began))
            position += READERS

    await asyncio.gather(*(of_one() for _ in range(READERS)), *(of_others(first) for first in range(READERS)))
    waited.sort()
    return {
        "of_one": answered / seconds,
        "of_others": len(waited) / seconds,
        "others_p50_ms": waited[len(waited) // 2],
        "others_p99_ms": waited[len(waited) * 99 // 100],
    }


async def fill(database: Database, hot: UUID, likes: int, others: list[UUID]) -> None:
    """Likes, straight into the table."""
    insert = (
        "INSERT INTO activity.activity (id, kind, parent_type, parent_id, user_id, created_at) "
        "SELECT gen_random_uuid(), 'like', 'post', $1, gen_random_uuid(), now() FROM generate_series(1, $2::int)"
    )
    async with database.engine.begin() as connection:
        driver: Any = (await connection.get_raw_connection()).driver_connection
        await driver.execute("SET statement_timeout = 0")
        for post_id, count in [(hot, likes), *((other, LIKES_EACH) for other in others)]:
            await driver.execute(insert, post_id, count)
        await driver.execute("SET statement_timeout = 5000")
    async with database.engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        await connection.exec_driver_sql("SET statement_timeout = 0")
        await connection.exec_driver_sql("VACUUM ANALYZE activity.activity")
        await connection.exec_driver_sql("SET statement_timeout = 5000")


if __name__ == "__main__":
    main()
