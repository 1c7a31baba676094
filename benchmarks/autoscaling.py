"""Autoscaling seen live: load comes and replicas follow, load goes and they go, for a service and for a worker.

`profile` is loaded with reads until its HorizontalPodAutoscaler adds replicas; then photos are uploaded until the
operator adds image-workers for the backlog. Both are then left alone until they are back at one replica. Every two
seconds a line of load, backlog and replicas is recorded; the reaction times come from the record. The windows of
scaling in are shortened in the Platform (`autoscaling.scaleDownWindowSeconds`, a field for users) and given back.

Needs a running platform: make up, then

    uv run python -m benchmarks.autoscaling --out .build/reports/autoscaling.json
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import json
import re
import secrets
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import httpx
from PIL import Image

from tools.local.clusters import Kubectl, choose
from tools.local.up import NAMESPACE, PLATFORM, gateway_url
from tools.progress import StageError

SERVICE, WORKER = "profile", "image-worker"
WINDOW_SECONDS = 20
SAMPLE_SECONDS = 2.0
PHOTOS = 100
"""Uploaded at most: a backlog of many targets, and yet one that a slow machine has worked off within the limits."""
BACKLOG = re.compile(r'^fanfold_backlog_messages\{group="image-worker"\} (\S+)$', re.MULTILINE)
MANAGER = "autoscaling-benchmark"


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds each phase may take."""

    out: float = 150
    into: float = 210


@dataclass(slots=True)
class Sample:
    """One moment. Replicas are those asked for and those ready."""

    seconds: float
    reads: float
    photos: float
    cpu_millicores: int
    backlog: int | None
    service: int
    service_ready: int
    worker: int
    worker_ready: int


@dataclass(slots=True)
class Record:
    """Samples, and when load began and ended, in seconds of the same clock."""

    samples: list[Sample] = field(default_factory=list)
    marks: dict[str, float] = field(default_factory=dict)

    def reactions(self) -> dict[str, float]:
        """Seconds from each change of load to each change of replicas that it led to."""
        found = {}
        for what, load in (("service", "reads"), ("worker", "photos")):
            begin, end = self.marks[f"{load} begin"], self.marks[f"{load} end"]
            least = min(getattr(one, what) for one in self.samples)
            peak = max(getattr(one, what) for one in self.samples)
            found[f"{what}: load -> first replica asked for"] = (
                self._first(begin, lambda s, w=what: getattr(s, w) > 1) - begin
            )
            ready = self._first(begin, lambda s, w=what: getattr(s, f"{w}_ready") > 1)
            found[f"{what}: load -> first replica ready"] = ready - begin
            full = self._first(begin, lambda s, w=what, p=peak: getattr(s, w) == p)
            found[f"{what}: calm -> first replica given up"] = (
                self._first(max(end, full), lambda s, w=what, p=peak: getattr(s, w) < p) - end
            )
            found[f"{what}: calm -> back at {least}"] = (
                self._first(end, lambda s, w=what, low=least: getattr(s, w) == low) - end
            )
        return found

    def _first(self, after: float, matches: Any) -> float:
        return next((one.seconds for one in self.samples if one.seconds >= after and matches(one)), float("nan"))


class Platform:
    """What is looked at and changed on the cluster."""

    def __init__(self, kubectl: Kubectl) -> None:
        self.kubectl = kubectl

    def size(self, services: dict[str, Any]) -> None:
        """Declare sizes as one field manager; an empty declaration gives all of them back."""
        spec: dict[str, Any] = {"services": services} if services else {}
        body = {"apiVersion": "fanfold.dev/v1alpha1", "kind": "Platform", "metadata": {"name": PLATFORM}, "spec": spec}
        path = Path(f".build/{MANAGER}.json")
        path.write_text(json.dumps(body))
        options = ["--server-side", f"--field-manager={MANAGER}", "--force-conflicts"]
        self.kubectl.run("apply", *options, "--filename", path)

    def replicas(self, component: str) -> tuple[int, int]:
        one: Any = self.kubectl.get("platformservice", f"{PLATFORM}-{component}")
        return one["spec"]["replicas"], int(one.get("status", {}).get("ready", "0/0").partition("/")[0])

    def cpu(self, component: str) -> int:
        """Mean millicores as the autoscaler sees them; 0 before it has seen any."""
        one: Any = self.kubectl.get("horizontalpodautoscaler", f"{PLATFORM}-{component}")
        for metric in one.get("status", {}).get("currentMetrics") or ():
            value = str(metric["resource"]["current"].get("averageValue", "0"))
            return int(value.removesuffix("m")) if value.endswith("m") else int(float(value) * 1000)
        return 0

    def backlog(self, component: str) -> int | None:
        """Messages that wait for the workers, as a pod of them tells; None if none does."""
        label = f"--selector=fanfold.dev/platform={PLATFORM},fanfold.dev/service={component}"
        pods: Any = self.kubectl.get("pods", label, "--field-selector=status.phase=Running")
        found = None
        for pod in pods["items"]:
            path = f"/api/v1/namespaces/{NAMESPACE}/pods/{pod['metadata']['name']}:9000/proxy/metrics"
            with contextlib.suppress(StageError):  # it has just gone
                found = BACKLOG.search(self.kubectl.run("get", "--raw", path))
            if found:
                return int(float(found.group(1)))
        return None


class Load:
    """Clients of the gateway. `reads` and `photos` are how many work at once; their rates are measured."""

    def __init__(self, client: httpx.AsyncClient, token: str, photo: bytes) -> None:
        self._client = client
        self._headers = {"Authorization": f"Bearer {token}"}
        self._photo = photo
        self._photos_left = PHOTOS
        self._done = {"reads": 0, "photos": 0}
        self._since = time.monotonic()

    def rates(self) -> dict[str, float]:
        """Answers a second of each kind since the last call."""
        now = time.monotonic()
        rates = {name: count / max(now - self._since, 1e-9) for name, count in self._done.items()}
        self._done, self._since = dict.fromkeys(self._done, 0), now
        return rates

    async def reads(self) -> None:
        while True:
            await self._call("reads", self._client.get("/v1/users/me", headers=self._headers))

    async def photos(self) -> None:
        while self._photos_left > 0:
            self._photos_left -= 1
            # Each is another file: equal ones are made into variants once.
            content = self._photo + secrets.token_bytes(16)
            files = {"file": ("photo.jpg", content, "image/jpeg")}
            await self._call("photos", self._client.post("/v1/images", files=files, headers=self._headers))

    async def _call(self, kind: str, request: Any) -> None:
        try:
            answer = await request
        except httpx.HTTPError:
            await asyncio.sleep(0.2)
            return
        if answer.status_code < 300:
            self._done[kind] += 1
        else:
            await asyncio.sleep(0.2)


async def sign_up(client: httpx.AsyncClient, seconds: float = 60) -> str:
    """An access token of a new user, as soon as the gateway serves.

    Raises:
        httpx.HTTPError: It did not within `seconds`.
    """
    deadline = time.monotonic() + seconds
    while True:
        account = {"username": f"scale_{secrets.token_hex(6)}", "password": secrets.token_urlsafe(16)}
        try:
            (await client.post("/v1/accounts", json=account)).raise_for_status()
            answer = (await client.post("/v1/sessions", json=account)).raise_for_status()
        except httpx.HTTPError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(1)
        else:
            return str(answer.json()["access_token"])


def photo(width: int = 1600, height: int = 1200) -> bytes:
    """A JPEG with as much detail as a photo."""
    noise = Image.effect_noise((width // 8, height // 8), 60).resize((width, height), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    noise.convert("RGB").save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


class Experiment:
    """Load on a platform, and the record of what follows."""

    def __init__(self, platform: Platform, load: Load, limits: Limits) -> None:
        self._platform = platform
        self._load = load
        self._limits = limits
        self._started = time.monotonic()
        self.record = Record()

    def _now(self) -> float:
        return round(time.monotonic() - self._started, 1)

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Record for the time of the block, which fails if that fails."""
        async with asyncio.TaskGroup() as group:
            task = group.create_task(self.watch())
            yield
            task.cancel()

    async def watch(self) -> None:
        """A sample every two seconds, as far as kubectl is fast enough."""
        platform = self._platform
        while True:
            begun = time.monotonic()
            service, worker, cpu, backlog = await asyncio.gather(
                asyncio.to_thread(platform.replicas, SERVICE),
                asyncio.to_thread(platform.replicas, WORKER),
                asyncio.to_thread(platform.cpu, SERVICE),
                asyncio.to_thread(platform.backlog, WORKER),
            )
            rates = self._load.rates()
            reads, photos = round(rates["reads"], 1), round(rates["photos"], 2)
            self.record.samples.append(Sample(self._now(), reads, photos, cpu, backlog, *service, *worker))
            print(
                f"{self._now():6.1f} s  reads {reads:6.1f}/s  cpu {cpu:4d} m  {SERVICE} {service[1]}/{service[0]}   "
                f"photos {photos:5.2f}/s  backlog {backlog!s:>4}  {WORKER} {worker[1]}/{worker[0]}",
                flush=True,
            )
            await asyncio.sleep(max(0.0, SAMPLE_SECONDS - (time.monotonic() - begun)))

    async def until(self, matches: Any, seconds: float, what: str) -> None:
        """Wait for a sample that matches.

        Raises:
            TimeoutError: None came in time; the message says for what.
        """
        deadline = time.monotonic() + seconds
        while not (self.record.samples and matches(self.record.samples[-1])):
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited {seconds:.0f} s in vain for: {what}")
            await asyncio.sleep(0.5)

    async def burst(self, name: str, clients: int, grown: Any) -> None:
        """Load of one kind until replicas have grown and are ready."""
        print(f"--- {name}: load", flush=True)
        self.record.marks[f"{name} begin"] = self._now()
        tasks = [asyncio.create_task(getattr(self._load, name)()) for _ in range(clients)]
        try:
            await self.until(grown, self._limits.out, f"replicas under load of {name}")
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self.record.marks[f"{name} end"] = self._now()
            print(f"--- {name}: calm", flush=True)

    async def rest(self) -> None:
        """Wait until both are at one replica."""
        await self.until(lambda s: (s.service, s.worker) == (1, 1), self._limits.into, "one replica of each in calm")


async def run(kubectl: Kubectl, url: str, limits: Limits | None = None) -> Record:
    """Load, then calm, for both.

    Raises:
        TimeoutError: Replicas did not follow in time.
    """
    platform = Platform(kubectl)
    behaviour = {"scaleDownWindowSeconds": WINDOW_SECONDS}
    async with AsyncExitStack() as stack:
        stack.callback(platform.size, {})
        platform.size({
            SERVICE: {"replicas": {"min": 1, "max": 3}, "targetCPUPercent": 10, "autoscaling": behaviour},
            WORKER: {
                "replicas": {"min": 1, "max": 3},
                "autoscaling": behaviour | {"targetLag": 4, "targetAgeSeconds": 10},
            },
        })  # fmt: skip
        pool = httpx.Limits(max_connections=64)
        client = await stack.enter_async_context(
            httpx.AsyncClient(base_url=url, timeout=30, limits=pool, trust_env=False)
        )
        experiment = Experiment(platform, Load(client, await sign_up(client), photo()), limits or Limits())
        await stack.enter_async_context(experiment.watching())
        await experiment.rest()
        await experiment.burst("reads", 16, lambda s: s.service_ready > 1)
        await experiment.burst("photos", 8, lambda s: s.worker_ready > 1)
        await experiment.rest()
    return experiment.record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="file for the record, JSON")
    arguments = parser.parse_args()
    cluster = choose()
    kubectl = Kubectl(cluster.environment(), NAMESPACE)
    try:
        record = asyncio.run(run(kubectl, gateway_url(kubectl)))
    except TimeoutError as error:
        sys.exit(f"autoscaling: {error}")
    print()
    for what, seconds in record.reactions().items():
        print(f"{what:48} {seconds:6.1f} s")
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(asdict(record) | {"reactions": record.reactions()}, indent=1))


if __name__ == "__main__":
    main()
