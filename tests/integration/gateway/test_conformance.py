"""HTTP/1.1 as raw bytes (RFC 9110, 9112): what is refused and how, what is served, and what a service gets to see.

Every case ends with another request on the same connection: after a refusal that closes it must never be answered, nor
reach the service; after an answer that keeps the connection it must.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import pytest
import uvloop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.gateway.conftest import Received, Rig, Service, Wire, answer_ok
from tests.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.integration

HOST: Final = b"Host: a\r\n"
CHUNKED: Final = b"Transfer-Encoding: chunked\r\n"
GET: Final = b"GET /v1/media/x HTTP/1.1\r\n"
POST: Final = b"POST /v1/accounts HTTP/1.1\r\n"
NEXT: Final = b"GET /v1/media/next HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
BAD: Final = (400, "bad-request")


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, object]:
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
async def wire_rig(tmp_path: Path) -> AsyncIterator[Rig]:
    """A gateway before one scripted service."""
    async with AsyncExitStack() as stack:
        rig = Rig(stack, tmp_path)
        await rig.start()
        yield rig


# name: (bytes, status, kind of problem). The connection is closed, and the service sees nothing.
REFUSED: Final[dict[str, tuple[bytes, int, str]]] = {
    "line: bare LF": (b"GET /v1/media/x HTTP/1.1\nHost: a\n\n", *BAD),
    "line: bare CR": (b"GET /v1/media/x HTTP/1.1\rHost: a\r\n\r\n", *BAD),
    "line: space in the target": (b"GET /v1/media/a b HTTP/1.1\r\n" + HOST + b"\r\n", *BAD),
    "line: tab for a space": (b"GET\t/v1/media/x\tHTTP/1.1\r\n" + HOST + b"\r\n", *BAD),
    "line: NUL in the target": (b"GET /v1/media/\x00 HTTP/1.1\r\n" + HOST + b"\r\n", *BAD),
    "line: byte beyond ASCII in the target": (b"GET /v1/media/\xff HTTP/1.1\r\n" + HOST + b"\r\n", *BAD),
    "line: lower-case method": (b"get /v1/media/x HTTP/1.1\r\n" + HOST + b"\r\n", *BAD),
    "line: unknown method": (b"FETCH /v1/media/x HTTP/1.1\r\n" + HOST + b"\r\n", *BAD),
    "line: no HTTP": (b"nonsense\r\n\r\n", *BAD),
    "line: TLS hello": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", *BAD),
    "line: lower-case http": (b"GET /v1/media/x http/1.1\r\n" + HOST + b"\r\n", *BAD),
    "version: 1.2": (b"GET /v1/media/x HTTP/1.2\r\n" + HOST + b"\r\n", *BAD),
    "version: 2.0": (b"GET /v1/media/x HTTP/2.0\r\n" + HOST + b"\r\n", 505, "version-not-supported"),
    "version: HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", *BAD),
    "version: 0.9": (b"GET /v1/media/x\r\n\r\n", 505, "version-not-supported"),
    "target: relative": (b"GET v1/media/x HTTP/1.1\r\n" + HOST + b"\r\n", *BAD),
    "target: fragment": (b"GET /v1/media/a#b HTTP/1.1\r\n" + HOST + b"\r\n", *BAD),
    "target: asterisk": (b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n", *BAD),
    "target: authority form": (b"CONNECT a:80 HTTP/1.1\r\n" + HOST + b"\r\n", *BAD),
    "target: credentials in absolute form": (b"GET http://u:p@a/v1/media/x HTTP/1.1\r\n" + HOST + b"\r\n", *BAD),
    "target: absolute form of another scheme": (b"GET ftp://a/v1/media/x HTTP/1.1\r\n" + HOST + b"\r\n", *BAD),
    "target: over 8 KiB": (
        b"GET /v1/media/" + b"a" * 9_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n",
        414,
        "target-too-long",
    ),
    "target: endless": (b"GET /v1/media/" + b"a" * 100_000, 431, "headers-too-large"),
    "host: none": (GET + b"\r\n", *BAD),
    "host: two": (GET + HOST + b"Host: b\r\n\r\n", *BAD),
    "host: two that agree": (GET + HOST + HOST + b"\r\n", *BAD),
    "field: bare LF": (GET + b"Host: a\nX: y\r\n\r\n", *BAD),
    "field: bare LF ends the head": (GET + HOST + b"\n", *BAD),
    "field: bare CR": (GET + b"Host: a\rX: y\r\n\r\n", *BAD),
    "field: folded": (GET + b"Host: a\r\n b\r\n\r\n", *BAD),
    "field: folded with a tab": (GET + HOST + b"X: a\r\n\tb\r\n\r\n", *BAD),
    "field: space before the first": (GET + b" Host: a\r\n\r\n", *BAD),
    "field: space before the colon": (GET + b"Host : a\r\n\r\n", *BAD),
    "field: no name": (GET + HOST + b": b\r\n\r\n", *BAD),
    "field: no colon": (GET + HOST + b"nonsense\r\n\r\n", *BAD),
    "field: bracket in the name": (GET + HOST + b"A(: b\r\n\r\n", *BAD),
    "field: byte beyond ASCII in the name": (GET + HOST + b"A\xe4: b\r\n\r\n", *BAD),
    "field: NUL in the value": (GET + HOST + b"A: \x00\r\n\r\n", *BAD),
    "field: control character in the value": (GET + HOST + b"A: \x01\r\n\r\n", *BAD),
    "field: DEL in the value": (GET + HOST + b"A: \x7f\r\n\r\n", *BAD),
    "field: two Authorizations": (GET + HOST + b"Authorization: Bearer a\r\nAuthorization: Bearer b\r\n\r\n", *BAD),
    "head: one field over 32 KiB": (GET + HOST + b"X: " + b"a" * 40_000 + b"\r\n\r\n", 431, "headers-too-large"),
    "head: endless field": (GET + HOST + b"X: " + b"a" * 200_000, 431, "headers-too-large"),
    "head: over 100 fields": (
        GET + HOST + b"".join(b"X-%d: 1\r\n" % n for n in range(120)) + b"\r\n",
        431,
        "headers-too-large",
    ),
    "length: with chunked": (POST + HOST + b"Content-Length: 3\r\n" + CHUNKED + b"\r\n0\r\n\r\n", *BAD),
    "length: after chunked": (POST + HOST + CHUNKED + b"Content-Length: 3\r\n\r\n0\r\n\r\n", *BAD),
    "length: two": (POST + HOST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc", *BAD),
    "length: two that agree": (POST + HOST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", *BAD),
    "length: list": (POST + HOST + b"Content-Length: 3, 3\r\n\r\nabc", *BAD),
    "length: signed": (POST + HOST + b"Content-Length: +3\r\n\r\nabc", *BAD),
    "length: negative": (POST + HOST + b"Content-Length: -3\r\n\r\nabc", *BAD),
    "length: hexadecimal": (POST + HOST + b"Content-Length: 0x3\r\n\r\nabc", *BAD),
    "length: fraction": (POST + HOST + b"Content-Length: 3.0\r\n\r\nabc", *BAD),
    "length: empty": (POST + HOST + b"Content-Length: \r\n\r\n", *BAD),
    "length: with a space": (POST + HOST + b"Content-Length: 3 3\r\n\r\n", *BAD),
    "length: beyond 64 bits": (POST + HOST + b"Content-Length: 99999999999999999999999\r\n\r\n", *BAD),
    "length: over the route's limit": (POST + HOST + b"Content-Length: 70000\r\n\r\n", 413, "too-large"),
    "coding: chunked not last": (POST + HOST + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", *BAD),
    "coding: chunked twice": (POST + HOST + CHUNKED + CHUNKED + b"\r\n0\r\n\r\n", *BAD),
    "coding: chunked behind a control": (POST + HOST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", *BAD),
    "coding: space before the colon": (POST + HOST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", *BAD),
    "coding: chunked in 1.0": (b"POST /v1/accounts HTTP/1.0\r\n" + HOST + CHUNKED + b"\r\n0\r\n\r\n", *BAD),
    "coding: gzip, chunked": (
        POST + HOST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        501,
        "coding-not-implemented",
    ),
    "coding: gzip": (POST + HOST + b"Transfer-Encoding: gzip\r\n\r\nabc", 501, "coding-not-implemented"),
    "coding: identity": (POST + HOST + b"Transfer-Encoding: identity\r\n\r\nabc", 501, "coding-not-implemented"),
    "chunk: size no number": (POST + HOST + CHUNKED + b"\r\nzz\r\n\r\n", *BAD),
    "chunk: size missing": (POST + HOST + CHUNKED + b"\r\n\r\nabc\r\n0\r\n\r\n", *BAD),
    "chunk: size signed": (POST + HOST + CHUNKED + b"\r\n+3\r\nabc\r\n0\r\n\r\n", *BAD),
    "chunk: size with 0x": (POST + HOST + CHUNKED + b"\r\n0x3\r\nabc\r\n0\r\n\r\n", *BAD),
    "chunk: size ends in a bare LF": (POST + HOST + CHUNKED + b"\r\n3\nabc\r\n0\r\n\r\n", *BAD),
    "chunk: data ends in a bare LF": (POST + HOST + CHUNKED + b"\r\n3\r\nabc\n0\r\n\r\n", *BAD),
    "chunk: longer than it says": (POST + HOST + CHUNKED + b"\r\n3\r\nabcd\r\n0\r\n\r\n", *BAD),
    "chunk: size beyond 64 bits": (POST + HOST + CHUNKED + b"\r\nffffffffffffffffff\r\nabc", *BAD),
    "chunk: extension with a bare LF": (POST + HOST + CHUNKED + b"\r\n3;a=b\nabc\r\n0\r\n\r\n", *BAD),
    "chunk: trailer": (POST + HOST + CHUNKED + b"\r\n3\r\nabc\r\n0\r\nX-T: 1\r\n\r\n", *BAD),
    "chunk: smuggling trailer": (POST + HOST + CHUNKED + b"\r\n0\r\nContent-Length: 5\r\n\r\n", *BAD),
    "expect: another": (
        POST + HOST + b"Expect: 200-ok\r\nContent-Length: 2\r\n\r\nhi",
        417,
        "expectation-failed",
    ),
    "upgrade: with a body": (
        POST + HOST + b"Connection: upgrade\r\nUpgrade: x\r\nContent-Length: 3\r\n\r\nabc",
        *BAD,
    ),
    "upgrade: with a chunked body": (
        POST + HOST + CHUNKED + b"Connection: upgrade\r\nUpgrade: x\r\n\r\n0\r\n\r\n",
        *BAD,
    ),
}

# name: (bytes, status, kind). Well-formed, yet not served: the connection is good for more.
DECLINED: Final[dict[str, tuple[bytes, int, str]]] = {
    "path: unknown": (b"GET /nothing HTTP/1.1\r\n" + HOST + b"\r\n", 404, "not-found"),
    "path: internal": (b"GET /internal/users/batch HTTP/1.1\r\n" + HOST + b"\r\n", 404, "not-found"),
    "path: dot segments": (b"GET /v1/media/../../internal/x HTTP/1.1\r\n" + HOST + b"\r\n", 404, "not-found"),
    "path: encoded slash": (b"GET /v1/media/..%2f..%2finternal HTTP/1.1\r\n" + HOST + b"\r\n", *BAD),
    "path: encoded NUL": (b"GET /v1/media/a%00 HTTP/1.1\r\n" + HOST + b"\r\n", *BAD),
    "method: none of the path's": (b"DELETE /v1/media/x HTTP/1.1\r\n" + HOST + b"\r\n", 405, "method-not-allowed"),
    "method: TRACE": (b"TRACE /v1/media/x HTTP/1.1\r\n" + HOST + b"\r\n", 405, "method-not-allowed"),
    "token: none": (b"GET /v1/feed HTTP/1.1\r\n" + HOST + b"\r\n", 401, "unauthorized"),
    "token: forged": (
        b"GET /v1/feed HTTP/1.1\r\n" + HOST + b"Authorization: Bearer a.b.c\r\n\r\n",
        401,
        "invalid-token",
    ),
    "upgrade: none on the socket's path": (b"GET /v1/ws HTTP/1.1\r\n" + HOST + b"\r\n", 426, "upgrade-required"),
}


@dataclass(frozen=True)
class Served:
    """A request that is served, what its service gets, and whether the connection is kept."""

    raw: bytes
    target: str = "/v1/media/x"
    body: bytes = b""
    kept: bool = True
    host: str = "a"


SERVED: Final[dict[str, Served]] = {
    "plain": Served(GET + HOST + b"\r\n"),
    "two spaces in the request line": Served(b"GET  /v1/media/x HTTP/1.1\r\n" + HOST + b"\r\n"),
    "empty lines before it": Served(b"\r\n\r\n" + GET + HOST + b"\r\n"),
    "query": Served(b"GET /v1/media/x?a=b&c=%20 HTTP/1.1\r\n" + HOST + b"\r\n", "/v1/media/x?a=b&c=%20"),
    "no space behind the colon": Served(GET + b"Host:a\r\n\r\n"),
    "spaces and tabs around the value": Served(GET + b"Host: \t a \t \r\n\r\n"),
    "host with a port": Served(GET + b"Host: a:8000\r\n\r\n", host="a:8000"),
    "host in capitals": Served(GET + b"HOST: a\r\n\r\n"),
    "empty field": Served(GET + HOST + b"X:\r\n\r\n"),
    "bytes beyond ASCII in a value": Served(GET + HOST + b"X: \xe4\r\n\r\n"),
    "absolute form": Served(b"GET http://b/v1/media/x HTTP/1.1\r\n" + HOST + b"\r\n", host="b"),
    "absolute form over TLS": Served(b"GET HTTPS://b:443/v1/media/x HTTP/1.1\r\n" + HOST + b"\r\n", host="b:443"),
    "field just below 32 KiB": Served(GET + HOST + b"X: " + b"a" * 32_000 + b"\r\n\r\n"),
    "close": Served(GET + HOST + b"Connection: close\r\n\r\n", kept=False),
    "close among others": Served(GET + HOST + b"Connection: x, Close\r\n\r\n", kept=False),
    "keep-alive": Served(GET + HOST + b"Connection: keep-alive\r\n\r\n"),
    "HTTP/1.0": Served(b"GET /v1/media/x HTTP/1.0\r\n" + HOST + b"\r\n", kept=False),
    "HTTP/1.0 without Host": Served(b"GET /v1/media/x HTTP/1.0\r\n\r\n", kept=False, host="fanfold"),
    "HTTP/1.0 that wants to be kept": Served(
        b"GET /v1/media/x HTTP/1.0\r\nConnection: keep-alive\r\n" + HOST + b"\r\n", kept=False
    ),
    "body by length": Served(POST + HOST + b"Content-Length: 3\r\n\r\nabc", "/v1/accounts", b"abc"),
    "body of nothing": Served(POST + HOST + b"Content-Length: 0\r\n\r\n", "/v1/accounts"),
    "body on GET": Served(GET + HOST + b"Content-Length: 3\r\n\r\nabc", body=b"abc"),
    "leading zeros in the length": Served(POST + HOST + b"Content-Length: 003\r\n\r\nabc", "/v1/accounts", b"abc"),
    "chunked": Served(POST + HOST + CHUNKED + b"\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", "/v1/accounts", b"abcde"),
    "chunked in capitals": Served(
        POST + HOST + b"TRANSFER-ENCODING: Chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", "/v1/accounts", b"abc"
    ),
    "chunk of size A": Served(
        POST + HOST + CHUNKED + b"\r\nA\r\n0123456789\r\n0\r\n\r\n", "/v1/accounts", b"0123456789"
    ),
    "chunk size with zeros": Served(POST + HOST + CHUNKED + b"\r\n0003\r\nabc\r\n000\r\n\r\n", "/v1/accounts", b"abc"),
    "chunk extension": Served(POST + HOST + CHUNKED + b'\r\n3;a=b;c="d"\r\nabc\r\n0;e\r\n\r\n', "/v1/accounts", b"abc"),
    "no chunk but the last": Served(POST + HOST + CHUNKED + b"\r\n0\r\n\r\n", "/v1/accounts"),
    "upgrade to h2c": Served(GET + HOST + b"Connection: upgrade, http2-settings\r\nUpgrade: h2c\r\n\r\n"),
    "upgrade without Connection": Served(GET + HOST + b"Upgrade: websocket\r\n\r\n"),
    "websocket elsewhere": Served(GET + HOST + b"Connection: upgrade\r\nUpgrade: websocket\r\n\r\n", kept=False),
}


async def silent(wire: Wire) -> bool:
    """The gateway closes the connection and says no more."""
    return await wire.ended()


@pytest.mark.parametrize("name", REFUSED)
async def test_a_malformed_request_is_refused_and_nothing_behind_it_is_a_request(wire_rig: Rig, name: str) -> None:
    raw, status, kind = REFUSED[name]
    wire = await wire_rig.send(raw + NEXT)
    got = await wire.answer()
    assert (got.status, got.problem["type"].rpartition("/")[2], got.headers["connection"]) == (status, kind, "close")
    assert got.problem["detail"]
    assert await silent(wire)
    assert wire_rig.service.received == []


@pytest.mark.parametrize("name", DECLINED)
async def test_a_request_that_is_only_not_served_keeps_its_connection(wire_rig: Rig, name: str) -> None:
    raw, status, kind = DECLINED[name]
    wire = await wire_rig.send(raw + NEXT)
    got = await wire.answer()
    assert (got.status, got.problem["type"].rpartition("/")[2]) == (status, kind)
    assert (await wire.answer()).status == 200
    assert [received.target for received in wire_rig.service.received] == ["/v1/media/next"]


@pytest.mark.parametrize("name", SERVED)
async def test_a_well_formed_request_reaches_its_service_as_it_was_meant(wire_rig: Rig, name: str) -> None:
    case = SERVED[name]
    wire = await wire_rig.send(case.raw + NEXT)
    assert (await wire.answer()).status == 200
    if case.kept:
        assert (await wire.answer()).status == 200
    assert await silent(wire)
    first, *others = wire_rig.service.received
    assert (first.target, first.body, first.one("host")) == (case.target, case.body, case.host)
    assert [one.target for one in others] == ["/v1/media/next"][: case.kept]
    forbidden = {"connection", "upgrade", "keep-alive", "te", "trailer", "http2-settings"}
    assert not forbidden & {header for header, _ in first.headers}


def scripted(raw: bytes) -> object:
    async def script(_: Service, __: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(raw)

    return script


# name: (the service's bytes, request line, status, body, headers that must or must not be there).
ANSWERS: Final[dict[str, tuple[bytes, bytes, int, bytes, dict[str, str | None]]]] = {
    "length": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"GET",
        200,
        b"ok",
        {"content-length": "2", "transfer-encoding": None},
    ),
    "chunked": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"GET",
        200,
        b"ok",
        {"transfer-encoding": "chunked", "content-length": None},
    ),
    "chunked with a trailer": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-T: 1\r\n\r\n",
        b"GET",
        200,
        b"ok",
        {"x-t": None},
    ),
    "204": (b"HTTP/1.1 204 No Content\r\n\r\n", b"GET", 204, b"", {"content-length": None, "transfer-encoding": None}),
    "304 with a length": (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", b"GET", 304, b"", {}),
    "HEAD with a length": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n",
        b"HEAD",
        200,
        b"",
        {"content-length": "9"},
    ),
    "HEAD that would be chunked": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"HEAD", 200, b"", {}),
    "103 before it": (
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"GET",
        103,
        b"",
        {"link": "</a>"},
    ),
    "100 that nobody asked for": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"GET",
        200,
        b"ok",
        {},
    ),
    "hop-by-hop fields": (
        (
            b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nKeep-Alive: timeout=5\r\nServer: x\r\n"
            b"Content-Length: 2\r\n\r\nok"
        ),
        b"GET",
        200,
        b"ok",
        {"keep-alive": None, "server": None, "connection": None},
    ),
    "a status of its own": (b"HTTP/1.1 299 Fine\r\nContent-Length: 0\r\n\r\n", b"GET", 299, b"", {}),
    "conflicting lengths": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
        b"POST",
        502,
        b"",
        {"content-type": "application/problem+json"},
    ),
    "length and chunked": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"POST",
        502,
        b"",
        {"content-type": "application/problem+json"},
    ),
    "101 that nobody asked for": (
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
        b"POST",
        502,
        b"",
        {"content-type": "application/problem+json"},
    ),
    "no HTTP": (b"nonsense\r\n\r\n", b"POST", 502, b"", {"content-type": "application/problem+json"}),
}


@pytest.mark.parametrize("name", ANSWERS)
async def test_an_answer_is_handed_on_in_the_gateways_own_framing(wire_rig: Rig, name: str) -> None:
    raw, method, status, body, expected = ANSWERS[name]
    wire_rig.service.script = scripted(raw)  # type: ignore[assignment]
    target, sent = (b"/v1/posts", b"{}") if method == b"POST" else (b"/v1/media/x", b"")
    wire = await wire_rig.send(wire_rig.request(method + b" " + target, body=sent))
    got = await wire.answer(to_head=method == b"HEAD")
    assert got.status == status
    assert status == 502 or got.body == body
    for header, value in expected.items():
        assert got.headers.get(header) == value
    if status < 200:
        assert (await wire.answer()).body == b"ok"
    wire_rig.service.script = answer_ok
    wire.send(NEXT)
    assert (await wire.answer()).body == b"ok"


async def test_pipelined_requests_are_answered_in_order_though_the_first_is_slow(wire_rig: Rig) -> None:
    async def script(_: Service, received: Received, writer: asyncio.StreamWriter) -> None:
        if received.target.endswith("/0"):
            await asyncio.sleep(0.1)
        body = received.target.encode()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))

    wire_rig.service.script = script
    wire = await wire_rig.send(b"".join(b"GET /v1/media/%d HTTP/1.1\r\n%b\r\n" % (n, HOST) for n in range(20)))
    assert [(await wire.answer()).body for _ in range(20)] == [b"/v1/media/%d" % n for n in range(20)]


async def test_continue_comes_from_the_service_before_the_body_is_sent(wire_rig: Rig) -> None:
    wire_rig.service.wait_for_body = False

    async def script(service: Service, received: Received, writer: asyncio.StreamWriter) -> None:
        assert received.one("expect") == "100-continue"
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert await service.reader.readexactly(3) == b"abc"
        await answer_ok(service, received, writer)

    wire_rig.service.script = script
    wire = await wire_rig.send(POST + HOST + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\n")
    assert (await wire.head())[0] == 100
    wire.send(b"abc")
    assert (await wire.answer()).status == 200


async def test_a_body_refused_before_it_is_sent_need_not_be_sent(wire_rig: Rig) -> None:
    wire = await wire_rig.send(POST + HOST + b"Expect: 100-continue\r\nContent-Length: 70000\r\n\r\n")
    got = await wire.answer()
    assert (got.status, got.headers["connection"]) == (413, "close")
    assert wire_rig.service.received == []


async def test_a_client_that_closes_its_half_is_gone(wire_rig: Rig) -> None:
    wire = await wire_rig.send(GET + HOST + b"X: ")
    wire.writer.write_eof()
    assert await silent(wire)
    assert wire_rig.service.received == []


async def test_a_body_cut_short_never_reaches_the_service_as_whole(wire_rig: Rig) -> None:
    wire_rig.service.wait_for_body = False
    seen: list[bytes] = []

    async def script(service: Service, _: Received, __: asyncio.StreamWriter) -> None:
        seen.append(await service.reader.read(-1))

    wire_rig.service.script = script
    small = await wire_rig.send(POST + HOST + b"Content-Length: 10\r\n\r\nabc")
    small.writer.close()  # one that is small enough to be waited for never reaches it at all
    wire = await wire_rig.send(POST + HOST + b"Content-Length: 60000\r\n\r\nabc")
    await eventually(lambda: wire_rig.service.received)
    wire.writer.close()
    await eventually(lambda: seen)
    assert seen == [b"abc"]
    assert len(wire_rig.service.received) == 1


async def test_an_answer_before_the_body_is_whole_ends_the_connection(wire_rig: Rig) -> None:
    wire_rig.service.wait_for_body = False
    wire = await wire_rig.send(POST + HOST + b"Content-Length: 60000\r\n\r\nabc")
    got = await wire.answer()
    assert (got.status, got.headers["connection"]) == (200, "close")
    wire.send(b"d" * 59_997 + NEXT)
    assert await silent(wire)
    assert len(wire_rig.service.received) == 1


# The parser's edges.


@dataclass(frozen=True)
class Outcome:
    """What a client and the service saw."""

    statuses: tuple[int, ...]
    ended: bool
    seen: tuple[tuple[str, str, bytes], ...]


async def outcome(rig: Rig, pieces: list[bytes], answers: int) -> Outcome:
    """Send ``pieces`` so that each arrives alone; read so many answers, and whether the connection then ends."""
    rig.service.received.clear()
    wire = await rig.wire()
    for piece in pieces:
        wire.send(piece)
        for _ in range(3):  # the gateway is on the same loop: it reads before the next piece is sent
            await asyncio.sleep(0)
    statuses: list[int] = []
    with suppress(asyncio.IncompleteReadError, ConnectionError):
        for _ in range(answers):
            statuses.append((await wire.answer()).status)  # noqa: PERF401 - those before the end count
    ended = await silent(wire)
    seen = tuple((one.method, one.target, one.body) for one in rig.service.received)
    wire.writer.close()
    return Outcome(tuple(statuses), ended, seen)


SHORT: Final = {
    **{name: case.raw for name, case in SERVED.items() if len(case.raw) < 1_000},
    **{name: raw for name, (raw, _, _) in {**REFUSED, **DECLINED}.items() if len(raw) < 1_000},
}
"""Cases to be cut in pieces; each is followed by a request that closes."""
_fuzz = settings(
    max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)


@pytest.mark.timeout(300)
@_fuzz
@given(name=st.sampled_from(sorted(SHORT)), cuts=st.lists(st.integers(1, 250), min_size=1, max_size=6))
async def test_where_the_bytes_are_cut_changes_nothing(wire_rig: Rig, name: str, cuts: list[int]) -> None:
    raw = SHORT[name] + NEXT
    whole = await outcome(wire_rig, [raw], 3)
    places = sorted({cut for cut in cuts if cut < len(raw)})
    pieces = [raw[start:end] for start, end in zip([0, *places], [*places, len(raw)], strict=True)]
    assert await outcome(wire_rig, pieces, 3) == whole


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ["chunk extension", "plain", "chunk: trailer", "length: with chunked"])
async def test_byte_by_byte_it_is_the_same(wire_rig: Rig, name: str) -> None:
    raw = SHORT[name] + NEXT
    whole = await outcome(wire_rig, [raw], 3)
    assert await outcome(wire_rig, [raw[at : at + 1] for at in range(len(raw))], 3) == whole


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A request with a few bytes changed, put in or taken out."""
    raw = bytearray(SHORT[draw(st.sampled_from(sorted(SHORT)))])
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(raw)))
        raw[at : at + draw(st.integers(0, 3))] = draw(
            st.one_of(st.binary(max_size=3), st.sampled_from([b"\r", b"\n", b"\r\n", b" ", b"\t", b":", b"\x00", b"0"]))
        )
    return bytes(raw)


@pytest.mark.timeout(300)
@_fuzz
@given(raw=damaged())
async def test_damaged_bytes_are_answered_as_http_and_never_break_the_gateway(wire_rig: Rig, raw: bytes) -> None:
    wire_rig.service.received.clear()
    wire = await wire_rig.send(raw + b"\r\n\r\n" + NEXT)
    told = b""
    with suppress(TimeoutError, ConnectionError):
        async with asyncio.timeout(0.1):
            while piece := await wire.reader.read(65536):
                told += piece
    wire.writer.close()
    assert not told or told.startswith(b"HTTP/1.1 ")
    assert b" 500 Internal" not in told
    assert b" 502 Bad" not in told
    for received in wire_rig.service.received:
        assert received.target.startswith("/v1/")
        assert len(received.all("host")) == 1
        assert len(received.all("content-length")) + len(received.all("transfer-encoding")) <= 1
    assert (await wire_rig.ask()).status == 200
