"""The network between the gateway and one replica, as a test wants it: late, silent, or losing what it carries.

A proxy in the test's own process, because not every kernel has netem, and because it can lose exactly the answer to one
request. It copies bytes and knows nothing of HTTP.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress

PIECE = 64 << 10
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends RST
BACKLOG = 128
FILLERS = 8
"""More than the one that was being accepted, and those that fit into a backlog of none."""
FULL_SECONDS = 0.3


class Link:
    """A TCP port that leads to a replica.

    Attributes:
        delay: Seconds that each piece of an answer takes longer.
        lose_every: One piece in so many of an answer is lost, with its connection; 0: none.
    """

    def __init__(self, target: str) -> None:
        self._host, _, port = target.rpartition(":")
        self._port = int(port)
        self.delay = 0.0
        self.lose_every = 0
        self._carried = 0
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._fillers: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
        self._listener.setblocking(False)
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Link]:
        """Carry until left."""
        self._begin(self._accept())
        try:
            yield self
        finally:
            for task in tuple(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            for one in (self._listener, *self._fillers):
                one.close()

    async def freeze(self) -> None:
        """Drop every packet: what is sent arrives nowhere, and nobody answers to a new connection.

        What was sent meanwhile arrives late, as TCP would repeat it.
        """
        self._flowing.clear()
        # A listener whose backlog is full does not answer a SYN: the same as if it had been dropped.
        self._listener.listen(0)
        loop = asyncio.get_running_loop()
        for _ in range(FILLERS):
            filler = socket.socket()
            filler.setblocking(False)
            self._fillers.append(filler)
            try:
                async with asyncio.timeout(FULL_SECONDS):
                    await loop.sock_connect(filler, self._listener.getsockname())
            except TimeoutError:
                return
        raise AssertionError("the listener still answers")

    def thaw(self) -> None:
        """Deliver again, first what had to wait."""
        for filler in self._fillers:
            filler.close()
        self._fillers.clear()
        self._listener.listen(BACKLOG)
        self._flowing.set()

    def _begin(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._flowing.wait()
            gateway, _ = await loop.sock_accept(self._listener)
            self._begin(self._carry(gateway))

    async def _carry(self, gateway: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with gateway, socket.socket() as replica:
            for one in (gateway, replica):
                one.setblocking(False)
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with suppress(OSError):
                await self._flowing.wait()
                await loop.sock_connect(replica, (self._host, self._port))
                ways = [self._forward(gateway, replica), self._backward(replica, gateway)]
                tasks = [loop.create_task(way) for way in ways]
                try:
                    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for task in tasks:
                        task.cancel()
                    await asyncio.gather(*tasks, return_exceptions=True)

    async def _forward(self, gateway: socket.socket, replica: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while data := await loop.sock_recv(gateway, PIECE):
            await self._flowing.wait()
            await loop.sock_sendall(replica, data)

    async def _backward(self, replica: socket.socket, gateway: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while data := await loop.sock_recv(replica, PIECE):
            self._carried += 1
            if self.lose_every and self._carried % self.lose_every == 0:
                gateway.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                return
            await asyncio.sleep(self.delay)
            await self._flowing.wait()
            await loop.sock_sendall(gateway, data)
