"""Waiting for what others do, never without a limit."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any, Literal, TypeVar, overload

T = TypeVar("T")


def until(
    condition: Callable[[], T | Literal[False] | None],
    what: str = "the condition",
    seconds: float = 60,
    pause: float = 0.05,
) -> T:
    """Call until the answer is true, and give it; fails with what did not come about. It holds the thread."""
    deadline = time.monotonic() + seconds
    while not (answer := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        time.sleep(pause)
    return answer


@overload
async def eventually(
    condition: Callable[[], Awaitable[T | Literal[False] | None]],
    what: str = ...,
    seconds: float = ...,
    pause: float = ...,
) -> T: ...


@overload
async def eventually(
    condition: Callable[[], T | Literal[False] | None], what: str = ..., seconds: float = ..., pause: float = ...
) -> T: ...


async def eventually(
    condition: Callable[[], Any], what: str = "the condition", seconds: float = 60, pause: float = 0.02
) -> Any:
    """The same while the event loop goes on; what the condition gives is awaited if it can be, within the limit."""
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            while True:
                answer = condition()
                if inspect.isawaitable(answer):
                    answer = await answer
                if answer:
                    return answer
                await asyncio.sleep(pause)
    except TimeoutError as error:
        if limit.expired():
            raise AssertionError(f"not within {seconds:g} s: {what}") from error
        raise  # the condition's own
