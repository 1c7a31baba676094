"""What must never reach a service, and how the client is told."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from tests.unit.gateway.conftest import WAIT
from tests.waiting import eventually

if TYPE_CHECKING:
    from tests.unit.gateway.conftest import Received, Rig, Service

HOST = b"Host: a\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
GET = b"GET /v1/media/x HTTP/1.1\r\n"
POST = b"POST /v1/accounts HTTP/1.1\r\n"


@pytest.mark.parametrize("path", [b"..%2Fx", b"%2e%2E/x", b"%5cx", b"a%00"])
async def test_a_path_that_hides_what_it_means_is_refused(rig: Rig, path: bytes) -> None:
    await rig.start()
    assert (await rig.ask(b"GET /v1/media/" + path)).status == 400
    assert rig.service.received == []


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
    await eventually(lambda: rig.service.received)
    for _ in range(5):
        wire.send(b"4000\r\n" + b"x" * 0x4000 + b"\r\n")
    wire.send(b"0\r\n\r\n")
    got = await wire.answer()
    assert (got.status, got.headers["connection"]) == (413, "close")
    async with asyncio.timeout(WAIT):
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
    await eventually(lambda: rig.service.received)
    await asyncio.sleep(0.05)
    wire.send(b"nonsense\r\n")
    assert (await wire.answer()).status == 400
    async with asyncio.timeout(WAIT):
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
