"""Load over HTTP/1.1 from one process: as fast as answers come (closed), or at moments set beforehand (open).

In the open model a request's time counts from the moment it was due, whether a connection was free then or not: a
server that stalls is charged for all who would have come meanwhile (no coordinated omission).
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import random
from collections import Counter, deque
from dataclasses import dataclass, field
from time import perf_counter, process_time
from typing import TYPE_CHECKING, Final, cast

import uvloop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

LATE_SECONDS: Final = 15.0
"""A request without answer after this long counts as failed; longer than any timeout of the servers."""


@dataclass
class Outcome:
    """What a run of load met.

    Attributes:
        seconds: From the first request to the last answer.
        statuses: Answers by status; -1 for none (connection lost or refused, or no answer).
        latencies: Seconds of each answer, in the order of arrival, beside ``finished``.
        finished: When each came, in seconds from the start.
        codes: The status of each.
        generator_cpu: CPU seconds of this process meanwhile.
    """

    seconds: float = 0.0
    statuses: Counter[int] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)
    finished: list[float] = field(default_factory=list)
    codes: list[int] = field(default_factory=list)
    generator_cpu: float = 0.0

    @property
    def rate(self) -> float:
        """Answers a second."""
        return len(self.latencies) / self.seconds if self.seconds else 0.0

    @property
    def errors(self) -> int:
        """Requests without a 2xx."""
        return sum(count for status, count in self.statuses.items() if not 200 <= status < 300)

    def percentile(self, share: float, *, status: int | None = None) -> float:
        """Milliseconds; of one status alone when it is given."""
        chosen = self.latencies
        if status is not None:
            chosen = [one for one, code in zip(chosen, self.codes, strict=True) if code == status]
        if not chosen:
            return 0.0
        ordered = sorted(chosen)
        return 1000 * ordered[min(len(ordered) - 1, int(len(ordered) * share))]


class Connection(asyncio.Protocol):
    """One client connection with at most one request under way."""

    __slots__ = ("_buffer", "_done", "_need", "_observe", "_transport", "closed", "due")

    def __init__(self, done: Callable[[Connection, int], None], observe: Callable[[bytes], None] | None = None) -> None:
        self._done = done
        self._observe = observe
        self._buffer = b""
        self._need = 0
        self._transport: asyncio.Transport | None = None
        self.due = 0.0
        self.closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def send(self, request: bytes, due: float) -> None:
        assert self._transport is not None
        self.due = due
        self._buffer = b""
        self._need = 0
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        if self._buffer:
            data = self._buffer + data
        if not self._need:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self._buffer = data
                return
            self._need = end + 4 + _content_length(data, end)
            if self._observe is not None:
                self._observe(data[: end + 2])
        if len(data) < self._need:
            self._buffer = data
            return
        status = int(data[9:12])
        if b"\r\nconnection: close" in data[: self._need]:
            self.close()
        self._done(self, status)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        was, self.closed = self.closed, True
        if not was:
            self._done(self, -1)

    def close(self) -> None:
        self.closed = True
        if self._transport is not None:
            self._transport.close()


def _content_length(data: bytes, end: int) -> int:
    start = data[: end + 2].lower().find(b"\r\ncontent-length: ")
    if start < 0:
        return 0
    return int(data[start + 18 : data.index(b"\r\n", start + 18)])


class Load:
    """Requests to one port, in turn, over a bounded number of connections.

    Args:
        port: Of the loopback interface.
        requests: As they are sent.
        connections: Most at once.
        observe: Called with the head of each answer.

    Attributes:
        began: Monotonic time of the start; 0 before.
    """

    def __init__(
        self, port: int, requests: Sequence[bytes], connections: int, *, observe: Callable[[bytes], None] | None = None
    ) -> None:
        self._where = ("127.0.0.1", port)
        self._observe = observe
        self._requests: Iterator[bytes] = itertools.cycle(requests)
        self._wanted = connections
        self._free: deque[Connection] = deque()
        # In turn, not the last first: a connection that is never used would be closed by the server.
        self._open = 0
        self._waiting: deque[float] = deque()
        self._outcome = Outcome()
        self.began = 0.0
        self._until = 0.0
        self._closed_model = False
        self._under_way: set[Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def closed(self, seconds: float) -> Outcome:
        """Every connection sends its next request when its answer has come."""
        self._closed_model = True
        await self._connect_all()
        began, cpu = self._start(), process_time()
        self._until = began + seconds
        for connection in self._free.copy():
            self._send(connection, began)
        await asyncio.sleep(seconds)
        return await self._finish(cpu)

    async def open(self, rate: float, seconds: float, seed: int = 1) -> Outcome:
        """``rate`` requests a second on average, at moments of a Poisson process."""
        await self._connect_all()
        began, cpu = self._start(), process_time()
        chance = random.Random(seed)
        due = began + chance.expovariate(rate)
        while due < began + seconds:
            now = perf_counter()
            while due <= now:
                if self._free:
                    self._send(self._free.popleft(), due)
                else:
                    self._waiting.append(due)
                    self._reconnect()
                due += chance.expovariate(rate)
            await asyncio.sleep(max(0.0, due - perf_counter()) if due - now > 0.002 else 0)
        return await self._finish(cpu)

    def _start(self) -> float:
        gc.collect()
        gc.freeze()
        self.began = perf_counter()
        return self.began

    async def _finish(self, cpu: float) -> Outcome:
        outcome = self._outcome
        deadline = perf_counter() + LATE_SECONDS
        while (self._under_way or self._waiting) and perf_counter() < deadline:  # noqa: ASYNC110 - an event would cost each answer a look
            await asyncio.sleep(0.001)
        outcome.seconds = perf_counter() - self.began if not self._closed_model else self._until - self.began
        outcome.generator_cpu = process_time() - cpu
        outcome.statuses[-1] += len(self._under_way) + len(self._waiting)
        outcome.statuses = +outcome.statuses
        for connection in [*self._free, *self._under_way]:
            connection.due = 0.0
            connection.close()
        return outcome

    def _send(self, connection: Connection, due: float) -> None:
        self._under_way.add(connection)
        connection.send(next(self._requests), due)

    def _done(self, connection: Connection, status: int) -> None:
        if not connection.due:
            self._idle_lost(connection)
            return
        now = perf_counter()
        due, connection.due = connection.due, 0.0
        outcome = self._outcome
        self._under_way.discard(connection)
        outcome.statuses[status] += 1
        if status > 0:
            outcome.latencies.append(now - due)
            outcome.finished.append(now - self.began)
            outcome.codes.append(status)
        if connection.closed:
            self._open -= 1
            self._reconnect()
        elif self._closed_model:
            if now < self._until:
                self._send(connection, now)
        elif self._waiting:
            self._send(connection, self._waiting.popleft())
        else:
            self._free.append(connection)

    def _idle_lost(self, connection: Connection) -> None:
        if connection in self._free:
            self._free.remove(connection)
            self._open -= 1
            self._reconnect()

    def _reconnect(self) -> None:
        if self._open < self._wanted:
            self._open += 1
            task = asyncio.get_running_loop().create_task(self._join())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _join(self) -> None:
        try:
            connection = await self._connect()
        except OSError:
            self._open -= 1
            if self._waiting:
                self._waiting.popleft()
                self._outcome.statuses[-1] += 1
            return
        if self._waiting:
            self._send(connection, self._waiting.popleft())
        elif self._closed_model and perf_counter() < self._until:
            self._send(connection, perf_counter())
        else:
            self._free.append(connection)

    async def _connect(self) -> Connection:
        connection = Connection(self._done, self._observe)
        async with asyncio.timeout(5):
            await asyncio.get_running_loop().create_connection(lambda: connection, *self._where)
        return connection

    async def _connect_all(self) -> None:
        for _ in range(self._wanted):
            self._free.append(await self._connect())
        self._open = self._wanted


def closed(port: int, requests: Sequence[bytes], *, connections: int, seconds: float) -> Outcome:
    """As `Load.closed`, in a loop of its own."""
    return uvloop.run(Load(port, requests, connections).closed(seconds))


def paced(port: int, requests: Sequence[bytes], *, rate: float, seconds: float, connections: int = 64) -> Outcome:
    """As `Load.open`, in a loop of its own."""
    return uvloop.run(Load(port, requests, connections).open(rate, seconds))
