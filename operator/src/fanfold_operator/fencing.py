"""The right to write. It ends by the local clock, a margin before anybody else may take it up."""

from __future__ import annotations

import asyncio
import math
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import aiohttp
from kubernetes.aio.client.rest import RESTClientObject

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kubernetes.aio.client.configuration import Configuration

_CLOCK: Final[int] = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def clock() -> float:
    """Seconds that nobody sets, and that go on while the process is stopped or the machine sleeps."""
    return time.clock_gettime(_CLOCK)


class NotLeadingError(Exception):
    """Nothing was sent: another operator may be the writer by now."""


class Fence:
    """Open while this process is the only writer. Closed at first.

    Every write is checked twice: when it is asked for, and when a connection for it is there, so that nothing but the
    write itself lies behind the check. What passes is cut off when the lease ends.
    """

    def __init__(self, now: Callable[[], float] = clock) -> None:
        self._now = now
        self._closes = self._cut = -math.inf
        self._under_way = 0
        self._rest = asyncio.Event()
        self._rest.set()

    @classmethod
    def open(cls) -> Fence:
        """One without an end, for an operator that is alone by other means."""
        fence = cls()
        fence.extend(math.inf, math.inf)
        return fence

    def extend(self, closes: float, cut: float) -> None:
        """Let writes begin until `closes` and go on until `cut`, both in seconds of the clock."""
        self._closes, self._cut = closes, cut

    def close(self) -> None:
        """Let no more writes begin."""
        self._closes = -math.inf

    def check(self) -> float:
        """Seconds a write may take that begins now.

        Raises:
            NotLeadingError: None may.
        """
        now = self._now()
        if now >= self._closes:
            raise NotLeadingError("this operator does not hold the lease: nothing was sent")
        return self._cut - now

    @contextmanager
    def writing(self) -> Iterator[float]:
        """For the time of a write; gives the seconds it may take.

        Raises:
            NotLeadingError: It may not begin.
        """
        seconds = self.check()
        self._under_way += 1
        self._rest.clear()
        try:
            yield seconds
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._rest.set()

    async def at_rest(self, seconds: float) -> bool:
        """Wait until no write is under way, for so long at most; whether that is so."""
        try:
            async with asyncio.timeout(seconds):
                await self._rest.wait()
        except TimeoutError:
            return False
        return True


class FencedRest(RESTClientObject):
    """The official client's connections, with the second check."""

    def __init__(self, configuration: Configuration, fence: Fence) -> None:
        super().__init__(configuration)
        self._fence = fence

    def _create_connector(self) -> aiohttp.TCPConnector:
        return _FencedConnector(self._fence, limit=self.maxsize, ssl=self.ssl_context)


class _FencedConnector(aiohttp.TCPConnector):
    """Between the first check and a connection lie queueing for one, and TLS handshakes: time to be paused in."""

    def __init__(self, fence: Fence, **rest: Any) -> None:
        super().__init__(**rest)
        self._fence = fence

    async def connect(self, req: Any, *rest: Any, **named: Any) -> Any:
        connection = await super().connect(req, *rest, **named)
        if req.method != "GET":
            try:
                self._fence.check()
            except NotLeadingError:
                connection.release()
                raise
        return connection
