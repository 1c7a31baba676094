"""Single flight: what many ask for at once is computed once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from fanfold.kit import deadline

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Hashable

Value = TypeVar("Value")


class SingleFlight(Generic[Value]):
    """Work under way by key. Who asks meanwhile waits for the same result, or gets the same error."""

    def __init__(self) -> None:
        self._flights: dict[Hashable, asyncio.Task[Value]] = {}

    async def do(self, key: Hashable, work: Callable[[], Coroutine[Any, Any, Value]]) -> Value:
        """The result of ``work()``, started now unless it is under way. It goes on when the one who asked gives up."""
        flight = self._flights.get(key)
        if flight is None:
            flight = asyncio.create_task(self._fly(key, work))
            flight.add_done_callback(_look_at_error)
            self._flights[key] = flight
        return await asyncio.shield(flight)

    async def _fly(self, key: Hashable, work: Callable[[], Coroutine[Any, Any, Value]]) -> Value:
        deadline.current.set(b"")  # shared work has not the deadline of the one who asked first
        try:
            return await work()
        finally:
            # Before the result is handed out: who asks from here on may know of a change the result does not.
            del self._flights[key]


def _look_at_error(flight: asyncio.Task[Any]) -> None:
    """An error is those's who wait for it; when nobody does any more, asyncio should not complain."""
    if not flight.cancelled():
        flight.exception()
