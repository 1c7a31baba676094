"""What the operator costs at a thousand PlatformServices, against a bare kube-apiserver.

Platforms are made until their services are as many as asked for. There are no controllers and no nodes: this program
plays them by writing the status of Deployments, StatefulSets and Jobs and the EndpointSlices of Services, so that what
is measured is the operator and the API server, not the controller manager. The operator runs as a process of its own;
its memory and CPU come from /proc, its calls from its /metrics.

    uv run python benchmarks/operator_scale.py --services 1000
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import httpx
import uvloop
from common.control_plane import BINARY, Controllers, Kube, api_server

from fanfold.contracts.components import COMPONENTS
from fanfold.contracts.resources import PLATFORM_LABEL
from fanfold.contracts.snapshot import SNAPSHOT_KEY, decode
from fanfold.dev.process import free_ports
from fanfold_operator import logs, operator
from fanfold_operator.kinds import CONFIG_MAP, ENDPOINT_SLICE, Key
from fanfold_operator.planning.actions import Images
from fanfold_operator.resources import meta
from fanfold_operator.store import Store

PER_NAMESPACE = 13
QUIET_SECONDS = 2
RESYNC_SECONDS = 60
PROFILE_SECONDS = 15
Phase = dict[str, float]


class Figures(dict[str, Phase]):
    """By phase; each is printed as soon as it is known, for the next one may take long."""

    def __setitem__(self, phase: str, values: Phase) -> None:
        super().__setitem__(phase, values)
        print(phase)
        for name, value in values.items():
            print(f"  {name:24} {value}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--services", type=int, default=1000, help="PlatformServices to make, at least (default 1000)")
    parser.add_argument("--steady", type=float, default=60, help="seconds of steady state to measure (default 60)")
    parser.add_argument("--limit", type=float, default=900, help="most seconds any phase may take (default 900)")
    parser.add_argument("--workers", type=int, default=8, help="the operator's --workers (default 8)")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument(
        "--profile", type=Path, help="write the operator's largest allocations (tracemalloc) to this file"
    )
    parser.add_argument("--run-operator", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run_operator:
        uvloop.run(run_operator(json.loads(options.run_operator)))
        return
    if not BINARY.exists():
        parser.error(f"{BINARY} is missing: run cluster/build.sh")
    figures = asyncio.run(measure(options))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


async def run_operator(settings: dict[str, Any]) -> None:
    """The operator as it is, but that every gateway says to be up to date: there are none."""

    async def ask(gateway: str) -> int:
        host = gateway.rpartition(":")[0]
        if host not in maps:
            maps.update(snapshots(running.store))
        found = running.store.get(maps[host]) if host in maps else None
        return decode(found["data"][SNAPSHOT_KEY]).epoch if found else -1

    maps: dict[str, Key] = {}
    logs.configure("WARNING", console=False)
    options = operator.Options(
        images=Images("registry.test/fanfold", "0.1.0"),
        admin_port=settings["port"],
        workers=settings["workers"],
        resync_seconds=settings["resync"],
    )
    if settings["profile"]:
        tracemalloc.start(12)

        def write() -> None:
            top = tracemalloc.take_snapshot().statistics("traceback")[:40]
            lines = [f"{one.size / 2**20:8.1f} MiB in {one.count}\n" + "\n".join(one.traceback.format()) for one in top]
            Path(settings["profile"]).write_text("\n\n".join(lines) + "\n")

        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, write)
    running = operator.Operator(options, ask)
    await running.run()


def snapshots(store: Store) -> Iterator[tuple[str, Key]]:
    """Addresses of endpoints, and where the snapshot of their platform is."""
    for key in store.keys(ENDPOINT_SLICE):
        if part := store.get(key):
            name = meta.snapshot_name(part["metadata"]["labels"][PLATFORM_LABEL])
            for endpoint in part["endpoints"]:
                yield endpoint["addresses"][0], Key(CONFIG_MAP.kind, key.namespace, name)


async def measure(options: argparse.Namespace) -> Figures:
    platforms = math.ceil(options.services / len(COMPONENTS))
    resources = platforms * (len(COMPONENTS) + 2)
    figures = Figures()
    figures["made"] = {"platforms": platforms, "platform services": platforms * len(COMPONENTS)}
    with tempfile.TemporaryDirectory(prefix="operator-scale-") as folder, api_server(Path(folder)) as kubeconfig:
        async with Kube(kubeconfig) as kube:
            await kube.define()
            team = Team(kube, platforms)
            playing = asyncio.create_task(Controllers(kube).play_forever())
            try:
                with Process(kubeconfig, options, resync=3600) as process:
                    figures["from nothing until all are Ready"] = await fill(team, process, options.limit)
                    figures["steady state"] = await steady(process, options.steady)
                    if options.profile:
                        process.write_profile()
                with Process(kubeconfig, options, resync=3600) as process:
                    figures["restart until every resource was looked at"] = await restart(
                        process, resources, options.limit
                    )
                with Process(kubeconfig, options, resync=RESYNC_SECONDS) as process:
                    figures["full resync"] = await resync(process, resources, options.limit)
            finally:
                playing.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await playing
    return figures


async def fill(team: Team, process: Process, limit: float) -> Phase:
    started = time.monotonic()
    await team.make()
    try:
        await until(team.all_ready, limit, "every platform Ready")
    except SystemExit:
        print(f"after {limit:.0f} s {team.ready} platforms are Ready; so far {process.spent()}")
        raise
    seconds = time.monotonic() - started
    await process.quiet(limit)
    return {"seconds": round(seconds, 1), **process.spent()}


async def steady(process: Process, seconds: float) -> Phase:
    calls, cpu, reconciles = process.calls(), process.cpu(), process.reconciles()
    await asyncio.sleep(seconds)
    return {
        "API calls per second": round((process.calls() - calls) / seconds, 2),
        "reconciles per second": round((process.reconciles() - reconciles) / seconds, 1),
        "CPU, % of a core": round((process.cpu() - cpu) / seconds * 100, 1),
        **process.memory(),
    }


async def restart(process: Process, resources: int, limit: float) -> Phase:
    started = time.monotonic()
    await process.reconciled(resources, limit)
    await process.quiet(limit)
    return {"seconds": round(time.monotonic() - started - QUIET_SECONDS, 1), **process.spent()}


async def resync(process: Process, resources: int, limit: float) -> Phase:
    """One full resync of an operator that has come to rest: listings, and a look at every resource."""
    await process.reconciled(resources, limit)
    await process.quiet(limit)
    calls, cpu, stamp, done = process.calls(), process.cpu(), process.synced(), process.reconciles()
    began, before, deadline = None, process.memory(), time.monotonic() + RESYNC_SECONDS + limit
    while not (process.synced() != stamp and process.reconciles() - done >= resources and process.depth() == 0):
        if began is None and process.calls() > calls + 5:
            began = time.monotonic()
        if time.monotonic() > deadline:
            raise SystemExit("no full resync within the limit")
        await asyncio.sleep(0.1)
    seconds = time.monotonic() - began if began else 0.0
    spent = process.calls() - calls
    return {
        "seconds": round(seconds, 1),
        "API calls": spent,
        "API calls per second": round(spent / max(seconds, 0.1), 1),
        "CPU seconds": round(process.cpu() - cpu, 1),
        "memory before, MiB": before["memory, MiB"],
        **process.memory(),
    }


async def until(check: Any, seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not await check():
        if time.monotonic() > deadline:
            raise SystemExit(f"not within {seconds:.0f} s: {what}")
        await asyncio.sleep(0.5)


class Team:
    """The Platforms: made, and counted when they are Ready."""

    def __init__(self, kube: Kube, platforms: int) -> None:
        self._kube = kube
        self._platforms = platforms
        self.ready = 0

    async def make(self) -> None:
        for number in range(math.ceil(self._platforms / PER_NAMESPACE)):
            body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": f"team-{number}"}}
            await self._kube.call("POST", "/api/v1/namespaces", body)
        await asyncio.gather(*map(self._make, range(self._platforms)))

    async def _make(self, number: int) -> None:
        body = {
            "apiVersion": "fanfold.dev/v1alpha1", "kind": "Platform", "metadata": {"name": f"p{number}"}, "spec": {},
        }  # fmt: skip
        path = f"/apis/fanfold.dev/v1alpha1/namespaces/team-{number // PER_NAMESPACE}/platforms"
        await self._kube.call("POST", path, body)

    async def all_ready(self) -> bool:
        listing = await self._kube.call("GET", "/apis/fanfold.dev/v1alpha1/platforms")
        conditions = [one for item in listing["items"] for one in item.get("status", {}).get("conditions", ())]
        self.ready = sum(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
        return self.ready == self._platforms


class Process:
    """The process, and what can be read of it."""

    def __init__(self, kubeconfig: Path, options: argparse.Namespace, resync: float) -> None:
        (self._port,) = free_ports(1)
        profile = str(options.profile.resolve()) if options.profile else ""
        settings = {"port": self._port, "workers": options.workers, "resync": resync, "profile": profile}
        environment = {**os.environ, "KUBECONFIG": str(kubeconfig)}
        words = [sys.executable, __file__, "--run-operator", json.dumps(settings)]
        self._process = subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)

    def _metrics(self) -> str:
        if self._process.poll() is not None:
            raise SystemExit(f"the operator ended with {self._process.returncode}")
        try:
            return httpx.get(f"http://127.0.0.1:{self._port}/metrics", timeout=30, trust_env=False).text
        except httpx.TransportError:
            return ""

    def _sum(self, name: str) -> float:
        values = re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", self._metrics(), re.MULTILINE)
        return sum(map(float, values))

    def calls(self) -> int:
        return int(self._sum("fanfold_operator_api_calls_total"))

    def reconciles(self) -> int:
        return int(self._sum("fanfold_operator_reconciles_total"))

    def synced(self) -> float:
        return self._sum("fanfold_operator_last_resync_timestamp_seconds")

    def depth(self) -> float:
        return self._sum("fanfold_operator_queue_depth")

    def cpu(self) -> float:
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self) -> Phase:
        return {"memory, MiB": round(self._status("VmRSS")), "peak memory, MiB": round(self._status("VmHWM"))}

    def spent(self) -> Phase:
        return {"API calls": self.calls(), "CPU seconds": round(self.cpu(), 1), **self.memory()}

    def _status(self, name: str) -> float:
        text = Path(f"/proc/{self._process.pid}/status").read_text()
        found = re.search(rf"^{name}:\s+(\d+) kB$", text, re.MULTILINE)
        assert found
        return int(found[1]) / 1024

    def write_profile(self) -> None:
        self._process.send_signal(signal.SIGUSR1)
        time.sleep(PROFILE_SECONDS)

    async def reconciled(self, count: int, seconds: float) -> None:
        async def check() -> bool:
            return self.reconciles() >= count

        await until(check, seconds, f"{count} reconciles")

    async def quiet(self, seconds: float) -> None:
        """Wait until it makes no API call for a while."""
        deadline, before, since = time.monotonic() + seconds, self.calls(), time.monotonic()
        while time.monotonic() - since < QUIET_SECONDS:
            await asyncio.sleep(0.2)
            if (now := self.calls()) != before:
                before, since = now, time.monotonic()
            if time.monotonic() > deadline:
                raise SystemExit(f"the operator does not come to rest in {seconds:.0f} s")


if __name__ == "__main__":
    main()
