"""What idle WebSockets cost a gateway: memory more than at rest, a message's way to them, and how they are sent away.

Each socket is a user of its own, with a token of its own. Correctness first: every handshake must be answered with 101,
every message must arrive at its user and every socket be closed with 1012 and a moment to come back.

    uv run python benchmarks/idle_sockets.py --sockets 10000
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import resource
import statistics
import struct
import time
from typing import Any, Final, cast

import uvloop
from common.house import House
from common.processes import Workshop, cpu_seconds, resident_bytes
from common.results import save, say
from redis.asyncio import Redis

from fanfold.contracts import keys
from fanfold.contracts.ids import new_id

AT_ONCE: Final = 100
QUIET_SECONDS: Final = 3.0
LIMIT_SECONDS: Final = 300.0
MEGABYTE: Final = 1e6
SERVICE_RESTART: Final = 1012
_TEXT, _CLOSE, _PING, _PONG = 0x81, 0x88, 0x89, 0x8A
_MASK: Final = bytes(4)


class Socket(asyncio.Protocol):
    """A client that answers pings and remembers what it was told."""

    def __init__(self, token: str) -> None:
        self._token = token
        self._buffer = b""
        self._transport: asyncio.Transport | None = None
        loop = asyncio.get_running_loop()
        self.opened: asyncio.Future[int] = loop.create_future()
        self.heard: asyncio.Future[float] = loop.create_future()
        self.closed: asyncio.Future[tuple[int, str]] = loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(
            b"GET /v1/ws HTTP/1.1\r\nHost: bench\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
            b"Authorization: Bearer %b\r\n\r\n" % self._token.encode()
        )

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self.opened.done():
            head, end, self._buffer = self._buffer.partition(b"\r\n\r\n")
            if not end:
                self._buffer = head
                return
            self.opened.set_result(int(head.split(b" ")[1]))
        while len(self._buffer) >= 2 and len(self._buffer) >= 2 + self._buffer[1]:
            kind, size = self._buffer[0], self._buffer[1]  # all that the gateway sends here is below 126 bytes
            payload, self._buffer = self._buffer[2 : 2 + size], self._buffer[2 + size :]
            self._take(kind, payload)

    def connection_lost(self, exc: Exception | None) -> None:
        for waiting in (self.opened, self.closed):
            if not waiting.done():
                waiting.set_exception(exc or ConnectionError("closed without a word"))
                waiting.exception()  # looked at: whoever waits is told, and nobody may be

    def _take(self, kind: int, payload: bytes) -> None:
        assert self._transport is not None
        if kind == _PING:
            self._transport.write(bytes((_PONG, 0x80 | len(payload))) + _MASK + payload)
        elif kind == _TEXT and not self.heard.done():
            self.heard.set_result(time.perf_counter())
        elif kind == _CLOSE:
            self.closed.set_result((struct.unpack("!H", payload[:2])[0], payload[2:].decode()))
            self._transport.write(bytes((_CLOSE, 0x80 | 2)) + _MASK + payload[:2])
            self._transport.close()


async def measure(count: int, messages: int) -> dict[str, Any]:
    with Workshop() as workshop:
        house = House(workshop)
        house.start_valkey()
        house.locate({})
        gateway = house.start("gateway", max_connections=count + 100)
        redis = Redis.from_url(house.valkey_url)
        await open_all(house, gateway.port, [new_id()])  # what the first socket loads is no socket's
        await asyncio.sleep(QUIET_SECONDS)
        before, cpu = resident_bytes(gateway.pid), cpu_seconds(gateway.pid)
        users = [new_id() for _ in range(count)]
        began = time.perf_counter()
        sockets = await open_all(house, gateway.port, users)
        opening = time.perf_counter() - began
        await subscribed(redis, count + 1)
        await asyncio.sleep(QUIET_SECONDS)
        grown, spent = resident_bytes(gateway.pid) - before, cpu_seconds(gateway.pid) - cpu
        say(f"{count} sockets are open")

        delays = []
        for index in random.sample(range(count), messages):
            sent = time.perf_counter()
            await redis.publish(keys.notifications(users[index]), json.dumps({"id": str(new_id())}))
            delays.append(await sockets[index].heard - sent)
        heard = sum(socket.heard.done() for socket in sockets)
        assert heard == messages, f"{heard} sockets heard {messages} messages"

        began = time.perf_counter()
        gateway.process.ask_to_stop()
        told = await asyncio.gather(*(socket.closed for socket in sockets))
        leaving = time.perf_counter() - began
        assert {code for code, _ in told} == {SERVICE_RESTART}
        pauses = [int(re.findall(r"\d+", reason)[0]) for _, reason in told]
        await redis.aclose()
    delays.sort()
    return {
        "sockets": count,
        "memory_mb": round(grown / MEGABYTE, 1),
        "bytes_per_socket": round(grown / count),
        "handshakes_per_second": round(count / opening),
        "cpu_us_per_handshake": round(spent / count * 1e6),
        "message_ms": {"p50": 1e3 * delays[len(delays) // 2], "p99": 1e3 * delays[len(delays) * 99 // 100]},
        "told_to_leave_seconds": round(leaving, 2),
        "reconnect_ms": {"least": min(pauses), "median": statistics.median(pauses), "most": max(pauses)},
    }


async def open_all(house: House, port: int, users: list[Any]) -> list[Socket]:
    """Sockets of ``users``, a hundred handshakes at a time."""
    loop = asyncio.get_running_loop()
    room = asyncio.Semaphore(AT_ONCE)

    async def one(token: str) -> Socket:
        async with room:
            _, socket = await loop.create_connection(lambda: Socket(token), "127.0.0.1", port)
            assert await socket.opened == 101
            return socket

    tokens = [house.token(user) for user in users]
    return list(await asyncio.gather(*map(one, tokens)))


async def subscribed(redis: Redis, channels: int) -> None:
    """Until the gateway hears so many channels."""
    async with asyncio.timeout(LIMIT_SECONDS):
        while len(await redis.pubsub_channels()) < channels:  # noqa: ASYNC110 - another process subscribes
            await asyncio.sleep(0.1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sockets", type=int, default=10_000, help="idle sockets (default 10,000)")
    parser.add_argument("--messages", type=int, default=500, help="messages sent to some of them (default 500)")
    options = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    figures = uvloop.run(asyncio.wait_for(measure(options.sockets, options.messages), LIMIT_SECONDS))
    file = save("websockets", figures, notes=["Memory is the proportional share (Pss) beyond that of one open socket."])
    print(json.dumps(figures, indent=1))
    say(f"saved to {file}")


if __name__ == "__main__":
    main()
