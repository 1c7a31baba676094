"""A celebrity posts, on two cores, to 10,000, 100,000 and a million followers, pulled and batched.

    uv run python benchmarks/celebrity.py

The whole platform runs as ``fanfold dev`` runs it. Graphs are seeded with ``fanfold-loadtest seed``, which is timed,
then the scenario ``celebrity`` runs on each: the latency of everybody's feed before, during and after, and how old the
posts are when the last follower sees them, among these the one whom fan-out reaches last. In batched mode every
follower has a warm feed, written straight into Valkey: there are that many pushes to make.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from common.processes import Workshop
from common.results import save, say

from fanfold.contracts import keys
from fanfold.dev.platform import DevPlatform, Options
from fanfold.feed.stored import build
from fanfold.kit.valkey import Valkey
from fanfold_loadtest.population import degrees, planted
from fanfold_loadtest.seed_command import BODY
from fanfold_loadtest.seeding import person_ids

if TYPE_CHECKING:
    from fanfold_loadtest.population import Population

MODES: Final = ("pull", "batched")
PHASES: Final = ("before", "during", "after")
THRESHOLD: Final = 5_000
"""Followers above which an author is a celebrity: below all that are measured."""
BATCH: Final = 2_000
LIMIT_SECONDS: Final = 400


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--followers", type=int, nargs="*", default=[10_000, 100_000, 1_000_000])
    parser.add_argument(
        "--time-factor", type=float, default=1.0, help="of the scenario's 100 s (default 1: its posts are 10 s apart)"
    )
    parser.add_argument("--rate-factor", type=float, default=1.0, help="of the scenario's 50 reads/s (default 1)")
    options = parser.parse_args()
    os.environ["FANFOLD_CELEBRITY_THRESHOLD"] = str(THRESHOLD)
    figures: dict[str, Any] = {"seeding": [], "runs": []}
    with Workshop() as shop:
        for mode in MODES:
            os.environ["FANFOLD_CELEBRITY_MODE"] = mode
            with DevPlatform(Options(folder=shop.folder / "dev", port=0, quiet=True), say) as platform:
                for followers in options.followers:
                    crowd = shop.folder / f"crowd-{followers}.json"
                    if mode == MODES[0]:
                        figures["seeding"].append(seed(shop.folder, crowd, followers))
                    else:
                        asyncio.run(warm(platform.stores.valkey_url, planted(BODY, [followers], 1)))
                    run = scenario(platform.url, shop.folder, crowd, options)
                    figures["runs"].append({"mode": mode, "followers": followers, **run})
                    say(f"{mode}, {followers:,} followers: {json.dumps(run)}")
                    save("celebrity", figures, notes=notes(options))  # what is known if a later one fails


def notes(options: argparse.Namespace) -> list[str]:
    rate, seconds = 50 * options.rate_factor, 30 * options.time_factor
    return [
        "The platform, its stores and the generator share two cores.",
        f"{rate:g} requests a second, of which 80 % feeds; phases of {seconds:g} s; three posts in `during`.",
        "Last follower: the most of five watchers' ages, the one whom fan-out reaches last among them.",
        "Each watcher looks every 0.1 s, which is the resolution.",
    ]


def seed(folder: Path, crowd: Path, followers: int) -> dict[str, Any]:
    """Time of one graph."""
    started = time.monotonic()
    database = folder / "dev" / "secrets" / "database_url"
    command("seed", "--database", str(database), "--celebrity", str(followers), "--out", str(crowd))
    seconds = time.monotonic() - started
    found = degrees(planted(BODY, [followers], 1), 1)
    say(f"seeded {found.people:,} people, {found.follows:,} follows in {seconds:.1f} s")
    return {"people": found.people, "follows": found.follows, "seconds": round(seconds, 1)}


async def warm(url: str, population: Population) -> None:
    """An empty, complete feed for each follower."""
    ids = person_ids(population)
    valkey = Valkey(url)
    tick = b"%d" % int(time.time() * 1e6)  # older than any push to come
    for start in range(1, population.people, BATCH):
        people = [UUID(bytes=one.tobytes()) for one in ids[start : start + BATCH]]
        feeds = [keys.feed(one) for one in people]
        await valkey.all([("UNLINK", *feeds), *(("RPUSH", feed, *build((), tick, 1)) for feed in feeds)])
    await valkey.close()


def scenario(url: str, folder: Path, crowd: Path, options: argparse.Namespace) -> dict[str, Any]:
    """What one run of the scenario found."""
    out = folder / f"out-{time.monotonic_ns()}"
    factors = ["--time-factor", str(options.time_factor), "--rate-factor", str(options.rate_factor)]
    command("run", "celebrity", "--url", url, "--crowd", str(crowd), "--out", str(out), *factors, codes={0, 1, 2})
    (file,) = out.glob("*/result.json")
    content = json.loads(file.read_text())
    feeds = {row["phase"]: row for row in content["figures"] if row["request"] == "feed"}
    ages = [age["seconds"] for age in content["share"]["ages"]]
    return {
        "verdict": content["verdict"],
        "reasons": content["reasons"],
        "failed": sum(row["failed"] for row in content["figures"]),
        "p50_ms": {phase: feeds[phase]["p50_ms"] for phase in PHASES},
        "p99_ms": {phase: feeds[phase]["p99_ms"] for phase in PHASES},
        "last_follower_s": None if None in ages else max(ages),
    }


def command(*arguments: str, codes: frozenset[int] | set[int] = frozenset({0})) -> None:
    """``fanfold-loadtest``.

    Raises:
        RuntimeError: It ended with another code.
    """
    program = [sys.executable, "-c", "from fanfold_loadtest.cli import main; main()", *arguments]
    done = subprocess.run(program, capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False)
    if done.returncode not in codes:
        raise RuntimeError(f"{' '.join(arguments)} ended with {done.returncode}: {done.stdout}{done.stderr}")


if __name__ == "__main__":
    main()
