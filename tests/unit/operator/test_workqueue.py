"""The work queue's promises."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest
from structlog.contextvars import get_contextvars

from fanfold_operator import workqueue
from fanfold_operator.api import ApiError
from fanfold_operator.kinds import Key
from fanfold_operator.workqueue import WorkQueue
from tests.waiting import eventually

A, B = Key("Platform", "prod", "a"), Key("Platform", "prod", "b")


@asynccontextmanager
async def working(
    queue: WorkQueue, work: Callable[[Key], Awaitable[float | None]], workers: int = 4
) -> AsyncIterator[None]:
    task = asyncio.create_task(queue.run(work, workers))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_one_key_is_never_worked_on_twice_at_once_and_what_came_meanwhile_is_done_after() -> None:
    queue, active, calls, most = WorkQueue(), 0, 0, 0
    gate = asyncio.Event()

    async def work(_: Key) -> None:
        nonlocal active, calls, most
        active, calls = active + 1, calls + 1
        most = max(most, active)
        await gate.wait()
        active -= 1

    async with working(queue, work):
        queue.add(A)
        await eventually(lambda: active == 1)
        for _ in range(5):
            queue.add(A)
        gate.set()
        await eventually(lambda: calls == 2)
        await eventually(queue.idle)
    assert (most, calls) == (1, 2)


async def test_keys_do_not_wait_for_each_other() -> None:
    queue, seen = WorkQueue(), set()
    gate = asyncio.Event()

    async def work(key: Key) -> None:
        seen.add(key)
        await gate.wait()

    async with working(queue, work):
        queue.add(A)
        queue.add(B)
        await eventually(lambda: seen == {A, B})


async def test_additions_before_the_work_are_one() -> None:
    queue, calls = WorkQueue(), []

    async def work(key: Key) -> None:
        calls.append(key)

    for _ in range(10):
        queue.add(A)
        queue.add(A, 0.01)
    async with working(queue, work):
        await eventually(lambda: bool(calls) and queue.idle())
        await asyncio.sleep(0.05)
    assert len(calls) <= 2


async def test_the_earlier_of_two_times_wins() -> None:
    queue, done = WorkQueue(), asyncio.Event()

    async def work(_: Key) -> None:
        done.set()

    async with working(queue, work):
        queue.add(A, 0.02)
        queue.add(A, 60)
        async with asyncio.timeout(30):
            await done.wait()
        done.clear()
        queue.add(A, 60)
        queue.add(A, 0.02)
        async with asyncio.timeout(30):
            await done.wait()


async def test_a_failure_is_tried_again_later_and_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workqueue, "FIRST_BACKOFF_SECONDS", 0.02)
    queue, times = WorkQueue(), []
    loop = asyncio.get_running_loop()

    async def work(_: Key) -> None:
        times.append(loop.time())
        if len(times) < 4:
            raise RuntimeError("not yet")

    async with working(queue, work):
        queue.add(A)
        await eventually(lambda: len(times) == 4)
        await eventually(queue.idle)
        await asyncio.sleep(0.05)
    assert len(times) == 4, "after success there is no further try"
    waits = [later - earlier for earlier, later in pairwise(times)]
    assert waits[0] >= 0.015
    assert waits[2] >= 0.06


async def test_work_may_ask_to_be_called_again() -> None:
    queue, calls = WorkQueue(), 0

    async def work(_: Key) -> float:
        nonlocal calls
        calls += 1
        return 0.01

    async with working(queue, work):
        queue.add(A)
        await eventually(lambda: calls >= 3)


async def test_a_server_that_wants_to_be_left_alone_is() -> None:
    queue, times = WorkQueue(), []
    loop = asyncio.get_running_loop()

    async def work(_: Key) -> None:
        times.append(loop.time())
        if len(times) == 1:
            raise ApiError(429, "TooManyRequests", "later", retry_after=0.7)

    async with working(queue, work):
        queue.add(A)
        await eventually(lambda: len(times) == 2)
    assert times[1] - times[0] >= 0.7


async def test_every_line_of_a_reconcile_names_its_resource() -> None:
    queue, seen = WorkQueue(), []

    async def work(key: Key) -> None:
        await asyncio.sleep(0.01)
        seen.append((key, get_contextvars()))

    async with working(queue, work):
        queue.add(A)
        queue.add(B)
        await eventually(lambda: len(seen) == 2)
    for key, bound in seen:
        assert bound == {"kind": key.kind, "namespace": key.namespace, "name": key.name}


async def test_a_term_that_ends_leaves_no_key_behind() -> None:
    queue = WorkQueue()

    async def work(key: Key) -> float:
        if key == B:
            await asyncio.Event().wait()
        return 60  # long enough to be seen waiting on any machine

    async with working(queue, work, workers=1):
        queue.add(A)
        (timer,) = await eventually(lambda: list(queue._timers.values()))
        queue.add(B)
        await eventually(lambda: B in queue._active)
        queue.add(Key("Platform", "prod", "c"))
        assert queue.oldest_seconds() > 0
    assert timer.cancelled()
    assert not queue._timers
    assert queue.idle()
    assert queue.oldest_seconds() == 0
