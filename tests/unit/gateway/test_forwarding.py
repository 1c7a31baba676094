from __future__ import annotations

import asyncio
import re
import time
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import pytest

from fanfold.kit.identity import Identity
from tests.unit.gateway.conftest import WAIT
from tests.waiting import eventually

if TYPE_CHECKING:
    from tests.unit.gateway.conftest import Received, Rig, Service


def told_within(rig: Rig, seconds: float, before: float, after: float) -> bool:
    """Whether the service was told so many seconds from a moment between these (Unix seconds)."""
    told = int(rig.service.received[0].one("x-fanfold-deadline")) / 1000
    return before + seconds - 0.1 <= told <= after + seconds + 0.1  # whole milliseconds, and clocks are set


async def test_a_request_reaches_the_service_and_its_answer_the_client(rig: Rig) -> None:
    await rig.start()
    got = await rig.ask(b"GET /v1/feed?limit=5", b"accept: application/json\r\n")
    assert (got.status, got.body) == (200, b"ok")
    (received,) = rig.service.received
    assert (received.method, received.target, received.one("accept")) == ("GET", "/v1/feed?limit=5", "application/json")


async def test_both_connections_are_kept_for_the_next_request(rig: Rig) -> None:
    await rig.start()
    wire = await rig.wire()
    for _ in range(5):
        wire.send(rig.request(b"GET /v1/media/x"))
        assert (await wire.answer()).status == 200
    assert rig.service.connections == 1


async def test_the_service_learns_who_calls_from_a_signed_header_only(rig: Rig) -> None:
    await rig.start()
    user, session = uuid4(), uuid4()
    forged = (
        b"x-fanfold-identity: v1.service:profile.9999999999.00\r\nX-Fanfold-Anything: 1\r\nx_fanfold_identity: v1\r\n"
        b"X-User-Id: 1\r\nx-authenticated-user: root\r\nx-forwarded-for: 6.6.6.6\r\nforwarded: for=6.6.6.6\r\n"
    )
    token = rig.issuer.token(user, session)
    wire = await rig.send(
        b"GET /v1/feed HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer %b\r\n%b\r\n" % (token.encode(), forged)
    )
    await wire.answer()
    (received,) = rig.service.received
    identity = rig.signer.verify(received.one("x-fanfold-identity"))
    assert identity == Identity(user_id=user, session_id=session)
    names = {name for name, _ in received.headers}
    assert not names & {"authorization", "x-user-id", "x-authenticated-user", "x_fanfold_identity", "forwarded"}
    assert "x-fanfold-anything" not in names
    assert received.all("x-forwarded-for") == ["127.0.0.1"]


async def test_public_routes_carry_an_anonymous_identity_even_with_a_token(rig: Rig) -> None:
    await rig.start()
    await rig.ask(b"POST /v1/sessions", body=b"{}")
    (received,) = rig.service.received
    assert rig.signer.verify(received.one("x-fanfold-identity")) == Identity()


async def test_a_trusted_proxy_may_say_who_is_behind_it(rig: Rig) -> None:
    await rig.start(trusted_proxies=["127.0.0.0/8"])
    await rig.ask(headers=b"x-forwarded-for: 1.2.3.4\r\nx-forwarded-proto: https\r\n")
    (received,) = rig.service.received
    assert received.one("x-forwarded-for") == "1.2.3.4, 127.0.0.1"
    assert received.one("x-forwarded-proto") == "https"


async def test_headers_of_one_hop_go_no_further(rig: Rig) -> None:
    async def script(_: Service, __: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nkeep-alive: timeout=5\r\nserver: secret/1\r\n"
            b"x-fanfold-internal: 1\r\nx-kept: 1\r\n\r\n"
        )

    rig.service.script = script
    await rig.start()
    got = await rig.ask(headers=b"connection: keep-alive, x-mine\r\nx-mine: 1\r\nkeep-alive: 5\r\nte: trailers\r\n")
    names = {name for name, _ in rig.service.received[0].headers}
    assert not names & {"connection", "x-mine", "keep-alive", "te"}
    assert not set(got.headers) & {"keep-alive", "server", "x-fanfold-internal"}
    assert got.headers["x-kept"] == "1"


async def test_every_answer_has_a_request_id_that_the_service_saw_too(rig: Rig) -> None:
    await rig.start()
    got = await rig.ask()
    assert re.fullmatch("[0-9a-f]{32}", got.headers["x-request-id"])
    assert rig.service.received[0].one("x-request-id") == got.headers["x-request-id"]


@pytest.mark.parametrize(("sent", "kept"), [(b"client-id-1234", True), (b"short", False), (b'evil"id-1234', False)])
async def test_a_clients_request_id_is_kept_when_well_formed(rig: Rig, sent: bytes, kept: bool) -> None:
    await rig.start()
    got = await rig.ask(headers=b"x-request-id: %b\r\n" % sent)
    assert (got.headers["x-request-id"] == sent.decode()) is kept


async def test_a_trace_goes_on_with_a_span_of_its_own(rig: Rig) -> None:
    await rig.start()
    await rig.ask(headers=b"traceparent: 00-%b-%b-01\r\n" % (b"a" * 32, b"b" * 16))
    parent = rig.service.received[0].one("traceparent")
    assert parent.startswith("00-" + "a" * 32)
    assert parent.endswith("-01")
    assert "b" * 16 not in parent


async def test_a_malformed_trace_is_replaced(rig: Rig) -> None:
    await rig.start()
    await rig.ask(headers=b"traceparent: 00-zz-%b-01\r\n" % (b"b" * 16))
    assert re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-00", rig.service.received[0].one("traceparent"))


async def test_the_service_is_told_until_when_the_answer_is_waited_for(rig: Rig) -> None:
    await rig.start(request_seconds=7)
    before = time.time()
    await rig.ask()
    assert told_within(rig, 7, before, time.time())


async def test_a_small_body_is_waited_for_so_that_the_service_hears_when_its_time_ends(
    rig: Rig,
) -> None:
    await rig.start(request_seconds=7, stall_seconds=60)
    whole = rig.request(b"POST /v1/posts", body=b"{}")
    wire = await rig.send(whole[:-1])
    await asyncio.sleep(0.2)
    assert rig.service.connections == 0
    before = time.time()
    wire.send(whole[-1:])
    assert (await wire.answer()).status == 200
    (received,) = rig.service.received
    assert received.body == b"{}"
    assert told_within(rig, 7, before, time.time())


async def test_a_body_under_way_has_all_the_time_that_transfers_have(rig: Rig) -> None:
    await rig.start(request_seconds=7, stall_seconds=5, transfer_seconds=50)
    rig.service.wait_for_body = False
    before = time.time()
    wire = await rig.send(rig.request(b"POST /v1/images", b"content-length: 100000\r\n"))
    assert (await wire.answer()).status == 200
    assert told_within(rig, 7 + 50 + 20, before, time.time())  # 20 seconds are what pictures may take


async def test_a_body_with_a_length_arrives_whole(rig: Rig) -> None:
    await rig.start()
    body = bytes(range(256)) * 200
    got = await rig.ask(b"POST /v1/posts", body=body)
    assert got.status == 200
    assert rig.service.received[0].body == body
    assert rig.service.received[0].one("content-length") == str(len(body))


async def test_a_chunked_body_arrives_whole(rig: Rig) -> None:
    await rig.start()
    wire = await rig.send(
        rig.request(b"POST /v1/posts", b"transfer-encoding: chunked\r\n") + b"3\r\nabc\r\n4;x=y\r\ndefg\r\n"
    )
    await asyncio.sleep(0.05)
    wire.send(b"1\r\nh\r\n0\r\n\r\n")
    assert (await wire.answer()).status == 200
    assert rig.service.received[0].body == b"abcdefgh"


async def test_an_empty_body_keeps_its_length(rig: Rig) -> None:
    await rig.start()
    await rig.ask(b"POST /v1/posts", b"content-length: 0\r\n")
    assert rig.service.received[0].one("content-length") == "0"


async def test_an_upload_is_streamed_before_it_is_complete(rig: Rig) -> None:
    arrived: list[bytes] = []

    async def script(service: Service, _: Received, writer: asyncio.StreamWriter) -> None:
        arrived.append(await service.reader.readexactly(5))
        arrived.append(await service.reader.readexactly(5))
        writer.write(b"HTTP/1.1 201 Created\r\ncontent-length: 0\r\n\r\n")

    rig.service.script = script
    rig.service.wait_for_body = False
    await rig.start()
    wire = await rig.send(rig.request(b"POST /v1/images", b"content-length: 10\r\n") + b"first")
    await eventually(lambda: arrived)
    assert arrived == [b"first"]
    wire.send(b"later")
    assert (await wire.answer()).status == 201
    assert arrived == [b"first", b"later"]


async def test_an_answer_is_streamed_before_it_is_complete(rig: Rig) -> None:
    gate = asyncio.Event()

    async def script(_: Service, __: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n")
        await gate.wait()
        writer.write(b"5\r\nlater\r\n0\r\n\r\n")

    rig.service.script = script
    await rig.start()
    wire = await rig.send(rig.request())
    _, headers = await wire.head()
    assert headers["transfer-encoding"] == "chunked"
    assert await wire.chunk() == b"first"
    gate.set()
    assert await wire.chunk() == b"later"
    assert await wire.chunk() == b""


async def test_a_slow_reader_stops_the_service_from_sending_more(rig: Rig) -> None:
    sent = 0
    piece = b"x" * 65536
    total = 64 << 20

    async def script(_: Service, __: Received, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % total)
        while sent < total:
            writer.write(piece)
            sent += len(piece)
            await writer.drain()

    rig.service.script = script
    await rig.start()
    wire = await rig.send(rig.request(b"GET /v1/media/big"))
    await wire.head()
    before = -1
    while before != sent:
        before = sent
        await asyncio.sleep(0.2)
    assert sent < total / 2
    received = 0
    while received < total:
        received += len(await wire.reader.read(1 << 20))
    assert received == total


async def test_a_slow_service_stops_the_client_from_sending_more(rig: Rig) -> None:
    gate = asyncio.Event()
    total = 20 << 20

    async def script(service: Service, request: Received, writer: asyncio.StreamWriter) -> None:
        await gate.wait()
        await service.reader.readexactly(int(request.one("content-length")))
        writer.write(b"HTTP/1.1 201 Created\r\ncontent-length: 0\r\n\r\n")

    rig.service.script = script
    rig.service.wait_for_body = False
    await rig.start()
    wire = await rig.send(rig.request(b"POST /v1/images", b"content-length: %d\r\n" % total))

    async def upload() -> None:
        for _ in range(total // 65536):
            wire.send(b"x" * 65536)
            await wire.writer.drain()

    sending = asyncio.create_task(upload())
    await asyncio.sleep(0.5)
    assert not sending.done()
    gate.set()
    assert (await wire.answer()).status == 201
    await sending


async def test_pipelined_requests_are_answered_in_order(rig: Rig) -> None:
    async def script(_: Service, request: Received, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.05 if request.target.endswith("0") else 0)
        body = request.target.encode() + b" " + request.body
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))

    rig.service.script = script
    await rig.start()
    wire = await rig.send(b"".join(rig.request(b"POST /v1/posts?%d" % n, body=b"body %d" % n) for n in range(30)))
    for n in range(30):
        assert (await wire.answer()).body == b"/v1/posts?%d body %d" % (n, n)


async def test_a_thousand_pipelined_refusals_are_all_answered(rig: Rig) -> None:
    await rig.start()
    wire = await rig.send(b"GET /nothing HTTP/1.1\r\nhost: a\r\n\r\n" * 1000)
    for _ in range(1000):
        assert (await wire.answer()).status == 404


async def test_a_pipelined_flood_stays_in_the_clients_own_memory(rig: Rig) -> None:
    gate = asyncio.Event()

    async def script(_: Service, __: Received, writer: asyncio.StreamWriter) -> None:
        await gate.wait()
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")

    rig.service.script = script
    await rig.start()
    wire = await rig.wire()
    request = rig.request()

    async def flood() -> None:
        for _ in range(20_000):
            wire.send(request)
            await wire.writer.drain()

    flooding = asyncio.create_task(flood())
    await asyncio.sleep(0.5)
    assert not flooding.done()
    flooding.cancel()


async def test_a_head_request_is_answered_without_body_and_the_connection_goes_on(rig: Rig) -> None:
    async def script(_: Service, request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n" + (b"" if request.method == "HEAD" else b"hello"))

    rig.service.script = script
    await rig.start()
    wire = await rig.wire()
    for _ in range(2):
        wire.send(rig.request(b"HEAD /v1/media/x") + rig.request(b"GET /v1/media/x"))
        assert (await wire.answer(to_head=True)).headers["content-length"] == "5"
        assert (await wire.answer()).body == b"hello"
    assert rig.service.connections == 1


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
async def test_answers_that_never_have_a_body_leave_the_connection_usable(rig: Rig, status: bytes) -> None:
    async def script(_: Service, __: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(
            b"HTTP/1.1 " + status + b"\r\netag: 1\r\n" + (b"content-length: 9\r\n" * (b"304" in status)) + b"\r\n"
        )

    rig.service.script = script
    await rig.start()
    wire = await rig.wire()
    for _ in range(3):
        wire.send(rig.request(b"GET /v1/media/x"))
        assert (await wire.answer()).status == int(status[:3])
    assert rig.service.connections == 1


async def test_a_body_that_ends_with_the_connection_is_made_whole_for_the_client(rig: Rig) -> None:
    async def script(_: Service, __: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nuntil the end")
        await writer.drain()
        writer.close()

    rig.service.script = script
    await rig.start()
    wire = await rig.wire()
    for _ in range(2):
        wire.send(rig.request())
        assert (await wire.answer()).body == b"until the end"


async def test_expect_continue_is_the_services_to_answer(rig: Rig) -> None:
    async def script(service: Service, request: Received, writer: asyncio.StreamWriter) -> None:
        assert request.one("expect") == "100-continue"
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await service.reader.readexactly(4)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n" + body)

    rig.service.script = script
    rig.service.wait_for_body = False
    await rig.start()
    wire = await rig.send(rig.request(b"POST /v1/posts", b"expect: 100-continue\r\ncontent-length: 4\r\n"))
    assert (await wire.answer()).status == 100
    wire.send(b"body")
    assert (await wire.answer()).body == b"body"


async def test_a_refusal_comes_instead_of_100_and_the_body_is_not_waited_for(rig: Rig) -> None:
    await rig.start()
    wire = await rig.send(b"POST /v1/posts HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n")
    got = await wire.answer()
    assert got.status == 401
    assert got.headers["connection"] == "close"
    assert await wire.ended()
    assert rig.service.received == []


async def test_early_hints_are_handed_on_and_an_unasked_100_is_not(rig: Rig) -> None:
    async def script(_: Service, __: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    rig.service.script = script
    await rig.start()
    wire = await rig.send(rig.request())
    first = await wire.answer()
    assert (first.status, first.headers["link"]) == (103, "</x>")
    assert (await wire.answer()).status == 200


async def test_an_answer_before_the_end_of_the_body_reaches_the_client_and_ends_the_connection(rig: Rig) -> None:
    async def script(_: Service, __: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 422 Unprocessable\r\ncontent-length: 2\r\n\r\nno")

    rig.service.script = script
    rig.service.wait_for_body = False
    await rig.start()
    wire = await rig.send(rig.request(b"POST /v1/images", b"content-length: 10000000\r\n") + b"x" * 50_000)
    got = await wire.answer()
    assert (got.status, got.body, got.headers["connection"]) == (422, b"no", "close")
    async with asyncio.timeout(WAIT):
        for _ in range(50):
            wire.send(b"x" * 65_536)
            await wire.writer.drain()  # no reset, which could have swallowed the answer
        assert await wire.reader.read() == b""


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
async def test_the_connection_closes_when_the_client_wants_it(rig: Rig, version: bytes) -> None:
    await rig.start()
    wire = await rig.send(b"GET /v1/feed HTTP/%b\r\nhost: a\r\nconnection: close\r\n%b\r\n" % (version, rig.bearer()))
    got = await wire.answer()
    assert (got.status, got.body, got.headers["connection"]) == (200, b"ok", "close")
    assert await wire.ended()


async def test_http_1_0_gets_no_chunks_and_needs_no_host(rig: Rig) -> None:
    async def script(_: Service, __: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")

    rig.service.script = script
    await rig.start()
    wire = await rig.send(b"GET /v1/feed HTTP/1.0\r\n%b\r\n" % rig.bearer())
    got = await wire.answer()
    assert "transfer-encoding" not in got.headers
    assert got.body == b"hello"


async def test_the_absolute_form_is_taken_and_its_authority_wins(rig: Rig) -> None:
    await rig.start()
    await rig.ask(b"GET http://real.example/v1/feed?limit=1")
    (received,) = rig.service.received
    assert received.target == "/v1/feed?limit=1"
    assert received.all("host") == ["real.example"]


async def test_an_upgrade_nobody_offers_is_ignored(rig: Rig) -> None:
    await rig.start()
    wire = await rig.send(
        rig.request(headers=b"connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AA\r\n")
        + rig.request()
    )
    assert (await wire.answer()).status == 200
    assert (await wire.answer()).status == 200
    names = {name for name, _ in rig.service.received[0].headers}
    assert not names & {"upgrade", "connection", "http2-settings"}


async def test_a_request_in_single_bytes_is_understood(rig: Rig) -> None:
    await rig.start()
    wire = await rig.wire()
    for byte in rig.request(b"POST /v1/posts?a=1", b"x-thing: value\r\n", b"body"):
        wire.send(bytes([byte]))
        await asyncio.sleep(0)
    assert (await wire.answer()).status == 200
    (received,) = rig.service.received
    assert (received.target, received.one("x-thing"), received.body) == ("/v1/posts?a=1", "value", b"body")


async def test_a_client_that_leaves_ends_the_services_work(rig: Rig) -> None:
    gone = asyncio.Event()

    async def script(service: Service, _: Received, __: asyncio.StreamWriter) -> None:
        await service.reader.read()
        gone.set()

    rig.service.script = script
    await rig.start()
    wire = await rig.send(rig.request())
    await eventually(lambda: rig.service.received)
    wire.writer.close()
    async with asyncio.timeout(WAIT):
        await gone.wait()
    await eventually(lambda: rig.stats.in_flight == 0)
    assert all(endpoint.in_flight == 0 for _, endpoint in rig.balancer.endpoints())


async def test_a_user_always_meets_the_same_slot_and_users_spread(rig: Rig) -> None:
    services = [rig.another() for _ in range(3)]
    await rig.start({"feed": services})
    users = [UUID(int=n * 7919) for n in range(30)]
    for _ in range(2):
        for user in users:
            wire = await rig.send(b"GET /v1/feed HTTP/1.1\r\nhost: a\r\n%b\r\n" % rig.bearer(user))
            await wire.answer()
    seen = [{rig.signer.verify(r.one("x-fanfold-identity")).user_id for r in one.received} for one in services]
    assert all(seen)
    assert sum(map(len, seen)) == len(users)
