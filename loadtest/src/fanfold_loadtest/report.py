"""Results for people (rich) and for programs (JSON)."""

from __future__ import annotations

import json
import math
import os
from typing import TYPE_CHECKING, Any

from rich.table import Table

from fanfold_loadtest.arrivals import Measurement

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from fanfold_loadtest.journey import Outcome


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


def print_result(console: Console, result: dict[str, Any]) -> None:
    """Figures of a load scenario, one row a kind of request."""
    table = Table("request", "answered", "failed", "p50 ms", "p99 ms", "max ms", box=None, padding=(0, 2))
    for name, row in result["requests"].items():
        counts = row["requests"] - row["failures"], row["failures"]
        times = row["p50_ms"], row["p99_ms"], row["max_ms"]
        table.add_row(name, *map(str, counts), *("-" if value is None else f"{value:.1f}" for value in times))
    console.print()
    console.print(table, highlight=False)
    late, arrivals = result["late_starts"], result["arrivals"]
    console.print(f"  {late} of {arrivals} arrivals started late", highlight=False)


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Write a result that only its owner can read."""
    data = json.dumps(document, indent=2) + "\n"
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(data)
