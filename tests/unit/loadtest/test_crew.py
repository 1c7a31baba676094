"""The master's side of a run whose load comes from other machines, request by request."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import msgspec
import pytest

from fanfold_loadtest import crew
from fanfold_loadtest.crew import Crew
from fanfold_loadtest.documents import parse
from fanfold_loadtest.plan import Plan, Progress, Reader
from fanfold_loadtest.recording import Share
from fanfold_loadtest.runner import RunError
from fanfold_loadtest.scenario import Scenario

SCENARIO = "name: x\ndescription: long enough\nmix: {feed: 1}\nphases: [{name: steady, seconds: 1, rate: 1}]\n"
NOTHING = Progress("steady", 0, 0, 0.0, 0.0)


def plans(count: int, begin_at: float) -> list[Plan]:
    nobody, scenario = Reader("u", "t", "r"), parse(SCENARIO, Scenario, "x")
    return [
        Plan(
            scenario=scenario, begin_at=begin_at, index=index, of=count, seed=1, readers=[nobody], token_seconds=900,
            authors=[], posts=[], celebrity=nobody, watchers=[], celebrity_photo="", photo=("", ""),
        )
        for index in range(count)
    ]  # fmt: skip


def show(_: Sequence[Progress], __: float) -> None:
    """Nobody looks."""


async def test_plans_go_out_shares_come_in() -> None:
    made, stop = Crew(2), asyncio.Event()
    waiting = asyncio.create_task(made.ready(stop))
    assert made.handle("POST", "/join/0", b"") == (202, b"")
    await asyncio.sleep(0.01)
    assert not waiting.done(), "one has not come"
    assert made.handle("POST", "/join/1", b"") == (202, b"")
    await waiting
    begin = time.time()
    running = asyncio.create_task(made.apply(plans(2, begin), show, stop))
    await asyncio.sleep(0.01)
    status, plan = made.handle("POST", "/join/1", b"")
    assert (status, msgspec.json.decode(plan, type=Plan).index) == (200, 1)
    assert made.handle("PUT", "/progress/1", msgspec.json.encode(NOTHING)) == (200, b"false")
    for index in (1, 0):
        assert made.handle("PUT", f"/share/{index}", msgspec.json.encode(Share(arrivals=index))) == (204, b"")
    assert [share.arrivals for share in await running] == [0, 1]


async def test_an_end_reaches_workers_with_the_answer_to_their_progress() -> None:
    made, stop = Crew(1), asyncio.Event()
    made.handle("POST", "/join/0", b"")
    running = asyncio.create_task(made.apply(plans(1, time.time()), show, stop))
    stop.set()
    while made.handle("PUT", "/progress/0", msgspec.json.encode(NOTHING)) != (200, b"true"):
        await asyncio.sleep(0.01)
    made.handle("PUT", "/share/0", msgspec.json.encode(Share(arrivals=3)))
    assert [share.arrivals for share in await running] == [3]


@pytest.mark.parametrize("path", ["/join/2", "/join/x", "/plan/0", "/share", "/join/0/x"])
def test_strangers_are_told_nothing(path: str) -> None:
    assert Crew(2).handle("PUT", path, b"") == (404, b"")
    assert Crew(2).handle("GET", "/join/0", b"") == (404, b"")


async def test_a_worker_that_fails_or_falls_silent_breaks_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Crew(1)
    made.handle("POST", "/join/0", b"")
    made.handle("PUT", "/failure/0", b"Locust ended with 1")
    with pytest.raises(RunError, match="worker 0: Locust ended with 1"):
        await made.apply(plans(1, time.time()), show, asyncio.Event())
    monkeypatch.setattr(crew, "SILENT_SECONDS", 0.01)
    made = Crew(2)
    made.handle("POST", "/join/1", b"")
    with pytest.raises(RunError, match="worker 1 has not been heard of"):
        await made.apply(plans(2, time.time()), show, asyncio.Event())


async def test_workers_that_do_not_come_break_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "JOIN_SECONDS", 0.01)
    made = Crew(3)
    made.handle("POST", "/join/2", b"")
    with pytest.raises(RunError, match=r"1 of 3 workers came within 0\.01 s: 2"):
        await made.ready(asyncio.Event())
