from __future__ import annotations

import asyncio

import pytest

from fanfold.kit.flight import SingleFlight


async def test_what_many_ask_for_at_once_is_computed_once() -> None:
    flights: SingleFlight[int] = SingleFlight()
    gate = asyncio.Event()
    calls = 0

    async def work() -> int:
        nonlocal calls
        calls += 1
        await gate.wait()
        return calls

    waiting = [asyncio.create_task(flights.do("key", work)) for _ in range(50)]
    await asyncio.sleep(0)
    gate.set()
    assert await asyncio.gather(*waiting) == [1] * 50
    assert await flights.do("key", work) == 2, "what is over is computed again"


async def test_the_work_goes_on_when_the_first_who_asked_gives_up() -> None:
    flights: SingleFlight[str] = SingleFlight()
    gate = asyncio.Event()

    async def work() -> str:
        await gate.wait()
        return "done"

    first = asyncio.create_task(flights.do("key", work))
    second = asyncio.create_task(flights.do("key", work))
    await asyncio.sleep(0)
    first.cancel()
    gate.set()
    assert await second == "done"


async def test_an_error_reaches_everybody_who_waits_and_is_not_remembered() -> None:
    flights: SingleFlight[str] = SingleFlight()

    async def fail() -> str:
        await asyncio.sleep(0)
        raise LookupError("nothing there")

    async def succeed() -> str:
        return "there"

    answers = await asyncio.gather(*(flights.do("key", fail) for _ in range(3)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [LookupError] * 3
    assert await flights.do("key", succeed) == "there"


async def test_who_asks_when_the_work_has_ended_starts_anew() -> None:
    flights: SingleFlight[int] = SingleFlight()
    ended = asyncio.Event()

    async def work() -> int:
        ended.set()  # wakes the late one before anybody who waits for the result
        return 1

    async def again() -> int:
        return 2

    async def ask_late() -> int:
        await ended.wait()
        return await flights.do("key", again)

    late = asyncio.create_task(ask_late())
    await asyncio.sleep(0)
    assert await flights.do("key", work) == 1
    assert await late == 2


@pytest.mark.parametrize("keys", [("a", "b"), (1, 2)])
async def test_different_keys_do_not_wait_for_each_other(keys: tuple[object, object]) -> None:
    flights: SingleFlight[object] = SingleFlight()
    gate = asyncio.Event()

    async def blocked() -> object:
        await gate.wait()
        return keys[0]

    async def free() -> object:
        return keys[1]

    waiting = asyncio.create_task(flights.do(keys[0], blocked))
    assert await flights.do(keys[1], free) == keys[1]
    gate.set()
    assert await waiting == keys[0]
