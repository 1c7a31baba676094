"""Members come, go, restart and crash behind the gateway while an open model keeps asking: what clients notice.

    uv run python benchmarks/churn.py

Every answer names its slot and its user, so that keys that moved are counted, not computed. Members leave as pods do:
the snapshot first, then, once the gateway has acknowledged it, SIGTERM. The crash is kill -9 without a word; another
pod takes the slot two seconds later.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import httpx
import uvloop
from common import slot
from common.house import Component, House, get
from common.load import Load, Outcome
from common.processes import PYTHON, Workshop, listens
from common.results import save, say

from fanfold.contracts.ids import new_id
from fanfold.contracts.snapshot import Slot
from fanfold.dev.process import ChildProcess, free_ports

MEMBERS: Final = 5
USERS: Final = 400
MILLISECONDS: Final = 3.0
AT_ONCE: Final = 64
ADDED: Final = f"feed-{MEMBERS}"
CRASHED: Final = "feed-0"
ABSENT_SECONDS: Final = 2.0
"""From a crash to the replacement."""
_SEEN: Final = re.compile(rb"\r\nx-slot: ([^\r]+)\r\n(?:.*\r\n)*?x-request-id: user-([0-9]+)\r\n")


class Churn:
    """The members, and what was done to them when. All processes are started beforehand: only their news is churn."""

    def __init__(self, shop: Workshop, seconds: float) -> None:
        self._shop = shop
        self._seconds = seconds
        self._started = 0
        self._house = House(shop)
        self._house.start_valkey()
        names = [f"feed-{number}" for number in range(MEMBERS)]
        self._members = {name: self._start(name) for name in names}
        self._spares = {name: [self._start(name)] for name in [*names, ADDED]}
        self._spares[CRASHED].append(self._start(CRASHED))
        self._locate()
        self._gateway: Component = self._house.start("gateway")
        # Made here: the trust store that each new client reads would hold up the load.
        self._client = httpx.AsyncClient(verify=False)
        self.places: list[tuple[float, int, bytes]] = []
        """(monotonic time, user, slot) of each answer."""
        self.phases: list[tuple[str, float, float]] = []
        self.requests = [
            get("/v1/feed", self._house.token(new_id()), more=f"X-Request-Id: user-{number:06}\r\n")
            for number in range(USERS)
        ]

    @property
    def port(self) -> int:
        """The gateway's."""
        return self._gateway.port

    def observe(self, head: bytes) -> None:
        """Note who was answered by whom."""
        found = _SEEN.search(head)
        if found is not None:
            self.places.append((time.perf_counter(), int(found[2]), found[1]))

    async def go_on(self) -> None:
        """All that happens, one thing after another, with the same time to settle after each."""
        await self._phase("steady", self._nothing)
        await self._phase("member added", self._add)
        await self._phase("member removed", self._remove)
        await self._phase("rolling restart", self._roll)
        await self._phase("crash, slot replaced", self._crash)

    async def _phase(self, name: str, act: Callable[[], Awaitable[None]]) -> None:
        began = time.perf_counter()
        await act()
        await asyncio.sleep(max(0.0, began + self._seconds - time.perf_counter()))
        self.phases.append((name, began, time.perf_counter()))
        say(name)

    async def _nothing(self) -> None:
        """The time before anything happens."""

    async def _add(self) -> None:
        self._replace(ADDED)
        await self._tell()

    async def _remove(self) -> None:
        process, _ = self._members.pop(ADDED)
        await self._tell()
        process.ask_to_stop()

    async def _roll(self) -> None:
        for name in list(self._members):
            process, _ = self._members[name]
            self._replace(name)
            await self._tell()
            process.ask_to_stop()

    async def _crash(self) -> None:
        process, _ = self._members[CRASHED]
        process.kill()
        await asyncio.sleep(ABSENT_SECONDS)
        self._replace(CRASHED)
        await self._tell()

    def _start(self, name: str) -> tuple[ChildProcess, int]:
        (port,) = free_ports(1)
        self._started += 1
        command = [PYTHON, str(slot.__file__), name, str(port), str(MILLISECONDS), str(AT_ONCE)]
        return self._shop.start(f"{name}.{self._started}", command, ready=listens(port)), port

    def _replace(self, name: str) -> None:
        self._members[name] = self._spares[name].pop()

    def _locate(self) -> int:
        slots = [Slot(name, f"127.0.0.1:{port}") for name, (_, port) in self._members.items()]
        return self._house.locate({"feed": slots})

    async def _tell(self) -> None:
        """Write the snapshot and wait for the gateway's acknowledgement."""
        epoch = self._locate()
        async with asyncio.timeout(20):
            while True:
                answer = await self._client.get(f"http://127.0.0.1:{self._gateway.admin}/snapshot")
                if answer.is_success and answer.json()["epoch"] >= epoch:
                    return
                await asyncio.sleep(0.02)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=500, help="requests a second (default 500)")
    parser.add_argument("--seconds", type=float, default=8, help="of each phase (default 8)")
    options = parser.parse_args()
    with Workshop() as shop:
        churn = Churn(shop, options.seconds)
        outcome, began = uvloop.run(run(churn, options.rate, 5 * options.seconds))
    rows = [row(churn, outcome, began, number) for number in range(len(churn.phases))]
    figures = {
        "rate": options.rate,
        "requests": len(outcome.latencies) + outcome.statuses[-1],
        "errors": outcome.errors,
        "phases": rows,
    }
    notes = [
        f"{MEMBERS} slots of {MILLISECONDS:.0f} ms, {USERS} users, {options.rate:.0f} GETs a second (Poisson).",
        f"A crash is kill -9 without a word; another pod takes the slot {ABSENT_SECONDS:.0f} s later.",
        "Moved: users whose last answer of a phase is another slot's than their last of the phase before.",
    ]
    for one in rows:
        say(", ".join(f"{key} {value}" for key, value in one.items()))
    say(f"{figures['errors']} errors in {figures['requests']} requests: {dict(outcome.statuses)}")
    say(str(save("churn", figures, notes=notes)))


async def run(churn: Churn, rate: float, seconds: float) -> tuple[Outcome, float]:
    """The load, and what happens under it; when it began (monotonic seconds)."""
    load = Load(churn.port, churn.requests, connections=128, observe=churn.observe)
    warming = Load(churn.port, churn.requests, connections=8)
    await warming.open(rate, 2)
    whole = asyncio.create_task(load.open(rate, seconds + 1))
    while not load.began:  # noqa: ASYNC110 - for milliseconds, once
        await asyncio.sleep(0.01)
    await churn.go_on()
    return await whole, load.began


def row(churn: Churn, outcome: Outcome, began: float, number: int) -> dict[str, Any]:
    """What one phase was like for clients."""
    name, start, end = churn.phases[number]
    latencies = sorted(
        latency
        for latency, finished in zip(outcome.latencies, outcome.finished, strict=True)
        if start <= began + finished < end
    )
    return {
        "phase": name,
        "requests": len(latencies),
        "p50_ms": 1000 * latencies[len(latencies) // 2],
        "p99_ms": 1000 * latencies[int(len(latencies) * 0.99)],
        "max_ms": 1000 * latencies[-1],
        "moved": moved(churn, number),
    }


def moved(churn: Churn, number: int) -> float:
    """Share of users that a phase left elsewhere than it found them."""
    if number == 0:
        return 0.0
    _, start, end = churn.phases[number]
    before = {user: place for when, user, place in churn.places if when < start}
    after = {user: place for when, user, place in churn.places if start <= when < end}
    both = before.keys() & after.keys()
    return sum(before[user] != after[user] for user in both) / len(both)


if __name__ == "__main__":
    main()
