"""A whole gateway as ``fanfold run gateway`` starts it, on real Valkey, before small services of the test's own."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import httpx
import jwt
import pytest
import uvicorn
import uvloop
from fastapi import FastAPI, Request
from redis.asyncio import Redis
from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import CloseConnection, Event, Ping, TextMessage

from fanfold.contracts import keys
from fanfold.contracts.components import ROUTED
from fanfold.contracts.ids import new_id
from fanfold.contracts.snapshot import Slot, Snapshot, encode
from fanfold.dev.process import free_ports
from fanfold.gateway.app import build
from fanfold.kit.runtime import Runtime
from tests.waiting import eventually

if TYPE_CHECKING:
    from tests.integration.conftest import House, SettingsFor

WAIT = 60.0


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, Any]:
    """The loop that the gateway runs on."""
    return {"uvloop": uvloop.new_event_loop}


class Socket:
    """A WebSocket client."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.status = 0
        self.headers: dict[str, str] = {}
        self.pings = 0
        self._connection = Connection(ConnectionType.CLIENT)
        self._events: list[Event] = []

    async def handshake(self, target: str, headers: dict[str, str]) -> None:
        lines = {
            "host": "gateway",
            "connection": "Upgrade",
            "upgrade": "websocket",
            "sec-websocket-version": "13",
            "sec-websocket-key": base64.b64encode(os.urandom(16)).decode(),
            **headers,
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value)
        self.writer.write(f"GET {target} HTTP/1.1\r\n{head}\r\n".encode())
        async with asyncio.timeout(WAIT):
            raw = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        first, *rest = raw.rstrip("\r\n").split("\r\n")
        self.status = int(first.split(" ")[1])
        self.headers = {line.partition(": ")[0]: line.partition(": ")[2] for line in rest}

    def send(self, event: Event) -> None:
        self.writer.write(self._connection.send(event))

    async def event(self, *, answer_pings: bool = True) -> Event:
        """The next event but pings."""
        async with asyncio.timeout(WAIT):
            while True:
                while self._events:
                    event = self._events.pop(0)
                    if isinstance(event, Ping) and answer_pings:
                        self.pings += 1
                        self.send(event.response())
                    elif not isinstance(event, Ping):
                        return event
                data = await self.reader.read(65536)
                if not data:
                    raise EOFError
                self._connection.receive_data(data)
                self._events.extend(self._connection.events())

    async def message(self) -> Any:
        event = await self.event()
        assert isinstance(event, TextMessage), event
        return json.loads(event.data)

    async def closed(self, *, answer_pings: bool = True) -> tuple[int, str]:
        """Code and reason of the closing handshake, which is completed."""
        event = await self.event(answer_pings=answer_pings)
        assert isinstance(event, CloseConnection), event
        if self._connection.state is ConnectionState.REMOTE_CLOSING:
            self.send(event.response())
        assert await self.reader.read() == b""
        return event.code, event.reason or ""


class Rig:
    """The gateway, one service standing for all behind it, and what tests do to them.

    Attributes:
        seen: Requests as the service got them: method, target, headers.
        missed: What the service lists as notifications, oldest first.
    """

    def __init__(self, house: House, settings_for: SettingsFor, stack: AsyncExitStack, folder: Path) -> None:
        self._settings_for = settings_for
        self._running = AsyncExitStack()
        stack.push_async_callback(self.stop)
        self.house = house
        self.redis: Redis = house.redis
        self._stack = stack
        self._folder = folder
        self.file = folder / "snapshot.json"
        self.port, self.admin_port, self.service_port = free_ports(3)
        self.seen: list[Request] = []
        self.missed: list[dict[str, str]] = []
        self.before_listing: Callable[[], Awaitable[object]] | None = None
        self.user = new_id()
        self.session = new_id()

    async def start(self, **settings: Any) -> None:
        if not self.file.exists():
            self.locate()
        values: dict[str, Any] = {
            "traffic_port": self.port,
            "admin_port": self.admin_port,
            "snapshot_source": f"file:{self.file}",
            "snapshot_cache": self._folder / "cache",
            "grace_seconds": 0.3,
            "connect_seconds": WAIT,
            "request_seconds": WAIT,
            **settings,
        }
        runtime = Runtime(self._settings_for("gateway", **values))
        await self._running.enter_async_context(runtime.started(build))
        self.admin = await self._stack.enter_async_context(
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.admin_port}", timeout=WAIT)
        )
        self.client = await self._stack.enter_async_context(
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.port}", timeout=WAIT)
        )
        await eventually(self.ready)

    async def stop(self) -> None:
        """Shut the gateway down as SIGTERM does."""
        await self._running.aclose()

    async def ready(self) -> bool:
        return (await self.admin.get("/readyz")).status_code == 200

    def locate(self, epoch: int = 1, **counts: int) -> None:
        address = f"127.0.0.1:{self.service_port}"
        services = {name: [Slot(f"{name}-{n}", address) for n in range(counts.get(name, 1))] for name in ROUTED}
        partial = self.file.with_suffix(".partial")
        partial.write_bytes(encode(Snapshot("default/test", epoch, services)))
        partial.replace(self.file)

    def app(self) -> FastAPI:
        app = FastAPI()

        @app.get("/v1/notifications")
        async def _(request: Request) -> dict[str, Any]:
            self.seen.append(request)
            if self.before_listing is not None:
                await self.before_listing()
            after = request.query_params["after"]
            limit = int(request.query_params["limit"])
            return {"items": [one for one in self.missed if one["id"] > after][:limit], "next_cursor": None}

        @app.api_route("/{path:path}", methods=["GET", "POST", "PUT"])
        async def _(request: Request) -> dict[str, Any]:
            self.seen.append(request)
            return {"bytes": len(await request.body())}

        return app

    def token(self, *, lifetime: int = 900, session: UUID | None = None, user: UUID | None = None) -> str:
        key = self.house.secrets.read("token_private_key")
        now = int(time.time())
        claims = {
            "sub": str(user or self.user),
            "sid": str(session or self.session),
            "iat": now - 60,
            "exp": now + lifetime,
            "iss": "fanfold",
        }
        kid = json.loads(self.house.secrets.read("token_jwks"))["keys"][0]["kid"]
        return jwt.encode(claims, key, algorithm="EdDSA", headers={"kid": kid})

    def bearer(self, **over: Any) -> dict[str, str]:
        return {"authorization": f"Bearer {self.token(**over)}"}

    async def socket(self, query: str = "", headers: dict[str, str] | None = None) -> Socket:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self._stack.callback(writer.close)
        socket = Socket(reader, writer)
        await socket.handshake(f"/v1/ws{query}", self.bearer() if headers is None else headers)
        return socket

    async def open(self, query: str = "", headers: dict[str, str] | None = None) -> Socket:
        """A socket that hears its channel."""
        heard = await self.listeners()
        socket = await self.socket(query, headers)
        assert socket.status == 101
        if heard != 1:
            await eventually(self.listeners, "a gateway that listens")
        return socket

    async def listeners(self) -> int:
        ((_, count),) = await self.redis.pubsub_numsub(keys.notifications(self.user))
        return int(count)

    async def publish(self, identifier: UUID, **more: str) -> None:
        await self.redis.publish(keys.notifications(self.user), json.dumps({"id": str(identifier), **more}))

    async def metric(self, name: str) -> float:
        lines = (await self.admin.get("/metrics")).text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name) and line[0] != "#")


@pytest.fixture
async def rig(house: House, settings_for: SettingsFor, tmp_path: Path) -> AsyncIterator[Rig]:
    async with AsyncExitStack() as stack:
        rig = Rig(house, settings_for, stack, tmp_path)
        config = uvicorn.Config(
            rig.app(), host="127.0.0.1", port=rig.service_port, lifespan="off", log_config=None, access_log=False
        )
        server = uvicorn.Server(config)
        server.capture_signals = nullcontext  # type: ignore[assignment, method-assign]  # signals are pytest's
        serving = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        yield rig
        server.should_exit = True
        server.force_exit = True
        await serving
