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
import base64
import contextlib
import json
import math
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import httpx
import uvloop
import yaml

from fanfold.contracts.components import COMPONENTS
from fanfold.contracts.resources import PLATFORM_LABEL, SERVICE_LABEL
from fanfold.contracts.snapshot import SNAPSHOT_KEY, decode
from fanfold_operator import logs, operator
from fanfold_operator.kinds import CONFIG_MAP, ENDPOINT_SLICE, Key
from fanfold_operator.planning.actions import Images
from fanfold_operator.resources import meta
from fanfold_operator.store import Store

ROOT = Path(__file__).resolve().parents[1]
BINARY = ROOT / ".build" / "bin" / "fanfold-cluster"
PER_NAMESPACE = 13
CONCURRENCY = 24
PLAY_SECONDS = 1.5
QUIET_SECONDS = 2
RESYNC_SECONDS = 60
PROFILE_SECONDS = 15
Manifest = dict[str, Any]
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
            await kube.prepare(platforms)
            playing = asyncio.create_task(kube.play_forever())
            try:
                with Process(kubeconfig, options, resync=3600) as process:
                    figures["from nothing until all are Ready"] = await fill(kube, process, platforms, options.limit)
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


async def fill(kube: Kube, process: Process, platforms: int, limit: float) -> Phase:
    started = time.monotonic()
    await kube.make_platforms(platforms)
    try:
        await until(kube.all_ready, limit, "every platform Ready")
    except SystemExit:
        print(f"after {limit:.0f} s {kube.ready} of {platforms} platforms are Ready; so far {process.spent()}")
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


class Process:
    """The process, and what can be read of it."""

    def __init__(self, kubeconfig: Path, options: argparse.Namespace, resync: float) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
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


@contextlib.contextmanager
def api_server(folder: Path) -> Iterator[Path]:
    words = [str(BINARY), "control-plane", "run", "--state", str(folder / "state")]
    with (folder / "control-plane.log").open("w") as errors:
        process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True)
        try:
            assert process.stdout
            line = process.stdout.readline().strip()
            if not line.startswith("READY kubeconfig="):
                raise SystemExit(f"no control plane: {(folder / 'control-plane.log').read_text()[-2000:]}")
            yield Path(line.partition("=")[2])
        finally:
            process.terminate()
            process.wait(30)


@dataclass(frozen=True)
class _Played:
    """One kind whose controller is played: where it is listed, and the status it is to have (None: it has it)."""

    path: str
    status: Any


class Kube:
    """A client, and the controllers it plays."""

    def __init__(self, kubeconfig: Path) -> None:
        loaded = yaml.safe_load(kubeconfig.read_text())
        cluster, user = loaded["clusters"][0]["cluster"], loaded["users"][0]["user"]
        context = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
        with tempfile.NamedTemporaryFile() as file:
            for name in ("client-certificate-data", "client-key-data"):
                file.write(base64.b64decode(user[name]))
            file.flush()
            context.load_cert_chain(file.name)
        limits = httpx.Limits(max_connections=CONCURRENCY)
        self._client = httpx.AsyncClient(
            base_url=cluster["server"], verify=context, timeout=60, trust_env=False, limits=limits
        )
        self._turns = asyncio.Semaphore(CONCURRENCY)
        self._sliced: set[str] = set()
        self._platforms = 0
        self.ready = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def call(self, method: str, path: str, body: Any = None, content: str = "application/json") -> Manifest:
        async with self._turns:
            answer = await self._client.request(method, path, json=body, headers={"Content-Type": content})
        if answer.status_code == 409 and method == "POST":
            return {}
        if answer.status_code >= 300:
            raise SystemExit(f"{method} {path}: {answer.text}")
        document: Manifest = answer.json()
        return document

    async def prepare(self, platforms: int) -> None:
        for file in sorted((ROOT / "crds").glob("*.yaml")):
            definition = yaml.safe_load(file.read_text())
            await self.call("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition)
            path = f"/apis/fanfold.dev/v1alpha1/{definition['spec']['names']['plural']}"
            deadline = time.monotonic() + 30
            while (await self._client.get(path)).status_code != 200:
                if time.monotonic() > deadline:
                    raise SystemExit(f"{path} is not served")
                await asyncio.sleep(0.1)
        for number in range(math.ceil(platforms / PER_NAMESPACE)):
            body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": f"team-{number}"}}
            await self.call("POST", "/api/v1/namespaces", body)

    async def make_platforms(self, platforms: int) -> None:
        self._platforms = platforms

        async def make(number: int) -> None:
            body = {"apiVersion": "fanfold.dev/v1alpha1", "kind": "Platform", "metadata": {"name": f"p{number}"}}
            namespace = f"team-{number // PER_NAMESPACE}"
            await self.call(
                "POST", f"/apis/fanfold.dev/v1alpha1/namespaces/{namespace}/platforms", {**body, "spec": {}}
            )

        await asyncio.gather(*map(make, range(platforms)))

    async def all_ready(self) -> bool:
        listing = await self.call("GET", "/apis/fanfold.dev/v1alpha1/platforms")
        conditions = [one for item in listing["items"] for one in item.get("status", {}).get("conditions", ())]
        self.ready = sum(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
        if sys.stderr.isatty():
            print(f"\r{self.ready} of {self._platforms} platforms are Ready ", end="", file=sys.stderr, flush=True)
        return self.ready == self._platforms

    async def play_forever(self) -> None:
        while True:
            began = time.monotonic()
            for played in PLAYED:
                listing = await self.call("GET", f"{played.path}?labelSelector={PLATFORM_LABEL}&resourceVersion=0")
                await asyncio.gather(*(self._settle(played, item) for item in listing["items"]))
            services = await self.call("GET", f"/api/v1/services?labelSelector={PLATFORM_LABEL}&resourceVersion=0")
            await asyncio.gather(*(self._slice(item) for item in services["items"]))
            await asyncio.sleep(max(PLAY_SECONDS, 2 * (time.monotonic() - began)))

    async def _settle(self, played: _Played, item: Manifest) -> None:
        status = played.status(item)
        if status is not None:
            metadata = item["metadata"]
            base, _, plural = played.path.rpartition("/")
            path = f"{base}/namespaces/{metadata['namespace']}/{plural}/{metadata['name']}/status"
            await self.call("PATCH", path, {"status": status}, "application/merge-patch+json")

    async def _slice(self, service: Manifest) -> None:
        metadata, labels = service["metadata"], service["metadata"]["labels"]
        if metadata["uid"] in self._sliced or SERVICE_LABEL not in labels:
            return
        self._sliced.add(metadata["uid"])
        number = len(self._sliced)
        address = f"10.{64 + number // 65000}.{number // 250 % 256}.{number % 250 + 1}"
        body = {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": f"{metadata['name']}-play",
                "labels": {**labels, "kubernetes.io/service-name": metadata["name"]},
            },
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8000}],
            "endpoints": [
                {
                    "addresses": [address],
                    "conditions": {"ready": True, "serving": True, "terminating": False},
                    "targetRef": {"kind": "Pod", "name": f"{metadata['name']}-x", "namespace": metadata["namespace"]},
                }
            ],
        }
        path = f"/apis/discovery.k8s.io/v1/namespaces/{metadata['namespace']}/endpointslices"
        await self.call("POST", path, body)


def _deployment(item: Manifest) -> Manifest | None:
    replicas, generation = item["spec"].get("replicas", 1), item["metadata"]["generation"]
    if item.get("status", {}).get("observedGeneration") == generation:
        return None
    counts = ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas")
    return {"observedGeneration": generation, **dict.fromkeys(counts, replicas)}


def _stateful_set(item: Manifest) -> Manifest | None:
    found = _deployment(item)
    return found and {**found, "currentReplicas": found["replicas"]}


def _job(item: Manifest) -> Manifest | None:
    if item.get("status", {}).get("conditions"):
        return None
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    conditions = [
        {"type": kind, "status": "True", "lastProbeTime": now, "lastTransitionTime": now}
        for kind in ("SuccessCriteriaMet", "Complete")
    ]
    return {"startTime": now, "completionTime": now, "succeeded": 1, "conditions": conditions}


PLAYED = (
    _Played("/apis/apps/v1/statefulsets", _stateful_set),
    _Played("/apis/batch/v1/jobs", _job),
    _Played("/apis/apps/v1/deployments", _deployment),
)

if __name__ == "__main__":
    main()
