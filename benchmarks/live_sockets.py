"""What WebSockets cost a gateway: memory and CPU of idle ones, deliveries and their age, and how all are sent away.

Each socket is a user of its own, with a token of its own. Idle sockets are looked at for one round of pings. Messages
have the size of a notification and are published at times drawn beforehand (Poisson), whatever the gateway does: the
age of a delivery is from that moment to the client's read. Correctness first: every handshake must be answered with
101, every message must arrive at its user once and every socket be closed with 1012 and a moment to come back.

    uv run python benchmarks/live_sockets.py --sockets 10000
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
from dataclasses import dataclass
from typing import Any, Final, cast
from uuid import UUID

import uvloop
from common.house import House
from common.processes import Workshop, cpu_seconds, resident_bytes
from common.results import save, say, summary
from redis.asyncio import Redis

from fanfold.contracts import keys
from fanfold.contracts.ids import new_id
from fanfold.kit.valkey import Valkey

AT_ONCE: Final = 100
QUIET_SECONDS: Final = 3.0
PING_SECONDS: Final = 30.0
"""As by default: so long idle sockets are looked at."""
LIMIT_SECONDS: Final = 300.0
MEGABYTE: Final = 1e6
NOTIFICATION: Final[dict[str, Any]] = {
    "id": "",
    "kind": "like",
    "actor": {
        "id": str(new_id()),
        "username": "somebody",
        "display_name": "Some Body",
        "picture_url": f"/v1/media/{64 * 'a'}/320.jpeg",
    },
    "post_id": str(new_id()),
    "comment_id": None,
    "created_at": "2026-01-01T00:00:00Z",
    "read": False,
}
SERVICE_RESTART: Final = 1012
_TEXT, _CLOSE, _PING, _PONG = 0x81, 0x88, 0x89, 0x8A
_EMPTY_PING: Final = bytes((_PING, 0))
_TWO_BYTES: Final = 126
"""This length means that the true one follows in two bytes."""
_MASK: Final = bytes(4)


class Socket(asyncio.Protocol):
    """A client that answers pings and remembers what it was told."""

    def __init__(self, token: str) -> None:
        self._token = token
        self._buffer = b""
        self._transport: asyncio.Transport | None = None
        loop = asyncio.get_running_loop()
        self.opened: asyncio.Future[int] = loop.create_future()
        self.heard: list[tuple[float, str]] = []
        """When, and the id of what."""
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
        while len(self._buffer) >= 4:
            kind, size, begin = self._buffer[0], self._buffer[1], 2
            if size == _TWO_BYTES:
                size, begin = int.from_bytes(self._buffer[2:4], "big"), 4
            if len(self._buffer) < begin + size:
                return
            payload, self._buffer = self._buffer[begin : begin + size], self._buffer[begin + size :]
            self._take(kind, payload)
        if self._buffer == _EMPTY_PING:  # shorter than any other
            self._buffer = b""
            self._take(_PING, b"")

    def connection_lost(self, exc: Exception | None) -> None:
        for waiting in (self.opened, self.closed):
            if not waiting.done():
                waiting.set_exception(exc or ConnectionError("closed without a word"))
                waiting.exception()  # looked at: whoever waits is told, and nobody may be

    def _take(self, kind: int, payload: bytes) -> None:
        assert self._transport is not None
        if kind == _PING:
            self._transport.write(bytes((_PONG, 0x80 | len(payload))) + _MASK + payload)
        elif kind == _TEXT:
            self.heard.append((time.perf_counter(), json.loads(payload)["id"]))
        elif kind == _CLOSE:
            self.closed.set_result((struct.unpack("!H", payload[:2])[0], payload[2:].decode()))
            self._transport.write(bytes((_CLOSE, 0x80 | 2)) + _MASK + payload[:2])
            self._transport.close()


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    count: int = options.sockets
    with Workshop() as workshop:
        house = House(workshop)
        house.start_valkey()
        house.locate({})
        gateway = house.start("gateway", max_connections=count + 100, websocket_ping_seconds=PING_SECONDS)
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
        idle = cpu_seconds(gateway.pid)
        await asyncio.sleep(PING_SECONDS)
        idle = (cpu_seconds(gateway.pid) - idle) / PING_SECONDS
        valkey = Valkey(house.valkey_url)
        crowd = Crowd(valkey, users, sockets, gateway.pid)
        rounds: dict[int, list[dict[str, float]]] = {rate: [] for rate in options.rates}
        for number in range(options.rounds):
            for rate, found in rounds.items():
                found.append(await crowd.deliver(rate, options.seconds))
                say(f"round {number + 1}, {rate}/s: {found[-1]}")

        began = time.perf_counter()
        gateway.process.ask_to_stop()
        told = await asyncio.gather(*(socket.closed for socket in sockets))
        leaving = time.perf_counter() - began
        assert {code for code, _ in told} == {SERVICE_RESTART}
        pauses = [int(re.findall(r"\d+", reason)[0]) for _, reason in told]
        await valkey.close()
        await redis.aclose()
    return {
        "sockets": count,
        "memory_mb": round(grown / MEGABYTE, 1),
        "bytes_per_socket": round(grown / count),
        "handshakes_per_second": round(count / opening),
        "cpu_us_per_handshake": round(spent / count * 1e6),
        "idle_cpu_share": round(idle, 4),
        "idle_per_core": round(count / idle) if idle else None,
        "deliveries": {
            str(rate): {key: summary([one[key] for one in found]) for key in found[0]} for rate, found in rounds.items()
        },
        "told_to_leave_seconds": round(leaving, 2),
        "reconnect_ms": {"least": min(pauses), "median": statistics.median(pauses), "most": max(pauses)},
    }


@dataclass(frozen=True)
class Crowd:
    """Users with one open socket each."""

    valkey: Valkey
    users: list[UUID]
    sockets: list[Socket]
    gateway: int
    """Its process id."""

    async def deliver(self, rate: int, seconds: float) -> dict[str, float]:
        """Publish to random users for a while: ages, and what a delivery costs the gateway."""
        due: dict[str, tuple[float, Socket]] = {}
        under_way: set[asyncio.Task[Any]] = set()
        spent, began = cpu_seconds(self.gateway), time.perf_counter()
        moment = began
        while (moment := moment + random.expovariate(rate)) < began + seconds:
            index, identifier = random.randrange(len(self.users)), str(new_id())
            due[identifier] = (moment, self.sockets[index])
            if (early := moment - time.perf_counter()) > 0:
                await asyncio.sleep(early)
            message = json.dumps(NOTIFICATION | {"id": identifier})
            command = self.valkey.execute("PUBLISH", keys.notifications(self.users[index]), message)
            publishing = asyncio.ensure_future(command)
            under_way.add(publishing)
            publishing.add_done_callback(under_way.discard)
        async with asyncio.timeout(LIMIT_SECONDS):
            while sum(len(socket.heard) for socket in self.sockets) < len(due):  # noqa: ASYNC110 - they hear one by one
                await asyncio.sleep(0.05)
        cost = (cpu_seconds(self.gateway) - spent) / len(due)
        ages = []
        for socket in self.sockets:
            for at, identifier in socket.heard:
                moment, meant = due.pop(identifier)  # once, and at the right one
                assert meant is socket
                ages.append(1e3 * (at - moment))
            socket.heard.clear()
        ages.sort()
        return {
            "p50_ms": round(ages[len(ages) // 2], 2),
            "p99_ms": round(ages[len(ages) * 99 // 100], 2),
            "cpu_us": round(1e6 * cost, 1),
            "per_core_second": round(1 / cost),
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
    parser.add_argument("--rates", type=int, nargs="+", default=[200, 1_000, 2_000], help="messages a second")
    parser.add_argument("--rounds", type=int, default=3, help="(default 3)")
    parser.add_argument("--seconds", type=float, default=8, help="of messages at each rate (default 8)")
    options = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    figures = uvloop.run(asyncio.wait_for(measure(options), LIMIT_SECONDS))
    notes = [
        "Memory is the proportional share (Pss) beyond that of one open socket.",
        f"Idle: CPU of the gateway over {PING_SECONDS:.0f} s, in which each socket is pinged once.",
        "Age: from the moment a message is due to the client's read. One process publishes and reads; its turns count.",
    ]
    file = save("websockets", figures, notes=notes)
    print(json.dumps(figures, indent=1))
    say(f"saved to {file}")


if __name__ == "__main__":
    main()
