"""How long an endpoint's change takes to every gateway, against a real kube-apiserver.

The operator and each gateway (`fanfold run gateway`) are processes of their own; EndpointSlices are written by this
program. A change counts from before its write until every gateway's /snapshot shows an epoch that holds it. Idle: one
change at a time. Under churn: another service's endpoints change many times a second meanwhile.

    uv run python benchmarks/propagation.py --gateways 3 --changes 100
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final

import uvloop
from common.control_plane import Kube, api_server

from fanfold.contracts.resources import PLATFORM_LABEL, SERVICE_LABEL
from fanfold.contracts.snapshot import SNAPSHOT_KEY, decode
from fanfold.dev.process import free_ports
from fanfold.gateway.kube import Access, ConfigMapApi
from fanfold_operator import logs, operator
from fanfold_operator.planning.actions import Images
from fanfold_operator.resources import credentials
from fanfold_operator.ring.ports import AdminPorts

NAMESPACE: Final = "default"
POLL_SECONDS: Final = 0.005
START_SECONDS: Final = 120.0
CHANGE_SECONDS: Final = 30.0
CHURN: Final = "feed"
MEASURED: Final = "post"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gateways", type=int, default=3, help="gateway processes (default 3)")
    parser.add_argument("--changes", type=int, default=100, help="changes measured, idle and under churn (default 100)")
    parser.add_argument("--endpoints", type=int, default=50, help="endpoints of each service (default 50)")
    parser.add_argument("--churn", type=float, default=20, help="other changes a second, under churn (default 20)")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--run-operator", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run_operator:
        uvloop.run(run_operator(json.loads(options.run_operator)))
        return
    figures = asyncio.run(measure(options))
    for phase, values in figures.items():
        print(f"{phase}: " + ", ".join(f"{name} {value}" for name, value in values.items()))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


async def run_operator(ports: dict[str, str]) -> None:
    """The operator as it is, but that a gateway's address leads to a port of this machine."""
    admin = AdminPorts()
    logs.configure("WARNING", console=False)
    settings = operator.Options(images=Images("registry.test/fanfold", "0.1.0"), namespace=NAMESPACE, admin_port=0)
    await operator.Operator(settings, lambda gateway: admin.epoch(ports[gateway])).run()


def slice_of(service: str, addresses: list[str]) -> dict[str, Any]:
    labels = {PLATFORM_LABEL: "demo", SERVICE_LABEL: service}
    ready = {"ready": True, "serving": True, "terminating": False}
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": service, "labels": labels},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [address], "conditions": ready} for address in addresses],
        "ports": [{"name": "http", "port": 8000, "protocol": "TCP"}],
    }


class Bench:
    """The measured parts, and what was seen: when which gateway used which epoch, and what each epoch held."""

    def __init__(self, kube: Kube, admin: AdminPorts, ports: list[str], endpoints: int) -> None:
        self._kube = kube
        self._admin = admin
        self._ports = ports
        self._serial = 0
        self.pods = {service: [self._address() for _ in range(endpoints)] for service in (CHURN, MEASURED)}
        self.held: dict[str, int] = {}
        self.used: dict[str, int] = dict.fromkeys(ports, -1)

    def _address(self) -> str:
        self._serial += 1
        return f"10.{100 + self._serial // 62500}.{self._serial // 250 % 250}.{self._serial % 250}"

    async def write(self, service: str) -> None:
        path = (
            f"/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices/{service}?fieldManager=bench&force=true"
        )
        await self._kube.call("PATCH", path, slice_of(service, self.pods[service]), "application/apply-patch+yaml")

    async def watch(self) -> None:
        """Note the first epoch that holds each address of the measured service."""
        api = ConfigMapApi(Access.find(), NAMESPACE, "demo-snapshot")
        while True:
            async for found in api.watch():
                if found and found.data:
                    snapshot = decode(found.data[SNAPSHOT_KEY])
                    for slot in snapshot.services.get(MEASURED, ()):
                        self.held.setdefault(slot.address, snapshot.epoch)

    async def poll(self, port: str) -> None:
        while True:
            self.used[port] = max(self.used[port], await self._admin.epoch(port))
            await asyncio.sleep(POLL_SECONDS)

    async def change(self) -> float:
        """Replace one pod; seconds until every gateway uses it."""
        fresh = self._address()
        self.pods[MEASURED][random.randrange(len(self.pods[MEASURED]))] = fresh
        started = time.perf_counter()
        await self.write(MEASURED)
        await until(lambda: min(self.used.values()) >= self.held.get(f"{fresh}:8000", sys.maxsize), CHANGE_SECONDS)
        return time.perf_counter() - started

    async def churn(self, per_second: float) -> None:
        while True:
            self.pods[CHURN][random.randrange(len(self.pods[CHURN]))] = self._address()
            await asyncio.gather(self.write(CHURN), asyncio.sleep(1 / per_second))

    async def phase(self, changes: int) -> dict[str, Any]:
        seconds = []
        for _ in range(changes):
            await asyncio.sleep(random.uniform(0.15, 0.4))
            seconds.append(await self.change())
        cuts = statistics.quantiles(seconds, n=100)
        shown = {"p50": cuts[49], "p99": cuts[98], "max": max(seconds)}
        return {"changes": changes} | {name: f"{value * 1000:.0f} ms" for name, value in shown.items()}


async def until(condition: Callable[[], bool], seconds: float) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what is waited for is in other processes
            await asyncio.sleep(POLL_SECONDS / 2)


@contextlib.asynccontextmanager
async def processes(folder: Path, count: int) -> AsyncIterator[list[str]]:
    """Gateways and the operator, stopped at the end; the gateways' admin ports."""
    secrets = folder / "secrets"
    secrets.mkdir()
    made = credentials.complete({}, "demo") | {"valkey_url": "redis://127.0.0.1:1/0"}
    for name in ("identity_key", "token_jwks", "valkey_url"):
        (secrets / name).write_text(made[name])
    ports, running = [], []
    try:
        for number in range(count):
            traffic, admin = free_ports(2)
            ports.append(f"127.0.0.1:{admin}")
            settings = {
                "SECRETS_DIR": secrets, "SNAPSHOT_SOURCE": f"configmap:{NAMESPACE}/demo-snapshot", "LOG_LEVEL": "ERROR",
                "TRAFFIC_PORT": traffic, "ADMIN_PORT": admin, "SNAPSHOT_CACHE": folder / f"cache-{number}",
                "DRAIN_SECONDS": 0, "TRAFFIC_HOST": "127.0.0.1", "ADMIN_HOST": "127.0.0.1",
            }  # fmt: skip
            environment = os.environ | {f"FANFOLD_{name}": str(value) for name, value in settings.items()}
            running.append(await asyncio.create_subprocess_exec("fanfold", "run", "gateway", env=environment))
        where = json.dumps({f"10.9.0.{number + 1}:9000": port for number, port in enumerate(ports)})
        running.append(await asyncio.create_subprocess_exec(sys.executable, __file__, "--run-operator", where))
        yield ports
    finally:
        for process in running:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        for process in running:
            await asyncio.wait_for(process.wait(), 30)


async def measure(options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    with tempfile.TemporaryDirectory(prefix="propagation-") as folder, api_server(Path(folder)) as kubeconfig:
        os.environ["KUBECONFIG"] = str(kubeconfig)
        async with Kube(kubeconfig) as kube, contextlib.AsyncExitStack() as stack:
            await kube.define()
            ports = await stack.enter_async_context(processes(Path(folder), options.gateways))
            admin = AdminPorts()
            bench = Bench(kube, admin, ports, options.endpoints)
            await set_up(kube, bench, options)
            tasks = [asyncio.create_task(bench.watch()), *(asyncio.create_task(bench.poll(port)) for port in ports)]
            await until(lambda: min(bench.used.values()) >= 1, START_SECONDS)
            figures = {"idle": await bench.phase(options.changes)}
            tasks.append(asyncio.create_task(bench.churn(options.churn)))
            figures[f"{options.churn:g} other changes a second"] = await bench.phase(options.changes)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await admin.close()
    return figures


async def set_up(kube: Kube, bench: Bench, options: argparse.Namespace) -> None:
    """A ring of two services and its gateways, without a Platform: nobody plays its controllers."""
    api = f"/apis/fanfold.dev/v1alpha1/namespaces/{NAMESPACE}"
    size = options.endpoints
    for service in (CHURN, MEASURED):
        await bench.write(service)
        spec = {
            "platform": "demo", "component": service, "version": "1", "image": "registry.test/fanfold:1",
            "replicas": size, "scaling": {"min": size, "max": size}, "routed": True,
        }  # fmt: skip
        await kube.call("POST", f"{api}/platformservices", custom("PlatformService", f"demo-{service}", spec))
    bench.pods["gateway"] = [f"10.9.0.{number + 1}" for number in range(options.gateways)]
    await bench.write("gateway")
    ring = {"platform": "demo", "services": [CHURN, MEASURED]}
    await kube.call("POST", f"{api}/hashrings", custom("HashRing", "demo", ring))


def custom(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    metadata = {"name": name, "labels": {PLATFORM_LABEL: "demo"}}
    return {"apiVersion": "fanfold.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec}


if __name__ == "__main__":
    main()
