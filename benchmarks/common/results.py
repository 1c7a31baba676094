"""Results as JSON files, with the machine and the moment; ``benchmarks/performance.py`` makes the document of them."""

from __future__ import annotations

import datetime as dt
import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from common.processes import ROOT

if TYPE_CHECKING:
    from collections.abc import Sequence

FOLDER: Final = ROOT / "benchmarks" / "results"

_LOAD_BEFORE: Final = os.getloadavg()[0]


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    cpuinfo = Path("/proc/cpuinfo").read_text()
    model = next((line.partition(": ")[2] for line in cpuinfo.splitlines() if line.startswith("model name")), "unknown")
    memory = int(Path("/proc/meminfo").read_text().split()[1]) / (1 << 20)
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "memory_gib": round(memory),
        "kernel": platform.release().split("-")[0],
        "python": platform.python_version() + (" of the distribution" if sys.base_prefix == "/usr" else ""),
        "load_before": round(_LOAD_BEFORE, 1),
    }


def save(name: str, figures: dict[str, Any], *, notes: Sequence[str] = ()) -> Path:
    """Write ``results/NAME.json``: the figures with where, when and how they were made; the file."""
    FOLDER.mkdir(exist_ok=True)
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, timeout=10, check=False
    ).stdout.strip()
    arguments = " ".join(sys.argv[1:])
    document = {
        "benchmark": name,
        "command": f"uv run python benchmarks/{Path(sys.argv[0]).name} {arguments}".strip(),
        "date": dt.datetime.now(dt.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": commit,
        "machine": machine(),
        "notes": list(notes),
        "figures": figures,
    }
    file = FOLDER / f"{name}.json"
    file.write_text(json.dumps(document, indent=1) + "\n")
    return file


def summary(values: Sequence[float]) -> dict[str, float]:
    """Median, least and most of the rounds."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def say(text: str) -> None:
    """Progress, on standard error: standard output is for results."""
    print(text, file=sys.stderr, flush=True)
