"""A run whose load comes from other machines: the master hands plans to workers, and adds up what they measured.

Workers call, the master answers: a worker needs to be reached by nobody. All of it is plain HTTP between pods of one
run: ``POST /join/N`` (202 until there is a plan), ``PUT /progress/N`` (the answer says whether to stop),
``PUT /share/N`` and ``PUT /failure/N``.
"""

from __future__ import annotations

import asyncio
import re
import time
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

import httpx
import msgspec

from fanfold_loadtest.arrivals import DRAIN_SECONDS
from fanfold_loadtest.plan import Plan, Progress
from fanfold_loadtest.recording import Share
from fanfold_loadtest.runner import POLL_SECONDS, START_SECONDS, RunError, apply_load

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fanfold_loadtest.ports import Answer

JOIN_SECONDS: Final = 300.0
"""For all workers to come once the master has prepared everything: their pods may still be waiting for a node."""
SILENT_SECONDS: Final = 30.0
"""A worker that is not heard of for so long is gone; a master too."""
GONE_SECONDS: Final = 900.0
"""A worker may be there long before its master: images are pulled meanwhile."""
_PATH: Final = re.compile(r"/(join|progress|share|failure)/(\d+)")


class Crew:
    """The master's side. `handle` is called by threads of the port, the rest by the run's event loop."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._heard: dict[int, float] = {}
        self._plans: dict[int, bytes] = {}
        self._progress: dict[int, Progress] = {}
        self._shares: dict[int, Share] = {}
        self._failures: dict[int, str] = {}
        self._stopping = False

    def handle(self, method: str, path: str, body: bytes) -> Answer:
        """One request of a worker."""
        found = _PATH.fullmatch(path)
        if found is None or method not in {"POST", "PUT"} or int(found[2]) >= self._workers:
            return 404, b""
        index = int(found[2])
        self._heard[index] = time.monotonic()
        if found[1] == "join":
            plan = self._plans.get(index)
            return (200, plan) if plan else (202, b"")
        if found[1] == "progress":
            self._progress[index] = msgspec.json.decode(body, type=Progress)
            return 200, msgspec.json.encode(self._stopping)
        if found[1] == "share":
            self._shares[index] = msgspec.json.decode(body, type=Share)
        else:
            self._failures[index] = body.decode(errors="replace")
        return 204, b""

    async def ready(self, stop: asyncio.Event) -> None:
        """Return when every worker has come, or when `stop` is set.

        Raises:
            RunError: Some did not come.
        """
        until = time.monotonic() + JOIN_SECONDS
        while len(self._heard) < self._workers and not stop.is_set():
            if time.monotonic() > until:
                there = ", ".join(map(str, sorted(self._heard))) or "none"
                raise RunError(f"{len(self._heard)} of {self._workers} workers came within {JOIN_SECONDS:g} s: {there}")
            await asyncio.sleep(POLL_SECONDS)

    async def apply(
        self, parts: Sequence[Plan], show: Callable[[Sequence[Progress], float], None], stop: asyncio.Event
    ) -> list[Share]:
        """Have each worker do one plan; what each measured.

        Raises:
            RunError: One failed, or is not heard of any more.
        """
        self._plans = {plan.index: msgspec.json.encode(plan) for plan in parts}
        begin_at, seconds = parts[0].begin_at, parts[0].scenario.seconds
        until = begin_at + seconds + DRAIN_SECONDS + START_SECONDS
        while len(self._shares) < self._workers:
            self._stopping = stop.is_set()
            self._fail_if_lost(until)
            show([self._progress[index] for index in sorted(self._progress)], max(0.0, time.time() - begin_at))
            await asyncio.sleep(POLL_SECONDS)
        return [self._shares[index] for index in range(self._workers)]

    def _fail_if_lost(self, until: float) -> None:
        for index, why in self._failures.items():
            raise RunError(f"worker {index}: {why}")
        now = time.monotonic()
        silent = [n for n, at in self._heard.items() if n not in self._shares and now - at > SILENT_SECONDS]
        if silent:
            raise RunError(f"worker {silent[0]} has not been heard of for {SILENT_SECONDS:g} s: is its pod gone?")
        if time.time() > until:
            missing = [str(n) for n in range(self._workers) if n not in self._shares]
            raise RunError(f"worker {', '.join(missing)} did not end in time")


async def work(master: str, index: int, url: str, stop: asyncio.Event) -> None:
    """Be worker `index`: fetch a plan, send its load to the gateway at `url`, hand over what was measured.

    Raises:
        RunError: Locust failed, or the master is gone.
    """
    async with httpx.AsyncClient(base_url=master, timeout=5, trust_env=False) as client:
        plan = await _plan(client, index, stop)
        latest: list[Progress] = []

        def show(progress: Sequence[Progress], _: float) -> None:
            latest[:] = progress

        telling = asyncio.create_task(_tell(client, index, latest, stop))
        try:
            with TemporaryDirectory(prefix="fanfold-loadtest-") as folder:
                (share,), _ = await apply_load([plan], url, Path(folder), show, stop)
        except RunError as error:
            await _put(client, f"/failure/{index}", str(error).encode())
            raise
        finally:
            telling.cancel()
            with suppress(asyncio.CancelledError):
                await telling
        await _put(client, f"/share/{index}", msgspec.json.encode(share))


async def _plan(client: httpx.AsyncClient, index: int, stop: asyncio.Event) -> Plan:
    until = time.monotonic() + GONE_SECONDS
    while not stop.is_set():
        try:
            answer = await client.post(f"/join/{index}")
            if answer.status_code == httpx.codes.OK:
                return msgspec.json.decode(answer.content, type=Plan)
            until = time.monotonic() + GONE_SECONDS
        except httpx.TransportError as error:
            if time.monotonic() > until:
                raise RunError(f"no master at {client.base_url} for {GONE_SECONDS:g} s: {error}") from error
        await asyncio.sleep(POLL_SECONDS)
    raise RunError("ended before there was anything to do")


async def _tell(client: httpx.AsyncClient, index: int, latest: Sequence[Progress], stop: asyncio.Event) -> None:
    """Tell how it goes until cancelled; a master that is gone, or says so, ends the load."""
    heard = time.monotonic()
    while True:
        body = latest[0] if latest else Progress("", 0, 0, 0.0, 0.0)
        try:
            answer = await client.put(f"/progress/{index}", content=msgspec.json.encode(body))
            heard = time.monotonic()
            if answer.json():
                stop.set()
        except httpx.TransportError:
            if time.monotonic() - heard > SILENT_SECONDS:
                stop.set()
        await asyncio.sleep(POLL_SECONDS)


async def _put(client: httpx.AsyncClient, path: str, content: bytes) -> None:
    """Hand it over; the master may be busy.

    Raises:
        RunError: It does not take it.
    """
    for attempt in range(5):
        with suppress(httpx.TransportError):
            if (await client.put(path, content=content)).is_success:
                return
        await asyncio.sleep(attempt)
    raise RunError(f"the master does not take {path}")
