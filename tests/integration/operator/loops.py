"""Event loops that tests begin and end."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def complete(work: Coroutine[Any, Any, T]) -> T:
    """What it returns, from a loop of its own that leaves no connection behind.

    A call over TLS that is cancelled says goodbye for up to 30 s, of which no client's `close` knows. A command just
    ends then. In a test the loop's end would leave the socket to the garbage collector, which fails whatever test is
    under way when it comes.
    """

    async def whole() -> T:
        try:
            return await work
        finally:
            await _hang_up()

    return asyncio.run(whole())


async def _hang_up() -> None:
    """End all else of this loop: first tasks, which may be connecting, then connections."""
    loop = asyncio.get_running_loop()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    for transport in list(loop._transports.values()):  # type: ignore[attr-defined]
        transport.abort()
    await asyncio.sleep(0)  # the round in which they are closed
