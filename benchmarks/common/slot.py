"""A service of known capacity: so many requests at once, so many milliseconds each, the others wait in line.

    python slot.py NAME PORT MILLISECONDS AT_ONCE

Its capacity is a matter of clocks, not of CPU: a busy machine changes it little. SIGTERM ends it as services end: no
new connections, idle ones closed, requests under way answered first.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections import deque
from typing import cast

import uvloop


class Slot:
    """One slot: its line of requests, and its connections."""

    def __init__(self, name: str, seconds: float, at_once: int) -> None:
        self.connections: set[Connection] = set()
        self.ending = False
        self._name = name.encode()
        self._seconds = seconds
        self._free = at_once
        self._line: deque[Connection] = deque()
        self._body = b'{"items":[],"next_cursor":null}'

    def come(self, connection: Connection) -> None:
        """A request: served now, or when its turn comes."""
        if self._free:
            self._free -= 1
            asyncio.get_running_loop().call_later(self._seconds, self._serve, connection)
        else:
            self._line.append(connection)

    def _serve(self, connection: Connection) -> None:
        end = b"connection: close\r\n" if self.ending else b""
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-slot: %b\r\ncontent-length: %d\r\n%b\r\n"
        connection.answer(head % (self._name, len(self._body), end) + self._body)
        while self._line:
            following = self._line.popleft()
            if not following.gone:
                asyncio.get_running_loop().call_later(self._seconds, self._serve, following)
                return
        self._free += 1

    async def run(self, port: int) -> None:
        """Serve until SIGTERM, and what is under way then."""
        loop = asyncio.get_running_loop()
        asked = asyncio.Event()
        loop.add_signal_handler(signal.SIGTERM, asked.set)
        server = await loop.create_server(lambda: Connection(self), "127.0.0.1", port, backlog=4096)
        await asked.wait()
        self.ending = True
        server.close()
        for connection in [one for one in self.connections if not one.busy]:
            connection.close()
        while self.connections:  # noqa: ASYNC110 - at the end of a short life
            await asyncio.sleep(0.01)


class Connection(asyncio.Protocol):
    """One of the gateway's connections: one request at a time."""

    def __init__(self, slot: Slot) -> None:
        self._slot = slot
        self._transport: asyncio.Transport | None = None
        self._data = b""
        self.busy = False
        self.gone = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._slot.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self.gone = True
        self._slot.connections.discard(self)

    def data_received(self, data: bytes) -> None:
        self._data += data
        if self._data.endswith(b"\r\n\r\n"):
            self._data = b""
            self.busy = True
            self._slot.come(self)

    def answer(self, data: bytes) -> None:
        self.busy = False
        if self._transport is not None and not self.gone:
            self._transport.write(data)
            if self._slot.ending:
                self.close()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


if __name__ == "__main__":
    name, port, milliseconds, at_once = sys.argv[1:]
    uvloop.run(Slot(name, float(milliseconds) / 1000, int(at_once)).run(int(port)))
