"""Services that refuse, break off, stall or go; clients that stall; limits; the gateway's own end."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import pytest

from fanfold.contracts.ring import Ring, key_of
from fanfold.contracts.snapshot import Slot
from fanfold.gateway.budget import RESERVE, WINDOW_SECONDS, RetryBudget
from tests.unit.gateway.conftest import WAIT
from tests.waiting import eventually

if TYPE_CHECKING:
    from tests.unit.gateway.conftest import Received, Rig, Service

DEAD = "127.0.0.1:1"


async def hang(_: Service, __: Received, ___: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def close(_: Service, __: Received, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def close_on_reuse(service: Service, received: Received, writer: asyncio.StreamWriter) -> None:
    """Answer the first request of a connection, break off at the second."""
    if any(one is not received and one.connection == received.connection for one in service.received):
        writer.close()
    else:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")


@pytest.mark.parametrize("line", [b"GET /v1/feed", b"POST /v1/posts"])
async def test_a_slot_that_refuses_connections_costs_no_request(rig: Rig, line: bytes) -> None:
    await rig.start()
    rig.locate({"feed": [DEAD, rig.service.address], "post": [DEAD, rig.service.address]})
    for _ in range(20):
        assert (await rig.ask(line, body=b"{}" if line[:4] == b"POST" else b"")).status == 200
    assert rig.stats.retries > 0
    assert rig.stats.retrying == 0


async def test_when_no_slot_takes_a_connection_the_client_may_come_back(rig: Rig) -> None:
    await rig.start()
    rig.locate({"feed": [DEAD, DEAD]})
    got = await rig.ask()
    assert (got.status, got.headers["retry-after"]) == (503, "1")
    assert got.problem["detail"] == "The service cannot be reached; try again."


async def test_a_service_without_replicas_is_503_with_retry_after(rig: Rig) -> None:
    await rig.start()
    rig.locate({})
    got = await rig.ask()
    assert (got.status, got.headers["retry-after"]) == (503, "1")


async def test_an_idempotent_request_on_a_connection_that_broke_is_sent_again(rig: Rig) -> None:
    rig.service.script = close_on_reuse
    await rig.start()
    for _ in range(6):
        assert (await rig.ask(b"PUT /v1/notifications/read", body=b"{}")).status == 200
    assert rig.stats.retries > 0


async def test_a_request_that_may_have_acted_is_never_sent_twice(rig: Rig) -> None:
    rig.service.script = close_on_reuse
    await rig.start()
    first = await rig.ask(b"POST /v1/posts", body=b"{}")
    second = await rig.ask(b"POST /v1/posts", body=b"{}")
    assert (first.status, second.status) == (200, 502)
    assert len(rig.service.received) == 2
    assert rig.stats.retries == 0


async def test_a_broken_request_goes_to_another_slot(rig: Rig) -> None:
    bad, good = rig.another(close), rig.another()
    await rig.start({"feed": [bad, good]})
    statuses = {(await rig.ask(user=UUID(int=number))).status for number in range(12)}
    assert statuses == {200}
    assert bad.received
    assert len(good.received) == 12


async def test_retries_stop_at_the_budget(rig: Rig) -> None:
    release = asyncio.Event()

    async def script(_: Service, __: Received, writer: asyncio.StreamWriter) -> None:
        await release.wait()
        writer.close()

    rig.service.script = script
    await rig.start()
    wires = [await rig.send(rig.request()) for _ in range(100)]
    await eventually(lambda: len(rig.service.received) == 100)
    release.set()
    statuses = [(await wire.answer()).status for wire in wires]
    assert statuses == [502] * 100
    most = RESERVE + 0.2 * 100
    assert len(rig.service.received) == 100 + most
    assert rig.stats.retries_denied >= 100 - most
    assert rig.stats.retrying == 0


def test_the_budget_is_a_fifth_of_what_the_last_ten_seconds_brought() -> None:
    budget = RetryBudget()
    for second in range(30):
        budget.requests += 10
        budget.tick(second)
    spent = sum(budget.spend() for _ in range(1_000))
    assert spent == RESERVE + 0.2 * 10 * (WINDOW_SECONDS - 1)
    for second in range(30, 30 + WINDOW_SECONDS):
        budget.tick(second)
    assert budget.left == RESERVE, "what is past is forgotten, spent or earned"


async def test_all_that_a_dying_replica_had_is_answered_by_the_other(rig: Rig) -> None:
    release = asyncio.Event()

    async def dies(service: Service, __: Received, ___: asyncio.StreamWriter) -> None:
        await release.wait()
        await service.stop()

    dying, other = rig.another(dies), rig.another()
    await rig.start({"feed": [dying, other]})
    ring = Ring([Slot("feed-0", dying.address), Slot("feed-1", other.address)])
    users = [user for user in (uuid4() for _ in range(200)) if ring.owner(key_of(user.bytes)) == 0][:8]
    wires = [await rig.send(rig.request(user=user)) for user in users]
    await eventually(lambda: len(dying.received) == len(users) == 8)
    release.set()
    assert {(await wire.answer()).status for wire in wires} == {200}
    assert rig.stats.retries_denied == 0


async def test_a_body_too_large_to_keep_is_not_sent_again(rig: Rig) -> None:
    rig.service.script = close
    await rig.start(max_body=100_000)
    got = await rig.ask(b"PUT /v1/notifications/read", body=b"x" * 100_000)
    assert got.status == 502
    assert len(rig.service.received) == 1


async def test_a_chunked_body_is_sent_again_as_it_was(rig: Rig) -> None:
    bad, good = rig.another(close), rig.another()
    await rig.start({"profile": [bad, good]})
    for number in range(8):
        head = rig.request(b"PUT /v1/users/me/picture", b"transfer-encoding: chunked\r\n", user=UUID(int=number))
        wire = await rig.send(head + b"3\r\nabc\r\n0\r\n\r\n")
        assert (await wire.answer()).status == 200
    assert bad.received
    assert {one.body for one in good.received} == {b"abc"}


async def test_an_answer_that_breaks_off_is_not_passed_off_as_whole(rig: Rig) -> None:
    async def script(_: Service, __: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")
        await writer.drain()
        writer.close()

    rig.service.script = script
    await rig.start()
    wire = await rig.send(rig.request())
    await wire.head()
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        await wire.reader.readexactly(10)


@pytest.mark.parametrize(
    "raw",
    [
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 100_000,
        b"HTTP/1.1 200 OK\r\nx: a\nset-cookie: b\r\n\r\n",
    ],
)
async def test_an_answer_that_is_no_http_is_502(rig: Rig, raw: bytes) -> None:
    async def script(_: Service, __: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(raw)

    rig.service.script = script
    await rig.start()
    got = await rig.ask(b"POST /v1/posts", body=b"{}")
    assert (got.status, got.problem["type"].rpartition("/")[2]) == (502, "bad-gateway")


async def test_bytes_beyond_an_answer_never_become_the_next_one(rig: Rig) -> None:
    async def script(_: Service, __: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok" + b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil"
        )

    rig.service.script = script
    await rig.start()
    for _ in range(3):
        got = await rig.ask(b"POST /v1/posts", body=b"{}")
        assert (got.status, got.body) == (200, b"ok")
    assert rig.service.connections == 3


async def test_a_body_where_none_may_be_never_becomes_the_next_answer(rig: Rig) -> None:
    async def script(_: Service, received: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil")

    rig.service.script = script
    await rig.start()
    wire = await rig.wire()
    wire.send(rig.request(b"HEAD /v1/media/x"))
    await wire.answer(to_head=True)
    assert await wire.quiet()
    assert (await rig.ask(b"GET /v1/media/x")).body == b"evil"


async def test_a_service_that_does_not_answer_is_504_in_time(rig: Rig) -> None:
    rig.service.script = hang
    await rig.start(request_seconds=1)
    got = await rig.ask()
    assert (got.status, got.problem["type"].rpartition("/")[2]) == (504, "gateway-timeout")
    assert len(rig.service.received) <= 1, "nobody is asked twice"
    await eventually(lambda: not any(endpoint.connections for _, endpoint in rig.balancer.endpoints()))


async def test_an_answer_that_stalls_is_broken_off(rig: Rig) -> None:
    async def script(_: Service, __: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")
        await asyncio.Event().wait()

    rig.service.script = script
    await rig.start(stall_seconds=0.3)
    wire = await rig.send(rig.request())
    await wire.head()
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        async with asyncio.timeout(WAIT):
            await wire.reader.readexactly(10)


@pytest.mark.parametrize("beginning", [b"G", b"GET /v1/feed HTTP/1.1\r\nhost: a\r\n"])
async def test_a_head_that_does_not_end_is_408(rig: Rig, beginning: bytes) -> None:
    await rig.start(head_seconds=0.3)
    wire = await rig.send(beginning)
    assert (await wire.answer()).status == 408
    assert await wire.ended()


async def test_a_head_that_trickles_is_408_however_busy_it_looks(rig: Rig) -> None:
    await rig.start(head_seconds=0.4)
    wire = await rig.send(b"GET /v1/feed HTTP/1.1\r\n")
    got = asyncio.create_task(wire.answer())
    while not got.done():
        wire.send(b"x: 1\r\n")
        await asyncio.sleep(0.05)
    assert got.result().status == 408


async def test_a_connection_that_says_nothing_is_closed_without_a_word(rig: Rig) -> None:
    await rig.start(head_seconds=0.2)
    wire = await rig.wire()
    assert await wire.ended()


async def test_an_idle_connection_is_closed_and_one_in_time_is_not(rig: Rig) -> None:
    await rig.start(idle_seconds=0.6)
    began = time.monotonic()
    wire = await rig.send(rig.request())
    await wire.answer()
    assert await wire.ended()
    assert time.monotonic() - began >= 0.6


async def test_a_body_that_stalls_is_408_and_the_service_is_let_go(rig: Rig) -> None:
    rig.service.script = hang
    rig.service.wait_for_body = False
    await rig.start(stall_seconds=0.3)
    wire = await rig.send(rig.request(b"POST /v1/images", b"content-length: 100\r\n") + b"some")
    assert (await wire.answer()).status == 408
    assert await wire.ended()
    await eventually(lambda: not any(endpoint.in_flight for _, endpoint in rig.balancer.endpoints()))


async def test_a_body_that_trickles_ends_at_the_time_for_transfers(rig: Rig) -> None:
    rig.service.script = hang
    rig.service.wait_for_body = False
    await rig.start(stall_seconds=0.5, transfer_seconds=1)
    wire = await rig.send(rig.request(b"POST /v1/images", b"content-length: 1000\r\n"))
    got = asyncio.create_task(wire.answer())
    while not got.done():
        wire.send(b"x")
        await asyncio.sleep(0.1)
    assert got.result().status == 408


async def test_an_idle_connection_to_a_service_is_closed_by_the_gateway(rig: Rig) -> None:
    await rig.start(upstream_idle_seconds=0.3)
    began = time.monotonic()
    await rig.ask()
    await eventually(lambda: not any(endpoint.connections for _, endpoint in rig.balancer.endpoints()))
    assert time.monotonic() - began >= 0.3
    assert (await rig.ask()).status == 200


async def test_a_connection_that_the_service_closed_is_not_used_again(rig: Rig) -> None:
    await rig.start()
    await rig.ask(b"POST /v1/posts", body=b"{}")
    for writer in tuple(rig.service.open_writers):
        writer.close()
    await eventually(lambda: not any(endpoint.connections for _, endpoint in rig.balancer.endpoints()))
    assert (await rig.ask(b"POST /v1/posts", body=b"{}")).status == 200


async def test_requests_beyond_a_slots_limit_are_503_with_retry_after(rig: Rig) -> None:
    release = asyncio.Event()

    async def script(_: Service, __: Received, writer: asyncio.StreamWriter) -> None:
        await release.wait()
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")

    rig.service.script = script
    await rig.start(max_in_flight_per_slot=3)
    wires = [await rig.send(rig.request()) for _ in range(3)]
    await eventually(lambda: rig.stats.in_flight == 3)
    got = await rig.ask()
    assert (got.status, got.headers["retry-after"]) == (503, "1")
    assert got.problem["type"].endswith("overloaded")
    release.set()
    assert [(await wire.answer()).status for wire in wires] == [204] * 3
    assert (await rig.ask()).status == 204


async def test_connections_beyond_the_limit_are_told_and_closed(rig: Rig) -> None:
    await rig.start(max_connections=2)
    wires = [await rig.send(rig.request()) for _ in range(2)]
    assert [(await wire.answer()).status for wire in wires] == [200, 200]
    third = await rig.wire()
    assert (await third.answer()).status == 503
    assert await third.ended()
    wires[0].writer.close()
    await eventually(lambda: len(rig.context.connections) == 1)
    assert (await rig.ask()).status == 200


async def test_while_draining_answers_end_their_connections(rig: Rig) -> None:
    await rig.start()
    wire = await rig.send(rig.request())
    assert "connection" not in (await wire.answer()).headers
    rig.draining = True
    wire.send(rig.request())
    assert (await wire.answer()).headers["connection"] == "close"
    assert await wire.ended()


async def test_a_drain_closes_what_is_idle_and_waits_for_what_is_under_way(rig: Rig) -> None:
    release = asyncio.Event()

    async def script(_: Service, __: Received, writer: asyncio.StreamWriter) -> None:
        await release.wait()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone")

    rig.service.script = script
    await rig.start(grace_seconds=60)
    idle = await rig.wire()
    busy = await rig.send(rig.request())
    await eventually(lambda: rig.service.received)
    rig.draining = True
    drain = asyncio.create_task(rig.server.drain())
    assert await idle.ended()
    with pytest.raises(ConnectionError):
        await asyncio.open_connection("127.0.0.1", rig.server.port)
    assert not drain.done()
    release.set()
    assert (await busy.answer()).body == b"done"
    async with asyncio.timeout(WAIT):
        await drain


async def test_a_drain_cuts_off_what_outlasts_the_grace(rig: Rig) -> None:
    rig.service.script = hang
    await rig.start(grace_seconds=0.2)
    wire = await rig.send(rig.request())
    await eventually(lambda: rig.service.received)
    async with asyncio.timeout(WAIT):
        await rig.server.drain()
    assert await wire.ended()


async def test_a_slot_that_leaves_finishes_what_it_has(rig: Rig) -> None:
    release = asyncio.Event()

    async def script(_: Service, __: Received, writer: asyncio.StreamWriter) -> None:
        await release.wait()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone")

    old, new = rig.another(script), rig.another()
    await rig.start({"feed": [old]})
    await new.start()
    wire = await rig.send(rig.request())
    await eventually(lambda: old.received)
    rig.locate({"feed": [new.address]}, epoch=2)
    assert (await rig.ask()).body == b"ok"
    release.set()
    assert (await wire.answer()).body == b"done"
    await eventually(lambda: not old.open_writers)
    await new.stop()
