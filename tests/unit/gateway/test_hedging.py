from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import count
from typing import TYPE_CHECKING
from uuid import UUID

import pytest

from fanfold.contracts.ring import Ring, key_of
from fanfold.contracts.snapshot import Slot
from tests.waiting import eventually

if TYPE_CHECKING:
    from tests.unit.gateway.conftest import Received, Rig, Service

FAST = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nfast"


async def hang(_: Service, __: Received, ___: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def fast(_: Service, __: Received, writer: asyncio.StreamWriter) -> None:
    writer.write(FAST)


@pytest.fixture
async def pair(rig: Rig, request: pytest.FixtureRequest) -> AsyncIterator[tuple[Service, Service, bytes]]:
    """Two slots that hedge after 50 ms (or the fixture's parameter), and a request of a user of the first one's."""
    first, second = rig.another(), rig.another()
    seconds: float = getattr(request, "param", 0.05)
    await rig.start({"feed": [first, second], "post": [first, second]}, hedge_seconds=seconds)
    ring = Ring([Slot("feed-0", first.address), Slot("feed-1", second.address)])
    users = (UUID(int=number) for number in count())
    user = rig.bearer(next(one for one in users if ring.owner(key_of(one.bytes)) == 0))
    yield first, second, b"GET /v1/feed HTTP/1.1\r\nhost: a\r\n" + user + b"\r\n"
    assert rig.stats.in_flight == rig.stats.retrying == 0
    assert not any(endpoint.in_flight for _, endpoint in rig.balancer.endpoints())


async def test_a_slow_read_is_answered_by_the_second_slot(rig: Rig, pair: tuple[Service, Service, bytes]) -> None:
    first, second, request = pair
    first.script, second.script = hang, fast
    wire = await rig.send(request)
    assert (await wire.answer()).body == b"fast"
    assert (len(first.received), len(second.received)) == (1, 1)
    assert (rig.stats.hedges, rig.stats.hedges_won) == (1, 1)
    second.script = fast
    wire.send(request)
    assert (await wire.answer()).body == b"fast"


@pytest.mark.parametrize("pair", [2.0], indirect=True)
async def test_a_quick_read_asks_nobody_else(rig: Rig, pair: tuple[Service, Service, bytes]) -> None:
    first, second, request = pair
    wire = await rig.send(request)
    await wire.answer()
    await asyncio.sleep(2.2)
    assert (len(first.received), len(second.received), rig.stats.hedges) == (1, 0, 0)


async def test_when_the_first_slot_answers_after_all_the_second_is_let_go(
    rig: Rig, pair: tuple[Service, Service, bytes]
) -> None:
    first, second, request = pair

    async def slow(_: Service, __: Received, writer: asyncio.StreamWriter) -> None:
        await eventually(lambda: second.received)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nslow")

    first.script, second.script = slow, hang
    wire = await rig.send(request)
    assert (await wire.answer()).body == b"slow"
    assert (rig.stats.hedges, rig.stats.hedges_won) == (1, 0)


@pytest.mark.parametrize("also", [False, True])
async def test_a_first_slot_that_breaks_off_leaves_it_to_the_second(
    rig: Rig, pair: tuple[Service, Service, bytes], also: bool
) -> None:
    first, second, request = pair

    async def close(_: Service, __: Received, writer: asyncio.StreamWriter) -> None:
        await eventually(lambda: second.received)
        writer.close()

    async def after(_: Service, __: Received, writer: asyncio.StreamWriter) -> None:
        if len(second.received) == 1:
            await asyncio.sleep(0.1)
            if also:
                writer.close()
                return
        writer.write(FAST)

    first.script, second.script = close, after
    wire = await rig.send(request)
    assert (await wire.answer()).body == b"fast"


async def test_a_client_that_leaves_ends_both(rig: Rig, pair: tuple[Service, Service, bytes]) -> None:
    first, second, request = pair
    first.script = second.script = hang
    wire = await rig.send(request)
    await eventually(lambda: second.received)
    wire.writer.close()
    await eventually(lambda: rig.stats.in_flight == 0)


async def test_what_changes_something_is_never_hedged(rig: Rig, pair: tuple[Service, Service, bytes]) -> None:
    first, second, _ = pair

    async def slow(_: Service, __: Received, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.2)
        writer.write(FAST)

    first.script = second.script = slow
    await rig.ask(b"POST /v1/posts", body=b"{}")
    assert len(first.received) + len(second.received) == 1
    assert rig.stats.hedges == 0
