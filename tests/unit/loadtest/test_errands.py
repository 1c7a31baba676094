"""What a run asks the operator for, and what it makes of the answers."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from fanfold_loadtest import errands
from fanfold_loadtest.cluster import ClusterError, acting
from fanfold_loadtest.errands import Errands
from fanfold_loadtest.scenario import RestartPod, Scale, Upgrade
from fanfold_operator.planning.acts import Act, Wish

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def tell(run: Errands, state: Any, message: str, number: int = 0) -> list[Wish]:
    """As the operator tells it."""
    act = Act(number=number, does="scale", state=state, since="2026-01-02T03:04:05Z", message=message)
    return msgspec.json.decode(run.handle(msgspec.json.encode([act])), type=list[Wish])


def ignore(what: str, at: float | None = None) -> None:
    raise AssertionError(f"{what} at {at}: nothing was done")


async def asked(run: Errands, count: int = 1) -> list[Wish]:
    async with asyncio.timeout(60):
        while len(wishes := msgspec.json.decode(run.handle(b"[]"), type=list[Wish])) < count:
            await asyncio.sleep(0.01)
    return wishes


async def test_each_step_becomes_a_mark_at_the_time_at_which_it_was_so() -> None:
    run = Errands()
    begin = AT.timestamp() - 7
    async with acting(run, [(0.0, Scale(at=0, service="feed", by=1))], begin) as acts:
        assert await asked(run) == [Wish(0, "scale", "feed", 1)]
        for state, message, marks in (("Begun", "feed to 2 replicas", 1), ("Done", "feed has 2", 2)):
            tell(run, state, message)
            async with asyncio.timeout(60):
                while len(acts.marks) < marks:
                    await asyncio.sleep(0.01)
    assert [(mark.at, mark.what) for mark in acts.marks] == [(7.0, "feed to 2 replicas"), (7.0, "feed has 2")]
    assert acts.mishaps == []


async def test_what_is_refused_or_not_looked_at_voids_the_run_and_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Errands()
    doing = asyncio.create_task(run.act(RestartPod(at=0, service="feed"), ignore))
    assert (await asked(run))[0].does == "restart-pod"
    tell(run, "Failed", "feed has no pod to restart")
    with pytest.raises(ClusterError, match=r"^feed has no pod to restart$"):
        await doing
    monkeypatch.setattr(errands, "SILENT_SECONDS", 0.1)
    begun = time.monotonic()
    with pytest.raises(ClusterError, match="no operator has looked"):
        await run.act(Upgrade(at=0), ignore)
    assert time.monotonic() - begun < 20
    assert [one["does"] for one in json.loads(run.handle(b"[]"))] == ["restart-pod", "restart-all"]
