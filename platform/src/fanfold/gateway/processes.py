"""Several gateway processes on one traffic port, one a core (SO_REUSEPORT), behind one admin port.

The first process serves nobody: it starts the others, starts again what ends, and answers the admin port for all.
Ready is who has all processes ready; the snapshot told is the oldest that any of them uses; metrics are everybody's,
told apart by the label ``process``.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from contextlib import suppress
from functools import partial
from http.client import HTTPConnection, HTTPException
from typing import TYPE_CHECKING, Any, Final

import httpx
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from fanfold.kit.logging import get_logger
from fanfold.kit.settings import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from prometheus_client.core import Metric

    from fanfold.gateway.settings import GatewaySettings
    from fanfold.kit.runtime import Runtime

log = get_logger(__name__)

ANSWER_SECONDS: Final = 1.0
RESTART_SECONDS: Final = 1.0
LOOK_SECONDS: Final = 0.1
_LOOPBACK: Final = "127.0.0.1"
_OPENMETRICS: Final = {"accept": "application/openmetrics-text; version=1.0.0"}


class Child:
    """One serving process, started again whenever it ends."""

    def __init__(self, number: int, settings: GatewaySettings) -> None:
        self.number = number
        self._settings = settings
        self._process: asyncio.subprocess.Process | None = None
        self._port = 0
        self._stopping = False

    @property
    def admin(self) -> str:
        """Base URL of its admin port."""
        return f"http://{_LOOPBACK}:{self._port}"

    def metrics(self) -> str:
        """Its metrics, as OpenMetrics.

        Raises:
            OSError: It does not answer.
        """
        connection = HTTPConnection(_LOOPBACK, self._port, timeout=ANSWER_SECONDS)
        try:
            connection.request("GET", "/metrics", headers=_OPENMETRICS)
            return connection.getresponse().read().decode()
        except HTTPException as error:
            raise OSError(str(error) or type(error).__name__) from error
        finally:
            connection.close()

    async def keep(self) -> None:
        """Run it until `stop`."""
        while not self._stopping:
            self._port = _free_port()
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "fanfold", "run", "gateway", env=self._environment()
            )
            code = await self._process.wait()
            if not self._stopping:
                log.error("process_ended", process=self.number, code=code)
                await asyncio.sleep(RESTART_SECONDS)

    def stop(self) -> None:
        """Ask it to drain and end."""
        self._stopping = True
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGTERM)

    async def ended(self) -> None:
        """Until it has."""
        if self._process is not None:
            await self._process.wait()

    def _environment(self) -> dict[str, str]:
        cache = self._settings.snapshot_cache
        own = {
            "FANFOLD_PROCESSES": "1",
            "FANFOLD_PARENT": str(os.getpid()),
            "FANFOLD_REUSE_PORT": "true",
            "FANFOLD_INSTANCE": f"{self._settings.instance}/{self.number}",
            "FANFOLD_ADMIN_HOST": _LOOPBACK,
            "FANFOLD_ADMIN_PORT": str(self._port),
        }
        if cache is not None:
            own["FANFOLD_SNAPSHOT_CACHE"] = str(cache / str(self.number))
        return {**os.environ, **own}


class Processes:
    """All of them."""

    def __init__(self, settings: GatewaySettings) -> None:
        self.children = [Child(number, settings) for number in range(settings.processes)]
        self._client = httpx.AsyncClient(timeout=ANSWER_SECONDS)

    async def run(self) -> None:
        """Keep all running, until `stop`."""
        async with asyncio.TaskGroup() as group:
            for child in self.children:
                group.create_task(child.keep())

    async def stop(self) -> None:
        """End all, and wait for it."""
        for child in self.children:
            child.stop()
        await asyncio.gather(*(child.ended() for child in self.children))

    async def require_ready(self, child: Child) -> None:
        """Whether one process can serve.

        Raises:
            LookupError: It cannot, and why.
        """
        try:
            answer = await self._client.get(f"{child.admin}/readyz")
        except httpx.HTTPError as error:
            raise LookupError("it does not answer") from error
        if answer.status_code != httpx.codes.OK:
            raise LookupError(answer.text)

    async def snapshot(self) -> dict[str, Any]:
        """What the process with the oldest snapshot says; one that does not answer has none."""
        return oldest(await asyncio.gather(*(self._snapshot(child) for child in self.children)))

    async def close(self) -> None:
        """Close connections."""
        await self._client.aclose()

    async def _snapshot(self, child: Child) -> dict[str, Any]:
        try:
            said: dict[str, Any] = (await self._client.get(f"{child.admin}/snapshot")).json()
        except (httpx.HTTPError, ValueError):
            return {"epoch": None, "checksum": None, "age_seconds": None, "source": None, "held_back": None}
        return said


class ChildMetrics(Collector):
    """The metrics of all processes, each sample labelled with its process.

    They are fetched in place: the process that answers for the others has nothing else to do.
    """

    def __init__(self, children: Sequence[Child]) -> None:
        self._children = children

    def collect(self) -> Iterator[Metric]:
        """All families, merged by name. A process that does not answer is left out."""
        families: dict[str, Metric] = {}
        for child in self._children:
            try:
                text = child.metrics()
            except OSError as error:
                log.warning("process_without_metrics", process=child.number, error=str(error))
                continue
            merge(families, text, child.number)
        yield from families.values()


def merge(families: dict[str, Metric], text: str, number: int) -> None:
    """Add one process's metrics (OpenMetrics text) to those of others."""
    for family in text_string_to_metric_families(text):  # type: ignore[no-untyped-call]
        labelled = [
            Sample(one.name, {**one.labels, "process": str(number)}, one.value, one.timestamp, one.exemplar)
            for one in family.samples
        ]
        known = families.setdefault(family.name, family)
        known.samples = labelled if known is family else known.samples + labelled


def oldest(said: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The answer of whoever is behind; none at all is before the first epoch."""
    return min(said, key=lambda one: -1 if one["epoch"] is None else one["epoch"])


async def build_parent(runtime: Runtime[GatewaySettings]) -> None:
    """Start the processes and answer the admin port for them.

    Raises:
        SettingsError: No port that processes could share.
    """
    settings = runtime.settings
    if not settings.traffic_port:
        raise SettingsError("FANFOLD_PROCESSES needs a FANFOLD_TRAFFIC_PORT: processes cannot share a random one")
    processes = Processes(settings)
    runtime.registry = CollectorRegistry()
    runtime.registry.register(ChildMetrics(processes.children))
    for child in processes.children:
        runtime.check(f"process {child.number}", partial(processes.require_ready, child))
    runtime.admin.get("/snapshot")(processes.snapshot)

    async def run() -> None:
        """Keep them; when the runtime begins to drain, so do they."""
        keeping = asyncio.create_task(processes.run())
        try:
            while not runtime.draining:
                await asyncio.sleep(LOOK_SECONDS)
                if keeping.done():
                    keeping.result()
            for child in processes.children:
                child.stop()
            await keeping
        finally:
            keeping.cancel()

    runtime.background("processes", run)
    runtime.on_drain(processes.stop)
    runtime.on_close(processes.close)


async def follow(parent: int) -> None:
    """Return when the process that started this one is gone: nobody would end it any more."""
    while os.getppid() == parent:  # noqa: ASYNC110 - nobody tells of it
        await asyncio.sleep(1)
    log.error("parent_gone", parent=parent)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port
