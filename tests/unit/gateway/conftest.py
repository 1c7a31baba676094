"""A gateway on real sockets before scripted services: what clients send and services get is seen byte by byte."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from ssl import SSLContext
from typing import Any
from uuid import UUID, uuid4

import jwt
import pytest
import uvloop
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fanfold.contracts.components import ROUTED
from fanfold.contracts.snapshot import Slot, Snapshot
from fanfold.gateway.balancer import Balancer
from fanfold.gateway.context import Context
from fanfold.gateway.cors import Cors
from fanfold.gateway.handshake import Handshake
from fanfold.gateway.limits import limits_of
from fanfold.gateway.metrics import GatewayStats
from fanfold.gateway.pages import pages
from fanfold.gateway.routes import RouteTable, public_routes
from fanfold.gateway.server import Server
from fanfold.gateway.settings import GatewaySettings
from fanfold.gateway.tokens import KeySet, Tokens
from fanfold.gateway.websocket import Hub
from fanfold.kit.fanin import FanIn
from fanfold.kit.identity import IdentitySigner

IDENTITY_KEY = "11" * 32
WAIT = 30.0
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, Any]:
    """The loop that the gateway runs on."""
    return {"uvloop": uvloop.new_event_loop}


@dataclass
class Received:
    """One request as a service got it."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes
    connection: int

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name]

    def one(self, name: str) -> str:
        (value,) = self.all(name)
        return value


Script = Callable[["Service", Received, asyncio.StreamWriter], Awaitable[None]]


async def answer_ok(_: Service, __: Received, writer: asyncio.StreamWriter) -> None:
    writer.write(OK)


@dataclass
class Service:
    """A service that does as its script says. ``close`` in a script ends the connection."""

    script: Script = answer_ok
    wait_for_body: bool = True
    received: list[Received] = field(default_factory=list)
    connections: int = 0
    open_writers: set[asyncio.StreamWriter] = field(default_factory=set)
    address: str = ""
    server: asyncio.Server | None = None

    async def start(self) -> None:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self.server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        if self.server is not None:
            self.server.close()
        for writer in tuple(self.open_writers):
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        number = self.connections
        self.open_writers.add(writer)
        with suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            while not writer.is_closing():
                request = await self._read(reader, number)
                self.received.append(request)
                await self.script(self, request, writer)
        self.open_writers.discard(writer)
        writer.close()

    async def _read(self, reader: asyncio.StreamReader, number: int) -> Received:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.rstrip("\r\n").split("\r\n")
        method, target, _ = first.split(" ")
        pairs = [(line.partition(": ")[0], line.partition(": ")[2]) for line in lines]
        values = dict(pairs)
        body = b""
        if self.wait_for_body and "content-length" in values:
            body = await reader.readexactly(int(values["content-length"]))
        elif self.wait_for_body and "transfer-encoding" in values:
            while size := int(await reader.readline(), 16):
                body += await reader.readexactly(size)
                await reader.readexactly(2)
            await reader.readexactly(2)
        self.reader = reader
        return Received(method, target, pairs, body, number)


@dataclass
class Got:
    """One answer as a client got it."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def problem(self) -> dict[str, Any]:
        assert self.headers["content-type"] == "application/problem+json"
        document: dict[str, Any] = json.loads(self.body)
        assert document["status"] == self.status
        return document


class Wire:
    """A client's raw connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def head(self) -> tuple[int, dict[str, str]]:
        async with asyncio.timeout(WAIT):
            raw = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = raw.rstrip("\r\n").split("\r\n")
        headers: dict[str, str] = {}
        for line in lines:
            name, _, value = line.partition(": ")
            assert name not in headers, f"{name} came twice"
            headers[name] = value
        return int(first.split(" ")[1]), headers

    async def answer(self, *, to_head: bool = False) -> Got:
        status, headers = await self.head()
        async with asyncio.timeout(WAIT):
            if to_head or status in (204, 304) or status < 200:
                body = b""
            elif "content-length" in headers:
                body = await self.reader.readexactly(int(headers["content-length"]))
            elif headers.get("transfer-encoding") == "chunked":
                body = b""
                while piece := await self.chunk():
                    body += piece
            else:
                body = await self.reader.read()
        return Got(status, headers, body)

    async def chunk(self) -> bytes:
        async with asyncio.timeout(WAIT):
            size = int(await self.reader.readline(), 16)
            data = await self.reader.readexactly(size)
            assert await self.reader.readexactly(2) == b"\r\n"
        return data

    async def ended(self) -> bool:
        """The gateway closed the connection, with nothing more to say."""
        async with asyncio.timeout(WAIT):
            with suppress(ConnectionError):
                return await self.reader.read() == b""
            return True

    async def quiet(self, seconds: float = 0.1) -> bool:
        """The connection stays open and nothing comes."""
        try:
            async with asyncio.timeout(seconds):
                await self.reader.read(1)
        except TimeoutError:
            return True
        return False


class Issuer:
    """Signs access tokens as the profile service does."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "token_jwks"
        self.key = Ed25519PrivateKey.generate()
        self.publish({"key-1": self.key})

    def publish(self, keys: dict[str, Ed25519PrivateKey]) -> None:
        public = [
            {**json.loads(jwt.get_algorithm_by_name("EdDSA").to_jwk(key.public_key())), "kid": kid, "alg": "EdDSA"}
            for kid, key in keys.items()
        ]
        partial = self.path.with_suffix(".partial")
        partial.write_text(json.dumps({"keys": public}))
        partial.replace(self.path)

    def token(
        self,
        user: UUID | None = None,
        session: UUID | None = None,
        *,
        key: Any = None,
        kid: str = "key-1",
        algorithm: str = "EdDSA",
        without: str = "",
        **claims: Any,
    ) -> str:
        now = int(time.time())
        body = {
            "sub": str(user or uuid4()),
            "sid": str(session or uuid4()),
            "iat": now,
            "exp": now + 900,
            "iss": "fanfold",
            **claims,
        }
        body.pop(without, None)
        return jwt.encode(body, self.key if key is None else key, algorithm=algorithm, headers={"kid": kid})


class Rig:
    """A running gateway and the services behind it, all of them one scripted service unless told otherwise."""

    def __init__(self, stack: AsyncExitStack, folder: Path) -> None:
        self._stack = stack
        self.issuer = Issuer(folder)
        self.signer = IdentitySigner(IDENTITY_KEY)
        self.draining = False
        self.missed: list[bytes] = []
        self.service = Service()

    async def start(
        self, services: dict[str, list[Service]] | None = None, *, tls: SSLContext | None = None, **settings: Any
    ) -> None:
        values: dict[str, Any] = {
            "traffic_host": "127.0.0.1",
            "traffic_port": 0,
            "snapshot_source": "file:/nowhere",
            "grace_seconds": 1,
            "connect_seconds": 10,
            **settings,
        }
        self.settings = GatewaySettings(**values)
        behind = services or {name: [self.service] for name in ROUTED}
        for service in {id(one): one for many in behind.values() for one in many}.values():
            if service.server is None:
                await service.start()
                self._stack.push_async_callback(service.stop)
        self.stats = GatewayStats()
        self.balancer = Balancer(self.settings, self.stats)
        self.locate({name: [one.address for one in many] for name, many in behind.items()})
        self.tokens = Tokens(KeySet(self.issuer.path), self.signer)
        self.tokens.reload_keys()
        self.hub = Hub(self.settings, self.stats, FanIn("redis://127.0.0.1:1"), self._missed)
        self.routes = RouteTable(public_routes(self.settings))
        self.context = Context(
            settings=self.settings,
            routes=self.routes,
            tokens=self.tokens,
            balancer=self.balancer,
            stats=self.stats,
            pages=pages(),
            open_socket=Handshake(self.settings, self.tokens, self.hub).open,
            draining=lambda: self.draining,
            limits=limits_of(self.settings, self.stats),
            cors=Cors(self.settings.cors_origins) if self.settings.cors_origins else None,
        )
        self.server = Server(self.context, tls)
        await self.server.start()
        clock = asyncio.create_task(self.server.run())
        self._stack.push_async_callback(self._stop, clock)

    def locate(self, addresses: dict[str, list[str]], epoch: int = 1, state: Any = "active") -> None:
        services = {
            name: [Slot(f"{name}-{index}", address, state) for index, address in enumerate(many)]
            for name, many in addresses.items()
        }
        snapshot = Snapshot("default/test", epoch, services)
        self.balancer.apply(snapshot, self.balancer.build_rings(snapshot))

    async def _missed(self, *_: Any) -> list[bytes]:
        return self.missed

    async def _stop(self, clock: asyncio.Task[None]) -> None:
        await self.server.drain()
        clock.cancel()
        with suppress(asyncio.CancelledError):
            await clock

    async def wire(self) -> Wire:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.server.port)
        self._stack.callback(writer.close)
        return Wire(reader, writer)

    def bearer(self, user: UUID | None = None) -> bytes:
        return b"authorization: Bearer %b\r\n" % self.issuer.token(user).encode()

    def request(
        self, line: bytes = b"GET /v1/feed", headers: bytes = b"", body: bytes = b"", user: UUID | None = None
    ) -> bytes:
        """A request with Host, a fresh token and, when it has a body, its length."""
        length = b"content-length: %d\r\n" % len(body) if body else b""
        return line + b" HTTP/1.1\r\nhost: gateway\r\n" + self.bearer(user) + headers + length + b"\r\n" + body

    async def ask(
        self, line: bytes = b"GET /v1/feed", headers: bytes = b"", body: bytes = b"", user: UUID | None = None
    ) -> Got:
        """One request on a connection of its own."""
        wire = await self.wire()
        wire.send(self.request(line, headers, body, user))
        return await wire.answer(to_head=line.startswith(b"HEAD"))

    @staticmethod
    def another(script: Script = answer_ok) -> Service:
        """A further service, for `start`."""
        return Service(script)

    async def send(self, data: bytes) -> Wire:
        wire = await self.wire()
        wire.send(data)
        return wire


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with AsyncExitStack() as stack:
        yield Rig(stack, tmp_path)


@pytest.fixture
def issuer(tmp_path: Path) -> Issuer:
    return Issuer(tmp_path)
