from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING
from uuid import UUID

import pytest

from fanfold.contracts.snapshot import Slot
from fanfold.gateway.outliers import INTERVAL_SECONDS, MAX_EJECTION_SECONDS, Outliers, may_eject
from fanfold.gateway.settings import GatewaySettings
from fanfold.gateway.upstream import Endpoint

if TYPE_CHECKING:
    from tests.unit.gateway.conftest import Received, Rig, Service

SETTINGS = GatewaySettings(snapshot_source="file:/nowhere")


def group(count: int) -> list[Endpoint]:
    return [Endpoint(f"feed-{n}", f"10.0.0.{n}:8000", SETTINGS) for n in range(count)]


def fail(outliers: Outliers, one: Endpoint, others: list[Endpoint], times: int = 5, now: float = 0.0) -> list[bool]:
    return [outliers.failed(one, others, now) for _ in range(times)]


@pytest.mark.parametrize(
    ("slots", "ejected", "others", "may"),
    [
        (1, 0, 0, False),  # the last one is never left alone
        (2, 0, 1, True),
        (3, 0, 2, True),
        (3, 0, 1, False),  # one is unreachable already: less than half would be left
        (3, 1, 1, False),  # a tenth, but at least one
        (20, 1, 18, True),
        (20, 2, 17, False),
    ],
)
def test_so_many_slots_may_be_left_alone(slots: int, ejected: int, others: int, may: bool) -> None:
    assert may_eject(slots, ejected, others) is may


def test_a_slot_that_is_unreachable_already_can_be_ejected() -> None:
    one, other = slots = group(2)
    one.leave_alone(1.0)
    assert fail(Outliers(5, 30), one, slots)[-1]
    assert (one.ejected, other.available) == (True, True)


def test_failures_in_a_row_eject_and_the_time_brings_the_slot_back() -> None:
    slots = group(3)
    outliers = Outliers(5, 30)
    assert fail(outliers, slots[0], slots) == [False, False, False, False, True]
    assert (slots[0].ejected, slots[0].available) == (True, False)
    slots[0].revive(29.9)
    assert not slots[0].available
    slots[0].revive(30)
    assert (slots[0].ejected, slots[0].available) == (False, True)


def test_each_ejection_is_longer_and_quiet_intervals_make_it_shorter_again() -> None:
    slots = group(3)
    outliers = Outliers(5, 30)
    for ejection in range(1, 15):
        now = ejection * 1000.0
        fail(outliers, slots[0], slots, now=now)
        expected = min(MAX_EJECTION_SECONDS, 30 * ejection)
        slots[0].revive(now + expected - 0.1)
        assert not slots[0].available
        slots[0].revive(now + expected)
        assert slots[0].available
    for interval in range(20):
        outliers.forgive(slots, 100_000 + interval * INTERVAL_SECONDS)
    assert slots[0].ejections == 0


def test_when_too_few_are_left_ejected_slots_are_used_again() -> None:
    slots = group(4)
    outliers = Outliers(5, 30)
    fail(outliers, slots[0], slots)
    slots[1].leave_alone(100)
    outliers.sweep(slots)
    assert not slots[0].available  # half of them are left
    slots[2].leave_alone(100)
    outliers.sweep(slots)
    assert [one.available for one in slots] == [True, False, False, True]  # those that cannot be reached stay out


def test_zero_ejects_never() -> None:
    slots = group(3)
    assert not any(fail(Outliers(0, 30), slots[0], slots, times=100))


async def broken(_: Service, __: Received, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n")


async def test_a_slot_that_fails_its_users_is_replaced_until_it_is_well(rig: Rig) -> None:
    bad, good = rig.another(broken), rig.another()
    await rig.start({"feed": [bad, good]}, outlier_seconds=300)
    statuses = [(await rig.ask(user=UUID(int=number))).status for number in range(60)]
    assert statuses.count(500) == 5
    assert rig.stats.ejections == {"feed": 1}
    bad.script = good.script
    rig.balancer.sweep(monotonic() + 300)  # the time is over
    assert {(await rig.ask(user=UUID(int=number))).status for number in range(20)} == {200}
    assert len(bad.received) > 5


async def test_answers_in_between_start_the_count_again(rig: Rig) -> None:
    async def now_and_then(service: Service, _: Received, writer: asyncio.StreamWriter) -> None:
        status = b"500 Internal Server Error" if len(service.received) % 5 else b"200 OK"
        writer.write(b"HTTP/1.1 " + status + b"\r\ncontent-length: 0\r\n\r\n")

    bad, other = rig.another(now_and_then), rig.another(now_and_then)
    await rig.start({"feed": [bad, other]})
    for _ in range(40):
        await rig.ask()
    assert rig.stats.ejections == {}


def test_an_endpoint_out_of_the_snapshot_is_nobodys_outlier() -> None:
    from fanfold.gateway.balancer import Balancer  # noqa: PLC0415

    Balancer(SETTINGS).failed("feed", Endpoint("feed-0", "10.0.0.1:8000", SETTINGS))
    assert Slot("feed-0", "10.0.0.1:8000").state == "active"
