"""Hot routes: what is answered on the connection, what is left to the app, and that both end in order."""

from __future__ import annotations

import asyncio
import gzip
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import brotli
import pytest
from prometheus_client import REGISTRY
from starlette.responses import PlainTextResponse

from fanfold.contracts.ids import new_id
from fanfold.dev.process import free_ports
from fanfold.kit import deadline, hot
from fanfold.kit.errors import NotFound
from fanfold.kit.hot import HotProtocol, HotRoute, HotRoutes, Reply, page_target
from fanfold.kit.identity import Identity, IdentitySigner
from fanfold.kit.runtime import Runtime
from fanfold.kit.settings import Settings
from fanfold.kit.valkey import ValkeyUnavailableError

WAIT = 30.0
KEY = "ab" * 32
SIGNER = IdentitySigner(KEY)
USER = new_id()
LATER = time.time() + 3600
"""A run of all tests takes longer than an identity lives."""
IDENTITY = SIGNER.sign(Identity(user_id=USER, session_id=new_id()), LATER)
USUAL = f"host: x\r\nx-fanfold-identity: {IDENTITY}\r\nx-request-id: abcdefgh\r\n"


async def _nothing(user_id: UUID, *_: bytes | None) -> Reply:
    return Reply(user_id.hex.encode())


ROUTE = HotRoute("/hot", page_target(b"/hot"), _nothing)


def _request(target: str = "/hot", lines: str = USUAL, method: str = "GET", version: str = "HTTP/1.1") -> bytes:
    return f"{method} {target} {version}\r\n{lines}\r\n".encode()


def _found(data: bytes) -> hot.Asked | None:
    return HotRoutes([ROUTE], SIGNER, draining=lambda: False).find(data)


def test_a_request_as_the_gateway_writes_it_is_hot() -> None:
    soon = int(time.time() * 1000) + 60_000
    asked = _found(_request("/hot?limit=7&cursor=ab-_9", f"{USUAL}x-fanfold-deadline: {soon}\r\n"))
    assert asked is not None
    assert (asked.user_id, asked.groups, asked.request_id) == (USER, (b"7", b"ab-_9"), b"abcdefgh")
    assert asked.deadline == str(soon).encode()


@pytest.mark.parametrize(
    ("target", "groups"),
    [("/hot", (None, None)), ("/hot?limit=100", (b"100", None)), ("/hot?cursor=a", (None, b"a"))],
)
def test_limit_and_cursor_may_be_left_out(target: str, groups: tuple[bytes | None, ...]) -> None:
    asked = _found(_request(target))
    assert asked is not None
    assert asked.groups == groups


@pytest.mark.parametrize(
    "target",
    [
        "/other", "/hot/", "/hotter", "/hot?limit=0", "/hot?limit=101", "/hot?limit=-1", "/hot?limit=007", "/hot?x=1",
        "/hot?limit=5cursor=a", "/hot?cursor=a&limit=5", "/hot?cursor=%41", "/hot?cursor=" + "a" * 65, "/%68ot",
        "//hot", "http://x/hot", "/hot?limit=5 HTTP/1.1", "/hot\t",
    ],
)  # fmt: skip
def test_a_target_that_is_not_plainly_right_is_left_to_the_app(target: str) -> None:
    assert _found(_request(target)) is None


@pytest.mark.parametrize(
    "data",
    [
        _request(method="POST"),
        _request(method="HEAD"),
        _request(version="HTTP/1.0"),
        _request(lines=USUAL + "Connection: close\r\n"),
        _request(lines=USUAL + "connection:close\r\n"),
        _request(lines=USUAL + "Content-Length: 4\r\n"),
        _request(lines=USUAL + "transfer-encoding: chunked\r\n"),
        _request(lines=USUAL + "expect: 100-continue\r\n"),
        _request(lines=USUAL + "upgrade: websocket\r\n"),
        _request(lines=USUAL + f"x-fanfold-identity: {IDENTITY}\r\n"),
        _request(lines=USUAL + "x-request-id: other123\r\n"),
        _request(lines="host: x\r\n"),
        _request(lines=f"host: x\r\nx-fanfold-identity: {IDENTITY[:-1]}x\r\n"),
        _request(lines=f"host: x\r\nx-fanfold-identity: {SIGNER.sign(Identity(), LATER)}\r\n"),
        _request(lines=f"host: x\r\nx-fanfold-identity: {SIGNER.sign(Identity(service='post'), LATER)}\r\n"),
        _request(lines=USUAL + "x-fanfold-deadline: 1000\r\n"),
        _request(lines=USUAL + "a: b\nc: d\r\n"),
        _request() + _request(),
        _request()[:-1],
        _request()[:30],
        b"",
    ],
)
def test_what_is_unusual_or_wrong_is_left_to_the_app(data: bytes) -> None:
    assert _found(data) is None


Serve = Callable[..., AbstractAsyncContextManager[tuple[Runtime[Settings], int]]]


@pytest.fixture
def serve(tmp_path: Path) -> Serve:
    """A service with one hot route; every other request is answered ``slow`` by its app."""
    (tmp_path / "identity_key").write_text(KEY)

    @asynccontextmanager
    async def start(answer: Callable[..., Any], **over: Any) -> AsyncIterator[tuple[Runtime[Settings], int]]:
        (port,) = free_ports(1)
        host = {"traffic_host": "127.0.0.1", "admin_host": "127.0.0.1", "traffic_port": port, "admin_port": 0}
        values: dict[str, Any] = {"drain_seconds": 0, "grace_seconds": 30, **host, **over}
        runtime = Runtime(Settings(secrets_dir=tmp_path, **values))
        runtime.hot(HotRoute("/hot", page_target(b"/hot"), answer, b"cache-control: no-store\r\n"))

        async def build(_: Runtime[Settings]) -> Any:
            return PlainTextResponse("slow")

        async with runtime.started(build):
            yield runtime, port

    return start


class Client:
    """A raw connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    @asynccontextmanager
    async def to(cls, port: int) -> AsyncIterator[Client]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            yield cls(reader, writer)
        finally:
            writer.close()

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self) -> tuple[bytes, bytes]:
        """Head and body of the next answer."""
        async with asyncio.timeout(WAIT):
            head = (await self.reader.readuntil(b"\r\n\r\n")).lower()
            length = re.search(rb"\r\ncontent-length: (\d+)", head)
            assert (length is None) is head.startswith(b"http/1.1 304")
            return head, await self.reader.readexactly(int(length[1])) if length else b""

    async def ended(self) -> bool:
        async with asyncio.timeout(WAIT):
            return await self.reader.read(1) == b""


async def test_hot_and_other_requests_take_turns_on_one_connection(serve: Serve) -> None:
    async with serve(_nothing) as (_, port), Client.to(port) as client:
        for target, body in (("/hot", USER.hex), ("/other", "slow"), ("/hot?limit=2", USER.hex), ("/hot?x=1", "slow")):
            client.send(_request(target))
            head, got = await client.answer()
            assert head.startswith(b"http/1.1 200 ok\r\n")
            assert b"x-request-id: abcdefgh" in head
            assert head.count(b"\r\ndate: ") == 1
            assert got.decode() == body


@pytest.mark.parametrize(("accepted", "coding"), [("", b""), ("br", b"br"), ("br;q=0.1, gzip", b"gzip"), ("zstd", b"")])
async def test_a_large_answer_is_compressed_for_who_asks(serve: Serve, accepted: str, coding: bytes) -> None:
    async def large(_user_id: UUID, _had: bytes, limit: bytes | None, _: bytes | None) -> Reply:
        return Reply(b"photo " * int(limit or 0))

    lines = USUAL + (f"accept-encoding: {accepted}\r\n" if accepted else "")
    async with serve(large, compression_bytes=300) as (_, port), Client.to(port) as client:
        client.send(_request("/hot?limit=49", lines))
        head, body = await client.answer()
        assert (b"content-encoding" in head, b"vary" in head, len(body)) == (False, False, 294)
        client.send(_request("/hot?limit=50", lines))
        head, body = await client.answer()
        assert b"\r\nvary: accept-encoding\r\n" in head
        assert (b"\r\ncontent-encoding: %b\r\n" % coding in head) is bool(coding)
        assert {b"": bytes, b"gzip": gzip.decompress, b"br": brotli.decompress}[coding](body) == b"photo " * 50
    async with serve(large, compression=()) as (_, port), Client.to(port) as client:
        client.send(_request("/hot?limit=100", lines))
        head, body = await client.answer()
        assert (b"content-encoding" in head, b"vary" in head, len(body)) == (False, False, 600)


async def test_who_has_it_gets_304_and_the_connection_goes_on(serve: Serve) -> None:
    async def tagged(_user_id: UUID, had: bytes, *_: bytes | None) -> Reply:
        return Reply(b"", b'etag: "1"\r\n', 304) if had == b'"1"' else Reply(b"page", b'etag: "1"\r\n')

    async with serve(tagged) as (_, port), Client.to(port) as client:
        for had, answer in ((b"", b"page"), (b'"1"', b""), (b'"2"', b"page")):
            client.send(_request("/hot", USUAL + (f"if-none-match: {had.decode()}\r\n" if had else "")))
            head, body = await client.answer()
            assert (head.startswith(b"http/1.1 304 not modified\r\n"), body) == (not answer, answer)
            assert b'\r\netag: "1"\r\n' in head
            assert b"\r\ncache-control: no-store\r\n" in head


async def test_pipelined_requests_are_answered_in_order(serve: Serve) -> None:
    begun = asyncio.Event()

    async def slowly(user_id: UUID, _had: bytes, limit: bytes | None, _: bytes | None) -> Reply:
        begun.set()
        await asyncio.sleep(0.01)
        return Reply(limit or b"")

    async with serve(slowly) as (_, port), Client.to(port) as client:
        client.send(_request("/hot?limit=1"))
        await asyncio.wait_for(begun.wait(), WAIT)
        client.send(_request("/hot?limit=2") + _request("/other") + _request("/hot?limit=3"))
        # Those that came together go through the app, as nobody knows where one ends but its parser.
        assert [(await client.answer())[1] for _ in range(4)] == [b"1", b"slow", b"slow", b"slow"]
        client.send(_request("/hot?limit=4"))
        assert (await client.answer())[1] == b"4"


async def test_a_request_that_comes_in_pieces_is_answered(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    came, receive = asyncio.Event(), HotProtocol.data_received

    def noted(self: HotProtocol, data: bytes) -> None:
        came.set()
        receive(self, data)

    monkeypatch.setattr(HotProtocol, "data_received", noted)
    async with serve(_nothing) as (_, port), Client.to(port) as client:
        data = _request()
        client.send(data[:20])
        await asyncio.wait_for(came.wait(), WAIT)
        client.send(data[20:])
        assert (await client.answer())[1] == b"slow"
        client.send(data)
        assert (await client.answer())[1] == USER.hex.encode()


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (NotFound("Not there."), b"404", b"application/problem+json"),
        (ValkeyUnavailableError("gone"), b"503", b"retry-after: 1"),
        (RuntimeError("a bug"), b"500", b"application/problem+json"),
    ],
)
async def test_errors_are_problem_details(serve: Serve, error: Exception, status: bytes, line: bytes) -> None:
    async def fails(*_: Any) -> Reply:
        raise error

    async with serve(fails) as (_, port), Client.to(port) as client:
        for _ in range(2):
            client.send(_request())
            head, body = await client.answer()
            assert head.split()[1] == status
            assert line in head
            assert b'"request_id":"abcdefgh"' in body
            assert b"a bug" not in body


async def test_hot_requests_are_counted_and_know_their_deadline(serve: Serve) -> None:
    seen: list[bytes] = []

    async def look(*_: Any) -> Reply:
        seen.append(deadline.current.get())
        return Reply(b"{}")

    def counted() -> float:
        labels = {"route": "/hot", "method": "GET", "status": "200"}
        return REGISTRY.get_sample_value("fanfold_http_requests_total", labels) or 0

    before = counted()
    until = str(int(time.time() * 1000) + 60_000).encode()
    async with serve(look) as (_, port), Client.to(port) as client:
        client.send(_request(lines=f"{USUAL}x-fanfold-deadline: {until.decode()}\r\n"))
        head, _body = await client.answer()
    assert b"cache-control: no-store" in head
    assert seen == [until]
    assert counted() == before + 1


async def test_draining_answers_close_their_connection(serve: Serve) -> None:
    async with serve(_nothing) as (runtime, port), Client.to(port) as client:
        runtime.draining = True
        client.send(_request())
        head, _ = await client.answer()
        assert b"connection: close" in head
        assert await client.ended()


async def test_shutdown_waits_for_the_answer_under_way(serve: Serve) -> None:
    begun, go = asyncio.Event(), asyncio.Event()

    async def wait(*_: Any) -> Reply:
        begun.set()
        await go.wait()
        return Reply(b"at last")

    async with serve(wait) as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        client = Client(reader, writer)
        client.send(_request())
        await asyncio.wait_for(begun.wait(), WAIT)
        asyncio.get_running_loop().call_later(0.2, go.set)
    assert (await client.answer())[1] == b"at last"
    assert await client.ended()
    writer.close()


async def test_a_client_that_leaves_is_not_written_to(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    begun, go = asyncio.Event(), asyncio.Event()

    async def wait(*_: Any) -> Reply:
        begun.set()
        await go.wait()
        return Reply(b"{}")

    async with serve(wait) as (_, port):
        async with Client.to(port) as client:
            client.send(_request())
            await asyncio.wait_for(begun.wait(), WAIT)
        await asyncio.sleep(0.02)
        go.set()
        async with Client.to(port) as client:
            client.send(_request())
            assert (await client.answer())[1] == b"{}"
    assert not [record for record in caplog.records if record.levelname in {"ERROR", "CRITICAL"}]
