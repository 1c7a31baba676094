"""What a HashRing's status tells."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from fanfold_operator.kinds import Manifest
from fanfold_operator.planning.ring import (
    PROPAGATION_SECONDS,
    Acks,
    RingView,
    advance_ring,
    config_map,
    gateways,
    status,
)

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def part(service: str, *addresses: str, ready: bool = True) -> Manifest:
    labels = {"fanfold.dev/service": service, "fanfold.dev/platform": "demo"}
    endpoints = [{"addresses": [address], "conditions": {"ready": ready}} for address in addresses]
    return {"metadata": {"name": service, "labels": labels}, "addressType": "IPv4", "endpoints": endpoints}


@pytest.fixture
def view(resource: Callable[..., Manifest]) -> Callable[..., RingView]:
    spec = {"platform": "demo", "services": ["feed"]}
    feed = {"platform": "demo", "component": "feed", "version": "1", "image": "x", "scaling": {"min": 2, "max": 2}}

    def make(*slices: Manifest, before: dict[str, Any] | None = None, data: Any = None) -> RingView:
        ring = resource("HashRing", spec=spec, status=before or {})
        return RingView(ring, data, slices, [resource("PlatformService", "demo-feed", feed)], NOW)

    return make


def told(status: dict[str, Any], kind: str) -> tuple[str, str]:
    return next((one["status"], one["reason"]) for one in status["conditions"] if one["type"] == kind)


def test_members_epoch_and_gateways_are_told(view: Callable[..., RingView]) -> None:
    seen = view(part("feed", "10.0.0.1", "10.0.0.2"), part("gateway", "10.0.1.1", "10.0.1.2"))
    ring = advance_ring(seen)
    assert gateways(seen) == ["10.0.1.1:9000", "10.0.1.2:9000"]
    after = status(seen, ring, Acks(epoch=1, gateways=2, acked=2, seconds=0.0421))
    assert (after["epoch"], after["members"], after["acked"], after["propagation"]) == (1, 2, "2/2", "42 ms")
    assert after["checksum"] == ring.snapshot.checksum
    assert told(after, "Synced") == ("True", "AllAcked")
    assert told(after, "Ready") == ("True", "Complete")
    owner = config_map(seen, ring)["metadata"]["ownerReferences"][0]
    assert (owner["kind"], owner["name"]) == ("HashRing", "demo")


def test_slots_are_told_by_service_and_state(view: Callable[..., RingView]) -> None:
    first = view(part("feed", "10.0.0.1", "10.0.0.2"))
    seen = view(part("feed", "10.0.0.1", ready=False), data={"data": advance_ring(first).data()})
    after = status(seen, advance_ring(seen), Acks())
    assert after["slots"] == {"feed": {"active": 0, "draining": 1, "vacant": 1}}


def test_a_ring_made_anew_goes_on_from_the_epoch_its_platform_was_told(
    view: Callable[..., RingView], resource: Callable[..., Manifest]
) -> None:
    seen = view(part("feed", "10.0.0.1"))
    assert advance_ring(seen).snapshot.epoch == 1
    platform = resource("Platform", spec={}, status={"ring": {"epoch": 7, "acked": "2/2"}})
    assert advance_ring(replace(seen, platform=platform)).snapshot.epoch == 8


def test_a_ring_that_fell_behind_what_a_gateway_uses_overtakes_it(view: Callable[..., RingView]) -> None:
    """After the cluster was restored from a backup: gateways refuse a lower epoch, and an equal one of other slots."""
    feed = part("feed", "10.0.0.1")
    ring = advance_ring(view(feed))
    restored = replace(view(feed, data={"data": ring.data()}), used=40)
    assert advance_ring(restored).snapshot.epoch == 41
    assert advance_ring(replace(restored, used=1)).snapshot.epoch == 1, "who uses the newest changes nothing"


def test_a_routed_service_without_members_is_told(view: Callable[..., RingView]) -> None:
    seen = view(part("feed", "10.0.0.1", ready=False))
    assert told(status(seen, advance_ring(seen), Acks()), "Ready") == ("False", "NoMembers")
    assert told(status(seen, advance_ring(seen), Acks()), "Synced") == ("False", "NoGateway")


def test_a_change_on_its_way_is_no_fault_until_it_takes_too_long(view: Callable[..., RingView]) -> None:
    first = view(part("feed", "10.0.0.1"), part("gateway", "10.0.1.1"))
    ring = advance_ring(first)
    synced = status(first, ring, Acks(epoch=1, gateways=1, acked=1, seconds=0.1))
    changed = view(part("feed", "10.0.0.9"), part("gateway", "10.0.1.1"), before=synced, data={"data": ring.data()})
    newer = advance_ring(changed)
    assert newer.snapshot.epoch == 2
    on_its_way = status(changed, newer, Acks(epoch=2, gateways=1, acked=0, waiting=0.2))
    assert told(on_its_way, "Synced") == ("True", "Propagating")
    late = status(changed, newer, Acks(epoch=2, gateways=1, acked=0, waiting=PROPAGATION_SECONDS + 1))
    assert told(late, "Synced") == ("False", "Waiting")


def test_the_time_of_the_last_change_stays(view: Callable[..., RingView]) -> None:
    first = view(part("feed", "10.0.0.1"))
    ring = advance_ring(first)
    before = status(first, ring, Acks()) | {"lastChangeTime": "2020-01-01T00:00:00Z", "propagation": "7 ms"}
    again = view(part("feed", "10.0.0.1"), before=before, data={"data": ring.data()})
    after = status(again, advance_ring(again), Acks(epoch=1))
    assert (after["lastChangeTime"], after["propagation"]) == ("2020-01-01T00:00:00Z", "7 ms")
