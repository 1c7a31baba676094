"""The load generator beside others: requests of one core of it, and what it adds to the latency it reports.

    uv run python benchmarks/generator.py

nginx answers at once on one core, the generator has the other. First as fast as answers come from so many users in a
closed loop: requests by CPU seconds of the generator's process. Then at a fixed rate far below: CPU time a request, and
the latency reported, which for a server that answers at once is mostly the generator's own. Plain Locust has no open
model: its users are paced instead. Interleaved rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from common.processes import Workshop, here, listens
from common.results import save, say, summary
from peers import configs
from peers.install import PeerError, install_nginx, install_vegeta, library_path, nginx, vegeta

from fanfold.dev.process import free_ports
from fanfold_loadtest.documents import parse
from fanfold_loadtest.plan import Plan, Reader
from fanfold_loadtest.recording import Recorder, milliseconds
from fanfold_loadtest.runner import apply_load
from fanfold_loadtest.scenario import Scenario

if TYPE_CHECKING:
    from collections.abc import Callable

BODY_BYTES: Final = 896
USERS: Final = 32
WARM_SECONDS: Final = 1.0
PATH: Final = "/v1/feed"
SERVER_CORE: Final = [0]
GENERATOR_CORE: Final = [1]
SCENARIO: Final = """
name: generator
description: As fast as it goes, or at a rate.
model: {model}
arrivals: constant
mix: {{feed: 1}}
phases:
  - {{name: warm-up, seconds: {warm}, rate: {rate}, measured: false}}
  - {{name: steady, seconds: {seconds}, rate: {rate}}}
"""
START_SECONDS: Final = 4.0
TITLES: Final = {
    "fanfold": "fanfold-loadtest (Locust, recorded from the intended start)",
    "locust": "plain Locust, FastHttpUser",
    "vegeta": "vegeta (Go)",
}


@dataclass(frozen=True)
class Seen:
    """What one generator used and reported."""

    requests: int
    cpu_seconds: float
    p50_ms: float
    p99_ms: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds (default 5)")
    parser.add_argument("--seconds", type=float, default=5, help="of one generator in one round (default 5)")
    parser.add_argument("--rate", type=float, default=300, help="requests a second of the second part (default 300)")
    options = parser.parse_args()
    install_nginx()
    install_vegeta()
    with Workshop() as shop:
        (port,) = free_ports(1)
        folder = shop.folder / "nginx"
        folder.mkdir()
        file = folder / "nginx.conf"
        file.write_text(configs.upstream([port], str(folder), BODY_BYTES))
        command = [str(nginx()), "-c", str(file), "-p", str(folder)]
        shop.start("nginx", command, ready=listens(port), env=library_path(), cores=SERVER_CORE)
        with here(GENERATOR_CORE):
            figures = measure(f"http://127.0.0.1:{port}", shop.folder, options)
    notes = [
        f"nginx answers {BODY_BYTES} B on one core, the generator has the other; {USERS} users or connections.",
        "Plain Locust at a rate: paced users, latency from the sending, rounded to whole milliseconds by Locust.",
        "fanfold-loadtest keeps histograms by request, phase and interval, and gives every request its time.",
    ]
    say(str(save("generator", {"rate": options.rate, "generators": figures}, notes=notes)))


def measure(url: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Rounds of all generators in turn: {name: figures}."""
    generators: dict[str, Callable[[float], Seen]] = {
        "fanfold": lambda rate: fanfold(url, folder, rate, options.seconds),
        "locust": lambda rate: locust(url, folder, rate, options.seconds),
        "vegeta": lambda rate: with_vegeta(url, rate, options.seconds),
    }
    fast: dict[str, list[Seen]] = {name: [] for name in generators}
    paced: dict[str, list[Seen]] = {name: [] for name in generators}
    for number in range(options.rounds):
        for name, generate in generators.items():
            fast[name].append(generate(0))
            paced[name].append(generate(options.rate))
        told = (
            f"{name} {rate(seen[-1]):,.0f}/core, p50 {paced[name][-1].p50_ms:.2f} ms" for name, seen in fast.items()
        )
        say(f"round {number + 1}: " + ", ".join(told))
    return {
        name: {
            "title": TITLES[name],
            "per_core_second": summary([rate(seen) for seen in fast[name]]),
            "cpu_us": summary([1e6 * seen.cpu_seconds / seen.requests for seen in paced[name]]),
            "p50_ms": summary([seen.p50_ms for seen in paced[name]]),
            "p99_ms": summary([seen.p99_ms for seen in paced[name]]),
        }
        for name in generators
    }


def rate(seen: Seen) -> float:
    return seen.requests / seen.cpu_seconds


def fanfold(url: str, folder: Path, rate: float, seconds: float) -> Seen:
    """Our Locust process, with a plan whose people nobody had to make."""
    text = SCENARIO.format(model="open" if rate else "closed", warm=WARM_SECONDS, rate=rate or USERS, seconds=seconds)
    scenario = parse(text, Scenario, "generator")
    plan = Plan(
        scenario=scenario, begin_at=time.time() + START_SECONDS, index=0, of=1, seed=1,
        readers=[Reader(f"user{number}", "token", "refresh") for number in range(USERS)],
        token_seconds=86_400, authors=[], posts=[], celebrity=Reader("c", "t", "r"), watchers=[],
        celebrity_photo="", photo=("", ""),
    )  # fmt: skip
    (share,), _ = asyncio.run(apply_load([plan], url, folder, lambda _, __: None))
    tally = Recorder.of(scenario.seconds, [share]).total(["steady"], "feed")
    if tally.failed:
        raise PeerError(f"fanfold failed {tally.failed} requests: {share.sample}")
    percentiles = (milliseconds(tally.latencies, percent) for percent in (50, 99))
    return Seen(tally.count, share.cpu_percent / 100 * seconds, *percentiles)


def locust(url: str, folder: Path, rate: float, seconds: float) -> Seen:
    """Plain Locust, headless."""
    out = folder / "locust.json"
    script = Path(configs.__file__).with_name("plain_locustfile.py")
    command = [sys.executable, "-m", "locust", "-f", str(script), "--headless", "--host", url, "--only-summary"]
    command += ["--users", str(USERS), "--spawn-rate", "1000", "--run-time", f"{round(WARM_SECONDS + seconds)}s"]
    env = {"BENCH_OUT": str(out), "BENCH_PATH": PATH, "BENCH_PACE": str(rate / USERS), "BENCH_WARM": str(WARM_SECONDS)}
    run([*command, "--loglevel", "ERROR"], folder, env)
    seen = json.loads(out.read_text())
    if seen["failed"]:
        raise PeerError(f"Locust failed {seen['failed']} requests")
    return Seen(seen["requests"], seen["cpu_seconds"], seen["p50_ms"], seen["p99_ms"])


def with_vegeta(url: str, rate: float, seconds: float) -> Seen:
    """Vegeta; all of its CPU time, for it starts in no time."""
    limits = [f"-rate={rate:g}"] if rate else ["-rate=0", f"-max-workers={USERS}"]
    command = [str(vegeta()), "attack", f"-duration={seconds:g}s", *limits, f"-workers={USERS}"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    attack = run(command, Path.cwd(), {"GOMAXPROCS": "1"}, f"GET {url}{PATH}\n".encode())
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    report = json.loads(run([str(vegeta()), "report", "-type=json"], Path.cwd(), {}, attack))
    if report["success"] < 1:
        raise PeerError(f"vegeta failed: {report['errors']}")
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    latencies = report["latencies"]
    return Seen(report["requests"], used, latencies["50th"] / 1e6, latencies["99th"] / 1e6)


def run(command: list[str], folder: Path, env: dict[str, str], stdin: bytes = b"") -> bytes:
    """Standard output of a command.

    Raises:
        PeerError: It failed.
    """
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, **env}, input=stdin, capture_output=True, timeout=120, check=False
    )
    if done.returncode:
        raise PeerError(f"{command[0]} ended with {done.returncode}: {done.stderr.decode()[-500:]}")
    return done.stdout


if __name__ == "__main__":
    main()
