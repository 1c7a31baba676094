"""The command ``fanfold-loadtest seed``: a graph into a platform's database, its statistics onto the terminal."""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from fanfold_loadtest.crowd import Crowd, choose, read_crowd, write_crowd
from fanfold_loadtest.documents import DocumentError
from fanfold_loadtest.graph import MEAN_FOLLOWEES
from fanfold_loadtest.population import MAX_PEOPLE, Degrees, Population, degrees, planted, read_edges
from fanfold_loadtest.seeding import SeedError, seed
from fanfold_loadtest.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

DATABASE_VARIABLE: Final = "FANFOLD_LOADTEST_DATABASE_URL"
CELEBRITIES: Final = [10_000]
BODY: Final = 2_000
console = Console()


def seed_graph(  # noqa: PLR0913 - options of a command
    *,
    database: Annotated[
        Path | None,
        typer.Option(help=f"File with the URL of the platform's PostgreSQL; without it, ${DATABASE_VARIABLE}."),
    ] = None,
    celebrity: Annotated[
        list[int], typer.Option(min=1, max=MAX_PEOPLE, help="A celebrity with so many followers; repeatable.")
    ] = CELEBRITIES,
    body: Annotated[
        int, typer.Option(min=0, max=MAX_PEOPLE, help="People who follow each other by Zipf's law.")
    ] = BODY,
    mean: Annotated[
        int, typer.Option(min=1, max=500, help="Whom each of the body follows on average.")
    ] = MEAN_FOLLOWEES,
    edges: Annotated[
        Path | None, typer.Option(help="Take the graph from this file instead: lines 'follower followee', also *.gz.")
    ] = None,
    seed_number: Annotated[int, typer.Option("--seed", help="Of the graph.")] = 1,
    readers: Annotated[int, typer.Option(min=5, max=20_000, help="Followers that runs can log in as.")] = 1_000,
    out: Annotated[Path, typer.Option(help="Where `run --crowd` finds these people; readable by you only.")] = Path(
        "crowd.json"
    ),
) -> None:
    """Load a social graph in bulk, celebrities with a million followers too. Safe to repeat and to interrupt.

    Exit code: 0 all is there, 1 not all of it (run it again: it goes on), 3 a bad file or no database.
    """
    try:
        url = _database_url(database)
        population = read_edges(edges) if edges else planted(body, celebrity, seed_number, mean)
        found = degrees(population, 0 if edges else len(celebrity))
        crowd = choose(population, found, readers, _password(out, population.tag))
    except (DocumentError, ValueError) as error:
        raise _failed(str(error), Verdict.BROKEN) from error
    print_degrees(population, found)
    write_crowd(out, crowd)
    started = time.monotonic()
    try:
        new = _load(url, population, crowd)
    except SeedError as error:
        raise _failed(str(error), Verdict.FAILED) from error
    except KeyboardInterrupt as error:
        raise _failed("interrupted; run the command again: it goes on from here", Verdict.FAILED) from error
    seconds = time.monotonic() - started
    rate = f", {new / seconds:,.0f} a second" if new else ": all was there"
    console.print(f"  {new:,} new rows in {seconds:.1f} s{rate}", highlight=False)
    console.print(f"  run with --crowd {out}", highlight=False, soft_wrap=True)


def _load(url: str, population: Population, crowd: Crowd) -> int:
    columns = TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True) as bars:
        tasks = {
            part: bars.add_task(part, total=rows)
            for part, rows in (("people", population.people), ("follows", population.followees.size))
        }

        def tell(part: str, done: int, _: int) -> None:
            bars.update(tasks[part], completed=done)

        return asyncio.run(seed(url, population, crowd, tell))


def print_degrees(population: Population, found: Degrees) -> None:
    """What the graph is like."""
    rows: Sequence[tuple[str, str]] = (
        ("graph", f"{population.tag} ({population.source})"),
        ("people", f"{found.people:,}, {found.followed:,} with followers"),
        ("follows", f"{found.follows:,}" + (f", {population.skipped:,} left out" if population.skipped else "")),
        ("followers", f"mean {found.mean:g}, median {found.p50:,}, p90 {found.p90:,}, p99 {found.p99:,}"),
        ("most followed", ", ".join(f"{count:,}" for count in found.top[:5])),
        ("slope over rank", "too few to tell" if found.exponent is None else f"{found.exponent:g} (Zipf: -1)"),
    )
    table = Table.grid(padding=(0, 2))
    for name, text in rows:
        table.add_row(f"  {name}", text)
    console.print(table, highlight=False)


def _database_url(file: Path | None) -> str:
    """From a file or the environment, never from the command line, which everybody on the machine can read."""
    if file is None:
        url = os.environ.get(DATABASE_VARIABLE, "")
        if not url:
            raise DocumentError(f"no database: give --database FILE with its URL, or set {DATABASE_VARIABLE}")
        return url
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise DocumentError(f"{file}: cannot be read: {error}") from error


def _password(out: Path, tag: str) -> str:
    """The one of an earlier seeding of this graph, or a new one.

    Raises:
        DocumentError: The file belongs to something else.
    """
    if not out.exists():
        return secrets.token_urlsafe(16)
    kept = read_crowd(out)
    if kept.tag != tag:
        raise DocumentError(f"{out}: holds the crowd of graph {kept.tag}; give another --out, or remove it")
    return kept.password


def _failed(message: str, code: Verdict) -> typer.Exit:
    Console(stderr=True).print(f"fanfold-loadtest: {message}", style="red", highlight=False, soft_wrap=True)
    return typer.Exit(code)
