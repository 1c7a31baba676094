from __future__ import annotations

import random
from typing import Any

import pytest

from fanfold.contracts.ring import key_of
from fanfold.contracts.snapshot import Slot, Snapshot
from fanfold.gateway.balancer import LOAD_FLOOR, Balancer
from fanfold.gateway.settings import GatewaySettings
from fanfold.kit.errors import Unavailable

KEY = key_of(b"k" * 16)


def snapshot(*slots: Slot, epoch: int = 1) -> Snapshot:
    return Snapshot("default/test", epoch, {"feed": list(slots)})


def slots(count: int, port: int = 8000) -> list[Slot]:
    return [Slot(f"feed-{n}", f"10.0.0.{n}:{port}") for n in range(count)]


def balancer(*first: Slot, **settings: Any) -> Balancer:
    made = Balancer(GatewaySettings(snapshot_source="file:/nowhere", **settings))
    apply(made, snapshot(*first))
    return made


def apply(target: Balancer, new: Snapshot) -> None:
    target.apply(new, target.build_rings(new))


@pytest.fixture
def chance(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same choices each time: one run in 150 spreads more than what is asserted."""
    monkeypatch.setattr("fanfold.gateway.balancer.random", random.Random(1))


def test_a_user_stays_at_one_slot_while_requests_are_few() -> None:
    made = balancer(*slots(4))
    home = made.choose("feed", KEY, set())
    for _ in range(LOAD_FLOOR - 1):
        home.in_flight += 1
        assert made.choose("feed", KEY, set()) is home


def test_a_hot_user_spills_over_once_the_slot_is_above_its_share() -> None:
    made = balancer(*slots(4))
    home = made.choose("feed", KEY, set())
    home.in_flight = 100
    assert made.choose("feed", KEY, set()) is not home


@pytest.mark.usefixtures("chance")
def test_among_hundreds_of_slots_the_load_stays_bounded_though_it_is_counted_now_and_then() -> None:
    made = balancer(*slots(300))
    for _ in range(4 * 300):
        made.choose("feed", KEY, set()).in_flight += 1
    loads = [endpoint.in_flight for _, endpoint in made.endpoints()]
    assert sum(loads) == 1_200
    assert max(loads) < 2 * LOAD_FLOOR  # of two random slots, one is seldom among the sixteen that are full


def test_with_every_slot_near_full_one_with_room_is_found() -> None:
    made = balancer(*slots(50))
    *others, spare = [endpoint for _, endpoint in made.endpoints()]
    for endpoint in others:
        endpoint.in_flight = endpoint.limit
    assert made.choose("feed", KEY, set()) is spare


def test_a_slot_that_failed_is_not_chosen_again_while_there_is_another() -> None:
    made = balancer(*slots(2))
    home = made.choose("feed", KEY, set())
    other = made.choose("feed", KEY, {home.slot})
    assert other is not home
    assert made.choose("feed", KEY, {home.slot, other.slot}) in (home, other)


def test_an_unreachable_slot_is_left_alone_until_it_is_time() -> None:
    made = balancer(*slots(3))
    home = made.choose("feed", KEY, set())
    home.available = False
    assert made.choose("feed", KEY, set()) is not home
    made.sweep(1e12)
    assert made.choose("feed", KEY, set()) is home


def test_unreachable_slots_are_tried_when_there_is_no_other() -> None:
    made = balancer(*slots(1))
    made.choose("feed", KEY, set()).available = False
    assert made.choose("feed", KEY, set()).slot == "feed-0"
    assert made.choose("feed", None, set()).slot == "feed-0"


def test_slots_at_their_limit_are_passed_by_and_none_with_room_is_an_overload() -> None:
    made = balancer(*slots(2), max_in_flight_per_slot=2)
    home = made.choose("feed", KEY, set())
    home.in_flight = 2
    other = made.choose("feed", KEY, set())
    assert other is not home
    other.in_flight = 2
    for key in (KEY, None):
        with pytest.raises(Unavailable, match="limit") as refused:
            made.choose("feed", key, set())
        assert refused.value.headers["retry-after"]


@pytest.mark.parametrize("service", ["feed", "unheard-of"])
def test_a_service_without_slots_is_unavailable(service: str) -> None:
    with pytest.raises(Unavailable, match=f"{service} service has no replica"):
        balancer().choose(service, KEY, set())


@pytest.mark.usefixtures("chance")
def test_requests_of_nobody_go_to_the_less_loaded_of_two() -> None:
    made = balancer(*slots(10))
    for _ in range(500):
        made.choose("feed", None, set()).in_flight += 1
    loads = [endpoint.in_flight for _, endpoint in made.endpoints()]
    assert max(loads) - min(loads) <= 6  # one random choice would spread over 20


def test_an_endpoint_that_stays_keeps_its_connections_and_counts() -> None:
    made = balancer(*slots(3))
    home = made.choose("feed", KEY, set())
    apply(made, snapshot(*slots(4), epoch=2))
    assert home in [endpoint for _, endpoint in made.endpoints()]


def test_a_slot_at_a_new_address_is_a_new_endpoint_and_the_old_one_drains() -> None:
    made = balancer(*slots(3))
    home = made.choose("feed", KEY, set())
    apply(made, snapshot(*slots(3, port=8001), epoch=2))
    assert home.draining
    moved = made.choose("feed", KEY, set())
    assert (moved.slot, moved.port) == (home.slot, 8001)


def test_a_draining_slot_gets_no_more_keys() -> None:
    made = balancer(*slots(3))
    home = made.choose("feed", KEY, set())
    now = [Slot(s.slot, s.address, "draining") if s.slot == home.slot else s for s in slots(3)]
    apply(made, snapshot(*now, epoch=2))
    assert made.choose("feed", KEY, set()) is not home


def test_rings_of_unchanged_slots_are_not_built_again() -> None:
    made = balancer(*slots(3))
    assert made.build_rings(snapshot(*slots(3, port=9), epoch=2))["feed"] is made._services["feed"].ring
    assert made.build_rings(snapshot(*slots(4), epoch=2))["feed"] is not made._services["feed"].ring


def test_an_ipv6_address_is_understood() -> None:
    endpoint = balancer(Slot("feed-0", "[fd00::1]:8000")).choose("feed", KEY, set())
    assert (endpoint.host, endpoint.port, endpoint.address) == ("fd00::1", 8000, "[fd00::1]:8000")
