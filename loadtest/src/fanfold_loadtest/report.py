"""Results for people (rich) and for programs (JSON)."""

from __future__ import annotations

import json
import math
import os
from typing import TYPE_CHECKING, Any

from rich.progress_bar import ProgressBar
from rich.table import Column, Table
from rich.text import Text

from fanfold_loadtest.arrivals import Measurement

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rich.console import Console

    from fanfold_loadtest.comparison import Difference
    from fanfold_loadtest.journey import Outcome
    from fanfold_loadtest.plan import Progress
    from fanfold_loadtest.results import Document


def measured(measurement: Measurement, rate: float) -> dict[str, Any]:
    """Figures of a measurement: milliseconds from the intended start; null where nothing was answered."""
    return {
        "rate_per_second": rate,
        "requests": measurement.requests,
        "failures": len(measurement.failures),
        "late_starts": measurement.late,
        "p50_ms": _milliseconds(measurement.percentile(50)),
        "p99_ms": _milliseconds(measurement.percentile(99)),
        "max_ms": _milliseconds(measurement.percentile(100)),
    }


def _milliseconds(seconds: float) -> float | None:
    return None if math.isnan(seconds) else round(seconds * 1000, 2)


def outcome_document(outcome: Outcome, rate: float) -> dict[str, Any]:
    """All of a demo's outcome. It holds a password: keep the file to yourself."""
    return {
        "url": outcome.url,
        "run": outcome.run,
        "try": {"username": outcome.username, "password": outcome.password},
        "steps": [
            {"name": step.name, "detail": step.detail, "seconds": round(step.seconds, 3)} for step in outcome.steps
        ],
        "feed_reads": measured(outcome.feed_reads, rate),
    }


def print_outcome(console: Console, outcome: Outcome) -> None:
    """What a newcomer wants to know."""
    table = Table.grid(padding=(0, 2))
    table.add_row("Open", f"{outcome.url}/docs")
    table.add_row("Username", outcome.username)
    table.add_row("Password", outcome.password)
    reads = outcome.feed_reads
    figures = f"p50 {reads.percentile(50) * 1000:.1f} ms, p99 {reads.percentile(99) * 1000:.1f} ms"
    table.add_row("Feed read", f"{figures} ({reads.requests} reads, {reads.late} started late)")
    console.print()
    console.print(table, highlight=False)


def print_figures(console: Console, content: Document) -> None:
    """Objectives, figures and the verdict of a run."""
    table = Table("phase", "request", "answered", "failed", "p50 ms", "p99 ms", "max ms", box=None, padding=(0, 2))
    for row in content.figures:
        times = (row.p50_ms, row.p99_ms, row.max_ms)
        shown = ("-" if value is None else f"{value:.1f}" for value in times)
        table.add_row(row.phase, row.request, str(row.requests - row.failed), str(row.failed), *shown)
    console.print()
    console.print(table, highlight=False)
    objectives = Table("", "objective", "measured", box=None, padding=(0, 2))
    for one in content.objectives:
        sign = "[yellow]?[/]" if one.held is None else "[green]✓[/]" if one.held else "[red]✗[/]"
        objectives.add_row(sign, one.text, one.measured or "-")
    if content.objectives:
        console.print()
        console.print(objectives, highlight=False)
    share = content.share
    console.print(f"\n  {share.late} of {share.arrivals} arrivals started late, {share.dropped} never", highlight=False)
    for reason in content.reasons:
        console.print(f"  {reason}", highlight=False, soft_wrap=True)
    colour = {"passed": "green", "failed": "red"}.get(content.verdict, "yellow")
    console.print(f"\n  [{colour} bold]{content.verdict}[/]", highlight=False)


def print_differences(console: Console, differences: Sequence[Difference]) -> None:
    """What differs between two runs, and what only seems to."""
    table = Table("phase", "request", "percentile", "first ms", "second ms", "95 % of difference", "", box=None)
    for one in differences:
        interval = f"{one.low:+.1f} … {one.high:+.1f}"
        values = f"p{one.percentile:g}", f"{one.first:.1f}", f"{one.second:.1f}", interval
        table.add_row(one.phase, one.request, *values, "differs" if one.real else "")
    console.print(table, highlight=False)


def live(progress: Sequence[Progress], at: float, whole: float) -> Table:
    """Three lines of at most 80 columns while the load runs: how far, how the platform fares, how the generator."""
    done, failed = sum(one.done for one in progress), sum(one.failed for one in progress)
    phase = (progress[0].phase if progress else "") or "starting"
    # Percentiles of several processes cannot be added up: the worst of them is shown.
    p50, p99 = (max(values, default=0.0) for values in _columns(progress))
    times = f"p50 {p50:.1f} ms, p99 {p99:.1f} ms" if done else "nothing answered yet"
    late, dropped = sum(one.late for one in progress), sum(one.dropped for one in progress)
    busiest = max((one.cpu_cores for one in progress), default=0.0)
    over = min(at, whole)
    bar = Table.grid(padding=(0, 1))
    bar.add_row(ProgressBar(whole, over, width=30), f"{over:.0f} of {whole:.0f} s")
    table = Table.grid(Column(width=12, no_wrap=True), Column(no_wrap=True, overflow="ellipsis"), padding=(0, 1))
    table.add_row(f"  {phase}", bar)
    red = "red" if failed else "none"
    table.add_row("  platform", Text.assemble(f"{done:,} answers, ", (f"{failed:,} failed", red), f"; {times}"))
    under_way = sum(one.under_way for one in progress)
    share = f"{100 * busiest:.0f} % of a core"
    table.add_row("  generator", f"{share}; {under_way:,} under way, {late:,} late, {dropped:,} dropped")
    return table


def _columns(progress: Sequence[Progress]) -> tuple[list[float], list[float]]:
    return [one.p50_ms for one in progress], [one.p99_ms for one in progress]


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Write a result that only its owner can read."""
    data = json.dumps(document, indent=2) + "\n"
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(data)
