"""What must never reach a service, and how the client is told."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.unit.gateway.conftest import Received, Rig, Service

HOST = b"Host: a\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
GET = b"GET /v1/media/x HTTP/1.1\r\n"
POST = b"POST /v1/accounts HTTP/1.1\r\n"

MALFORMED = {
    "bare LF after the request line": b"GET /v1/media/x HTTP/1.1\nHost: a\n\n",
    "bare LF after a header": GET + b"Host: a\nX: y\r\n\r\n",
    "bare LF as the end of the head": GET + HOST + b"\n",
    "bare CR in a header": GET + b"Host: a\rX: y\r\n\r\n",
    "folded header": GET + b"Host: a\r\n b\r\n\r\n",
    "space before the first header": GET + b" Host: a\r\n\r\n",
    "space before the colon": GET + b"Host : a\r\n\r\n",
    "no header name": GET + HOST + b": b\r\n\r\n",
    "header name with a bracket": GET + HOST + b"A(: b\r\n\r\n",
    "header without colon": GET + HOST + b"nonsense\r\n\r\n",
    "NUL in a header": GET + HOST + b"A: \x00\r\n\r\n",
    "control character in a header": GET + HOST + b"A: \x01\r\n\r\n",
    "NUL in the path": b"GET /v1/media/\x00 HTTP/1.1\r\n" + HOST + b"\r\n",
    "non-ASCII path": b"GET /v1/media/\xff HTTP/1.1\r\n" + HOST + b"\r\n",
    "space in the path": b"GET /v1/media/a b HTTP/1.1\r\n" + HOST + b"\r\n",
    "fragment": b"GET /v1/media/a#b HTTP/1.1\r\n" + HOST + b"\r\n",
    "no Host": GET + b"\r\n",
    "two Hosts": GET + HOST + b"Host: b\r\n\r\n",
    "two equal Hosts": GET + HOST + HOST + b"\r\n",
    "lower-case method": b"get /v1/media/x HTTP/1.1\r\n" + HOST + b"\r\n",
    "unknown method": b"FETCH /v1/media/x HTTP/1.1\r\n" + HOST + b"\r\n",
    "HTTP/1.2": b"GET /v1/media/x HTTP/1.2\r\n" + HOST + b"\r\n",
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "no HTTP at all": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "length and chunked": POST + HOST + b"Content-Length: 3\r\n" + CHUNKED + b"\r\n0\r\n\r\n",
    "chunked and length": POST + HOST + CHUNKED + b"Content-Length: 3\r\n\r\n0\r\n\r\n",
    "two lengths": POST + HOST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
    "two equal lengths": POST + HOST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "list of lengths": POST + HOST + b"Content-Length: 3, 3\r\n\r\nabc",
    "signed length": POST + HOST + b"Content-Length: +3\r\n\r\nabc",
    "negative length": POST + HOST + b"Content-Length: -3\r\n\r\nabc",
    "hexadecimal length": POST + HOST + b"Content-Length: 0x3\r\n\r\nabc",
    "empty length": POST + HOST + b"Content-Length: \r\n\r\n",
    "length beyond 64 bits": POST + HOST + b"Content-Length: 99999999999999999999999\r\n\r\n",
    "length with a space": POST + HOST + b"Content-Length: 3 3\r\n\r\n",
    "chunked not last": POST + HOST + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "chunked twice": POST + HOST + CHUNKED + CHUNKED + b"\r\n0\r\n\r\n",
    "chunked behind a tab": POST + HOST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "chunked in HTTP/1.0": b"POST /v1/accounts HTTP/1.0\r\n" + HOST + CHUNKED + b"\r\n0\r\n\r\n",
    "chunk size no number": POST + HOST + CHUNKED + b"\r\nzz\r\n\r\n",
    "chunk size with bare LF": POST + HOST + CHUNKED + b"\r\n3\nabc\r\n0\r\n\r\n",
    "chunk data with bare LF": POST + HOST + CHUNKED + b"\r\n3\r\nabc\n0\r\n\r\n",
    "chunk longer than it says": POST + HOST + CHUNKED + b"\r\n3\r\nabcd\r\n0\r\n\r\n",
    "chunk size beyond 64 bits": POST + HOST + CHUNKED + b"\r\nffffffffffffffffff\r\nabc",
    "trailer": POST + HOST + CHUNKED + b"\r\n3\r\nabc\r\n0\r\nX-T: 1\r\n\r\n",
    "CONNECT": b"CONNECT a:80 HTTP/1.1\r\n" + HOST + b"\r\n",
    "asterisk": b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n",
    "relative path": b"GET v1/media/x HTTP/1.1\r\n" + HOST + b"\r\n",
    "credentials in the authority": b"GET http://a@b/v1/media/x HTTP/1.1\r\n" + HOST + b"\r\n",
    "upgrade with a body": POST + HOST + b"Connection: upgrade\r\nUpgrade: x\r\nContent-Length: 3\r\n\r\nabc",
    "upgrade with a chunked body": POST + HOST + CHUNKED + b"Connection: upgrade\r\nUpgrade: x\r\n\r\n0\r\n\r\n",
    "two Authorizations": GET + HOST + b"Authorization: Bearer a\r\nAuthorization: Bearer b\r\n\r\n",
}


@pytest.mark.parametrize("raw", MALFORMED.values(), ids=MALFORMED.keys())
async def test_a_malformed_request_is_answered_with_400_and_what_follows_is_never_a_request(
    rig: Rig, raw: bytes
) -> None:
    await rig.start()
    wire = await rig.send(raw + b"GET /v1/media/smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
    got = await wire.answer()
    assert (got.status, got.headers["connection"]) == (400, "close")
    assert got.problem["detail"]
    assert await wire.ended()
    assert rig.service.received == []


@pytest.mark.parametrize("path", [b"..%2Fx", b"%2e%2E/x", b"%5cx", b"a%00"])
async def test_a_path_that_hides_what_it_means_is_refused(rig: Rig, path: bytes) -> None:
    await rig.start()
    assert (await rig.ask(b"GET /v1/media/" + path)).status == 400
    assert rig.service.received == []


@pytest.mark.parametrize(
    ("raw", "status", "kind"),
    [
        (GET + HOST + b"X: " + b"a" * 40_000 + b"\r\n\r\n", 431, "headers-too-large"),
        (GET + HOST + b"X: " + b"a" * 200_000, 431, "headers-too-large"),
        (GET + HOST + b"".join(b"X-%d: 1\r\n" % n for n in range(120)) + b"\r\n", 431, "headers-too-large"),
        (b"GET /v1/media/" + b"a" * 9_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", 414, "target-too-long"),
        (b"GET /v1/media/" + b"a" * 100_000, 431, "headers-too-large"),
        (POST + HOST + b"Content-Length: 70000\r\n\r\n", 413, "too-large"),
        (POST + HOST + b"Expect: 200-ok\r\nContent-Length: 2\r\n\r\nhi", 417, "expectation-failed"),
        (POST + HOST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501, "coding-not-implemented"),
        (POST + HOST + b"Transfer-Encoding: gzip\r\n\r\nabc", 501, "coding-not-implemented"),
        (POST + HOST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501, "coding-not-implemented"),
        (b"GET /v1/media/x HTTP/2.0\r\n" + HOST + b"\r\n", 505, "version-not-supported"),
        (b"GET /v1/media/x\r\n\r\n", 505, "version-not-supported"),
    ],
)
async def test_a_limit_is_told_by_its_own_status(rig: Rig, raw: bytes, status: int, kind: str) -> None:
    await rig.start()
    wire = await rig.send(raw)
    got = await wire.answer()
    assert got.status == status
    assert got.problem["type"].endswith(kind)
    assert got.headers["connection"] == "close"
    assert await wire.ended()
    assert rig.service.received == []


async def test_a_head_just_below_the_limit_is_served(rig: Rig) -> None:
    await rig.start()
    wire = await rig.send(GET + HOST + b"X: " + b"a" * 32_000 + b"\r\n\r\n")
    assert (await wire.answer()).status == 200


async def test_a_chunked_body_over_the_limit_never_arrives_whole(rig: Rig) -> None:
    broken = asyncio.Event()

    async def script(service: Service, _: Received, __: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            assert not (await service.reader.read(-1)).endswith(b"\r\n0\r\n\r\n")
        broken.set()

    rig.service.script = script
    rig.service.wait_for_body = False
    await rig.start()
    wire = await rig.send(POST + HOST + CHUNKED + b"\r\n")
    await rig.until(lambda: rig.service.received)
    for _ in range(5):
        wire.send(b"4000\r\n" + b"x" * 0x4000 + b"\r\n")
    wire.send(b"0\r\n\r\n")
    got = await wire.answer()
    assert (got.status, got.headers["connection"]) == (413, "close")
    async with asyncio.timeout(5):
        await broken.wait()


async def test_a_chunked_body_that_turns_out_malformed_is_broken_off_at_the_service_too(rig: Rig) -> None:
    broken = asyncio.Event()

    async def script(service: Service, _: Received, __: asyncio.StreamWriter) -> None:
        assert (await service.reader.read(-1)) == b"3\r\nabc\r\n"
        broken.set()

    rig.service.script = script
    rig.service.wait_for_body = False
    await rig.start()
    wire = await rig.send(POST + HOST + CHUNKED + b"\r\n3\r\nabc\r\n")
    await rig.until(lambda: rig.service.received)
    await asyncio.sleep(0.05)
    wire.send(b"nonsense\r\n")
    assert (await wire.answer()).status == 400
    async with asyncio.timeout(5):
        await broken.wait()
    assert await wire.ended()


async def test_requests_before_a_malformed_one_are_answered_first(rig: Rig) -> None:
    await rig.start()
    wire = await rig.send(GET + HOST + b"\r\n" + GET + HOST + b"\r\n" + b"nonsense\r\n\r\n")
    assert [(await wire.answer()).status for _ in range(3)] == [200, 200, 400]
    assert await wire.ended()


async def test_bytes_after_a_closing_request_are_nobodys(rig: Rig) -> None:
    await rig.start()
    wire = await rig.send(GET + HOST + b"Connection: close\r\n\r\n" + GET + HOST + b"\r\n")
    assert (await wire.answer()).status == 200
    assert await wire.ended()
    assert len(rig.service.received) == 1


async def test_empty_lines_before_a_request_are_forgiven(rig: Rig) -> None:
    await rig.start()
    wire = await rig.send(b"\r\n\r\n" + GET + HOST + b"\r\n")
    assert (await wire.answer()).status == 200


@pytest.mark.parametrize(
    "path",
    [
        b"/", b"/v1", b"/v2/feed", b"/v1/feed/", b"/v1//feed", b"/internal/users/batch", b"/v1/../internal/users/batch",
        b"/v1/users/../internal", b"/v1/media/../../internal", b"/v1/media//x", b"/metrics", b"/readyz", b"/snapshot",
        b"/v1/users/me/unknown", b"/v1/posts/1/likes/2", b"//v1/feed",
    ],
)  # fmt: skip
async def test_an_unknown_path_is_404_and_reaches_nobody(rig: Rig, path: bytes) -> None:
    await rig.start()
    got = await rig.ask(b"GET " + path)
    assert (got.status, got.problem["title"]) == (404, "Not Found")
    assert rig.service.received == []


async def test_a_known_path_names_the_methods_it_answers(rig: Rig) -> None:
    await rig.start()
    got = await rig.ask(b"POST /v1/users/me")
    assert (got.status, got.headers["allow"]) == (405, "DELETE, GET, PATCH")


async def test_a_problem_names_the_request_in_our_logs(rig: Rig) -> None:
    await rig.start()
    got = await rig.ask(b"GET /nothing")
    assert got.problem["request_id"] == got.headers["x-request-id"]
