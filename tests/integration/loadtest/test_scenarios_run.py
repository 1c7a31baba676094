"""Scenarios that come along, run to their end in a small size through a real gateway and all services."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path
from resource import getpagesize
from typing import Any

import msgspec
import pytest
import yaml
from prometheus_client import REGISTRY

from fanfold.dev.process import free_ports
from fanfold_loadtest import journey, verdict
from fanfold_loadtest.conclusion import conclude
from fanfold_loadtest.facts import FactsError, required
from fanfold_loadtest.results import Document
from fanfold_loadtest.runner import SYNC_SECONDS, Local, Run, perform
from fanfold_loadtest.scenario import Capacity, Errors, Latency, Leak, Scenario, load, scaled
from fanfold_loadtest.schedule import begins
from tests.integration.prometheus import start_prometheus

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

PEOPLE = 8
BUSY = 40
"""Times what an objective allows, for a machine that does other things as well."""
SHED = 20.0
"""Percent of the requests that such a machine may refuse."""
POOLED = 500.0
"""Connections that the pools of all components open in the first seconds, as they come to need them: no leak."""
LIMIT = 60.0
"""Requests a second that the gateway takes from one address: what breaks first."""


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journey, "UPLOADS", 6)
    monkeypatch.setattr(journey, "POSTS", 12)
    # All services share this machine's cores with the generator, and other tests: that starts are late is no wonder.
    monkeypatch.setattr(verdict, "MAX_LATE_PERCENT", 100.0)
    monkeypatch.setattr(verdict, "MAX_CPU_PERCENT", 1_000.0)


def small(name: str, *, rate: float, time: float, people: int = PEOPLE) -> Scenario:
    """One that comes along, in another size; latencies may be those of a busy machine."""
    wanted = load(name)
    wanted = scaled(wanted, rate, time, people / wanted.people)

    def patient(slo: Any) -> Any:
        if isinstance(slo, Capacity):
            return msgspec.structs.replace(slo, holding=[*map(patient, slo.holding[:1]), *slo.holding[1:]])
        if isinstance(slo, Errors):
            return msgspec.structs.replace(slo, at_most_percent=SHED)
        if isinstance(slo, Leak) and slo.of == "open-files":
            return msgspec.structs.replace(slo, beyond=POOLED)
        return msgspec.structs.replace(slo, at_most_ms=slo.at_most_ms * BUSY) if isinstance(slo, Latency) else slo

    return msgspec.structs.replace(wanted, slos=[patient(slo) for slo in wanted.slos])


async def run(
    scenario: Scenario,
    url: str,
    *,
    prometheus: str = "",
    populated: Callable[[], Awaitable[None]] | None = None,
) -> Document:
    """Do it in one process, and judge it; `populated` is called when people and posts are there."""

    class Generators(Local):
        async def ready(self, stop: asyncio.Event) -> None:
            await super().ready(stop)
            if populated:
                await populated()

    async with asyncio.timeout(200):
        done: Run = await perform(
            scenario,
            url,
            processes=1,
            seed=1,
            tell=lambda _: None,
            show=lambda *_: None,
            generators=Generators(url),
        )
    content, _, trouble = await asyncio.to_thread(conclude, done, prometheus, "")
    assert trouble == ""
    return content


def answered(content: Document, request: str) -> int:
    return sum(row.requests for row in content.figures if row.request == request)


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gateway that takes no more than `LIMIT` from one address; so the preparation takes its time."""
    monkeypatch.setenv("FANFOLD_ADDRESS_RATE", str(LIMIT))
    monkeypatch.setenv("FANFOLD_ADDRESS_BURST", "60")


async def test_breakpoint_ends_at_the_rate_that_breaks_an_objective_and_tells_the_one_before(
    narrow: None, platform: str, house: Any
) -> None:
    await house.start("image-worker", image_processes=1)
    content = await run(small("breakpoint", rate=0.2, time=4 / 15), platform)
    (capacity,) = content.objectives
    found = re.match(r"(\d+)/s held; at (\d+)/s failed of all requests at most 1 %: ", capacity.measured)
    assert found, content
    # 40 a second are less than the gateway takes from one address, but when it stands still for a while: 80 never are.
    held, broke = map(int, found.groups())
    assert broke == 2 * held <= 80
    assert (capacity.held, content.verdict, content.interrupted) == (False, "failed", False)  # at_least is 100
    ended = next(phase.name for phase in content.scenario.phases if phase.measured and phase.rate == broke)
    assert [row.phase for row in content.figures][-1] == ended, "what came after it is not told"
    assert content.share.marks[-1].what.startswith("no further: failed of all requests at most 1 %: ")


def pages_read(outcome: str) -> float:
    return REGISTRY.get_sample_value("fanfold_feed_reads_total", {"outcome": outcome}) or 0.0


async def test_a_thundering_herd_meets_feeds_that_are_not_there_and_has_each_made_once(
    platform: str, house: Any
) -> None:
    await house.start("image-worker", image_processes=1)
    before: dict[str, float] = {}

    async def look() -> None:
        found = [key async for key in house.redis.scan_iter(match="feed:*", count=1000)]
        assert found == [], "a feed is there before its reader"
        before.update({outcome: pages_read(outcome) for outcome in ("warm", "rebuilt", "deep")})

    content = await run(small("thundering-herd", rate=0.25, time=0.5, people=20), platform, populated=look)
    assert content.verdict == "passed", content
    (herd,) = content.figures
    assert herd.requests == 19, "each once but the celebrity; 45 would come"
    told = {outcome: pages_read(outcome) - before[outcome] for outcome in before}
    assert (told["warm"], told["deep"]) == (0, 0)
    assert herd.requests - herd.failed <= told["rebuilt"] <= herd.requests
    kept = [key async for key in house.redis.scan_iter(match="feed:*", count=1000)]
    assert len(kept) >= told["rebuilt"]


def resident() -> int:
    """Memory of this process in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * getpagesize()


async def test_a_soak_tells_what_leaks_and_what_does_not(platform: str, house: Any, tmp_path: Path) -> None:
    """All components are this process: what it holds on to from the middle phase on is their leak."""
    (admin,) = free_ports(1)
    await house.start("image-worker", image_processes=1, admin_port=admin)
    scraped = {"targets": [f"127.0.0.1:{admin}"], "labels": {"component": "feed"}}
    config = {
        "global": {"scrape_interval": "500ms"},
        "scrape_configs": [{"job_name": "fanfold", "static_configs": [scraped]}],
    }
    scenario = small("soak", rate=0.4, time=1 / 300)
    middle = next(begin for phase, begin in begins(scenario) if phase.name == "middle")
    held: list[bytes] = []

    def leak() -> None:
        held.append(b"x" * (resident() // 4 + (64 << 20)))

    with ExitStack() as stack:
        url = await asyncio.to_thread(start_prometheus, stack, tmp_path, yaml.safe_dump(config))
        async with asyncio.timeout(60):
            while True:
                try:
                    await asyncio.to_thread(required, url, "", scenario, "")
                    break
                except FactsError:
                    await asyncio.sleep(0.5)

        async def populated() -> None:
            # The load begins some seconds after this: SYNC_SECONDS and one for its process.
            asyncio.get_running_loop().call_later(SYNC_SECONDS + 1 + middle, leak)

        content = await run(scenario, platform, prometheus=url, populated=populated)
    judged = {one.text.partition(" ")[0]: one for one in content.objectives if " of each component " in one.text}
    assert (judged["memory"].held, judged["open"].held) == (False, True), content
    assert judged["memory"].measured.startswith("feed ")
    assert content.verdict == "failed"
    assert {"Memory of the largest process", "Pages of feeds"} <= {chart.title for chart in content.server}


async def test_others_answer_all_that_is_asked(platform: str, house: Any) -> None:
    """One is prepared while those before it run, to take less time."""
    await house.start("image-worker", image_processes=1)
    sizes = {"browse": 0.4, "celebrity": 0.3, "follow-storm": 0.4, "upload": 0.4, "notifications": 0.3}
    wanted = [small(name, rate=rate, time=0.15, people=12) for name, rate in sizes.items()]
    preparing = asyncio.Lock()

    async def prepared() -> None:
        preparing.release()

    async def one(scenario: Scenario) -> Document:
        await preparing.acquire()
        return await run(scenario, platform, populated=prepared)

    for content in await asyncio.gather(*map(one, wanted)):
        assert [line for line in content.share.sample if not line.endswith(("429", "503", "504"))] == []
        assert all(answered(content, request) for request in content.scenario.mix), content.figures
        figures = {row.request: row for row in content.figures if row.phase == "steady"}
        if "notification" in figures:
            assert figures["notification"].requests == figures["notify"].requests
        # How much latencies grow says little of a machine that does all of it at once.
        judged = [one for one in content.objectives if " grows " not in one.text]
        assert {one.held for one in judged} == {True}, judged
