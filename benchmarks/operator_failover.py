"""How long a Platform is without an operator: killed, stopped, and how fast drift is repaired meanwhile and otherwise.

Two operators run as processes against a real kube-apiserver without controllers. A failover is the time from `kill -9`
of the leader until its successor has made again a Service that was deleted in that moment; a hand-over is the same from
SIGTERM. Calls are those of each operator's /metrics, watches left out, while nothing happens.

    uv run python benchmarks/operator_failover.py --kills 20
"""

from __future__ import annotations

import argparse
import asyncio
import math
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import yaml

from fanfold_operator import kinds
from fanfold_operator.api import APPLY, Api, ApiError, login
from fanfold_operator.kinds import LEASE, Key

ROOT = Path(__file__).resolve().parents[1]
BINARY = ROOT / ".build" / "bin" / "fanfold-cluster"
NAMESPACE = "failover"
SERVICE = Key(kinds.SERVICE.kind, NAMESPACE, "demo-postgresql")
LOCK = Key(LEASE.kind, NAMESPACE, "fanfold-operator")
COMMAND = [sys.executable, "-c", "from fanfold_operator.cli import main; main()", "run", "--admin-port", "0"]
LIMIT_SECONDS = 60.0
SETTLE_SECONDS = 3.0
"""After a start: a watch that begins anew is followed by a listing, which is not to be measured as a repair."""


class Operator:
    """One process."""

    def __init__(self, kubeconfig: Path, log: Path) -> None:
        self._log = log
        environment = {**os.environ, "KUBECONFIG": str(kubeconfig), "FANFOLD_OPERATOR_LEASE_NAMESPACE": NAMESPACE}
        with log.open("wb") as output:
            command = [*COMMAND, "--namespace", NAMESPACE]
            self.process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)

    def port(self) -> str | None:
        found = re.search(r'"admin_port": (\d+)', self._log.read_text())
        return found.group(1) if found else None

    async def listens(self) -> bool:
        return self.port() is not None

    async def metrics(self) -> str:
        async with httpx.AsyncClient(trust_env=False) as client:
            return (await client.get(f"http://127.0.0.1:{self.port()}/metrics")).text

    async def leads(self) -> bool:
        return self.port() is not None and "fanfold_operator_leader 1.0" in await self.metrics()

    async def calls(self) -> float:
        return sum(
            float(one)
            for one in re.findall(r"^fanfold_operator_api_calls_total\{.*\} (\S+)$", await self.metrics(), re.MULTILINE)
        )

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


async def until(check: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    async with asyncio.timeout(LIMIT_SECONDS):
        while not (answer := await check()):  # noqa: ASYNC110 - another process is waited for
            await asyncio.sleep(0.01)
        return answer


@asynccontextmanager
async def cluster(folder: Path) -> AsyncIterator[tuple[Api, Path]]:
    command = [str(BINARY), "control-plane", "run", "--state", str(folder / "state")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:  # noqa: ASYNC220 - nothing else runs yet
        assert server.stdout is not None
        kubeconfig = Path((await asyncio.to_thread(server.stdout.readline)).strip().removeprefix("READY kubeconfig="))
        api = Api(await login(str(kubeconfig)))
        try:
            yield api, kubeconfig
        finally:
            await api.close()
            server.terminate()


async def put(api: Api, path: str, body: dict[str, Any]) -> None:
    await api._call("PATCH", path, body["kind"], {"fieldManager": "bench"}, body, APPLY)  # noqa: SLF001 - of kinds that the operator does not know


async def prepare(api: Api) -> None:
    for file in sorted((ROOT / "crds").glob("*.yaml")):
        body = yaml.safe_load(file.read_text())
        await put(api, f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{body['metadata']['name']}", body)
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    await put(api, f"/api/v1/namespaces/{NAMESPACE}", namespace)
    demo = {"apiVersion": "fanfold.dev/v1alpha1", "kind": "Platform", "metadata": {"name": "demo"}, "spec": {}}

    async def made() -> bool:
        try:
            await put(api, kinds.PLATFORM.path(NAMESPACE, "demo"), demo)
        except ApiError:
            return False
        return True

    await until(made)


async def lose_service(api: Api) -> Callable[[], Coroutine[Any, Any, Any]]:
    """Delete it; the check says whether it is back."""
    uid = (await api.get(SERVICE))["metadata"]["uid"]
    await api.delete(SERVICE, uid)

    async def back() -> bool:
        return await _uid(api) not in {None, uid}

    return back


async def _uid(api: Api) -> str | None:
    try:
        return str((await api.get(SERVICE))["metadata"]["uid"])
    except ApiError:
        return None


def show(name: str, seconds: list[float]) -> None:
    ordered = sorted(seconds)

    def at(share: float) -> float:
        return ordered[math.ceil(share * len(ordered)) - 1]

    print(f"{name:34} n={len(seconds):<3} p50 {at(0.5):6.2f} s  p99 {at(0.99):6.2f} s  max {ordered[-1]:6.2f} s")


async def measure(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with cluster(folder) as (api, kubeconfig):
            await prepare(api)
            started = 0

            def start() -> Operator:
                nonlocal started
                started += 1
                return Operator(kubeconfig, folder / f"{started}.log")

            leader, standby = start(), None
            try:
                await until(leader.leads)
                await until(lambda: _uid(api))
                for label, number, end in (("kill -9", options.kills, "kill"), ("SIGTERM", options.stops, "terminate")):
                    seconds = []
                    for _ in range(number):
                        standby = start()
                        await until(standby.listens)
                        await asyncio.sleep(SETTLE_SECONDS)
                        began = time.monotonic()
                        getattr(leader.process, end)()
                        back = await lose_service(api)
                        await until(back)
                        seconds.append(time.monotonic() - began)
                        await asyncio.to_thread(leader.process.wait)
                        leader, standby = standby, None
                    show(f"{label} until drift is repaired", seconds)
                repairs = []
                for _ in range(options.repairs):
                    began = time.monotonic()
                    await until(await lose_service(api))
                    repairs.append(time.monotonic() - began)
                show("a deleted child until it is back", repairs)
                standby = start()
                await until(standby.listens)
                await asyncio.sleep(SETTLE_SECONDS)
                before = [await one.calls() for one in (leader, standby)]
                await asyncio.sleep(options.quiet)
                after = [await one.calls() for one in (leader, standby)]
                for role, first, last in zip(("leader", "standby"), before, after, strict=True):
                    print(f"calls of the {role:20} {(last - first) * 3600 / options.quiet:7.0f} an hour")
            finally:
                for one in (leader, standby):
                    if one:
                        one.end()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="leaders killed (default 20)")
    parser.add_argument("--stops", type=int, default=10, help="leaders stopped (default 10)")
    parser.add_argument("--repairs", type=int, default=20, help="children deleted (default 20)")
    parser.add_argument("--quiet", type=float, default=30, help="seconds for which calls are counted (default 30)")
    options = parser.parse_args()
    if not BINARY.exists():
        parser.error(f"{BINARY} is missing: run cluster/build.sh")
    now = datetime.now(UTC).isoformat(timespec="seconds")
    print(f"{now}  {platform.machine()}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}")
    asyncio.run(measure(options))


if __name__ == "__main__":
    main()
