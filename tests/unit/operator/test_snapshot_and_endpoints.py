"""From EndpointSlices to the snapshot ConfigMap, and back after a restart."""

from __future__ import annotations

import time
from typing import Any

import pytest

from fanfold.contracts.resources import HashRingSpec
from fanfold.contracts.snapshot import SNAPSHOT_KEY, decode
from fanfold_operator.ring.endpoints import by_service, pods_behind
from fanfold_operator.ring.slots import Endpoint
from fanfold_operator.ring.snapshot import VACANT_KEY, Memory, Ring, advance, recall

SPEC = HashRingSpec(platform="demo", services=["feed"])
NOTHING = Memory(None, {})


def ready(*addresses: str) -> dict[str, list[Endpoint]]:
    return {"feed": [Endpoint(address, ready=True) for address in addresses]}


def step(memory: Memory, endpoints: dict[str, list[Endpoint]], wanted: int = 2, least: int = 0) -> Ring:
    return advance(
        memory, platform="prod/demo", spec=SPEC, endpoints=endpoints, wanted={"feed": wanted}, least_epoch=least
    )


def remembered(ring: Ring) -> Memory:
    return recall({"data": ring.data()})


def test_the_epoch_rises_only_with_the_content() -> None:
    first = step(NOTHING, ready("a:1", "b:1"))
    assert (first.snapshot.epoch, first.changed) == (1, True)
    same = step(remembered(first), ready("b:1", "a:1"))
    assert (same.snapshot.epoch, same.changed) == (1, False)
    assert same.data() == first.data()
    assert step(remembered(first), ready("a:1", "c:1")).snapshot.epoch == 2


def test_a_vacant_number_survives_a_restart() -> None:
    gap = step(remembered(step(NOTHING, ready("a:1", "b:1"))), ready("b:1"))
    assert gap.data()[VACANT_KEY] == '{"feed":[0]}'
    back = step(remembered(gap), ready("b:1", "c:1"))
    assert {slot.slot: slot.address for slot in back.snapshot.services["feed"]} == {"feed-0": "c:1", "feed-1": "b:1"}


@pytest.mark.parametrize("damage", ["", "{}", "not json", '{"format": 1}'])
def test_the_epoch_never_falls_even_if_the_map_is_lost(damage: str) -> None:
    lost = step(recall({"data": {SNAPSHOT_KEY: damage}} if damage else None), ready("a:1"), least=41)
    assert lost.snapshot.epoch == 42


def test_another_setting_of_the_ring_is_another_epoch() -> None:
    first = step(NOTHING, ready("a:1"))
    spec = HashRingSpec(platform="demo", services=["feed"], virtual_nodes=80)
    second = advance(
        remembered(first), platform="prod/demo", spec=spec, endpoints=ready("a:1"), wanted={"feed": 1}, least_epoch=0
    )
    assert second.snapshot.epoch == 2
    assert second.snapshot.virtual_nodes == 80


def test_gateways_can_read_what_is_written() -> None:
    ring = step(NOTHING, ready("10.0.0.1:8000"))
    assert decode(ring.data()[SNAPSHOT_KEY]) == ring.snapshot
    assert ring.snapshot.platform == "prod/demo"


def test_five_thousand_endpoints_fit_into_one_object() -> None:
    many = ready(*(f"10.{i // 62500}.{i // 250 % 250}.{i % 250}:8000" for i in range(5000)))
    first = step(NOTHING, many, wanted=5000)
    assert sum(map(len, first.data().values())) < 1 << 20
    started = time.process_time()
    step(remembered(first), many, wanted=5000)
    assert time.process_time() - started < 3, "0.1 s is the aim on a quiet machine"


def part(*endpoints: dict[str, Any], service: str = "feed", **rest: Any) -> dict[str, Any]:
    labels = {"fanfold.dev/service": service}
    return {"metadata": {"name": "x", "labels": labels}, "addressType": "IPv4", "endpoints": list(endpoints), **rest}


def one(address: str, **conditions: bool | None) -> dict[str, Any]:
    return {"addresses": [address], "conditions": conditions, "targetRef": {"kind": "Pod", "name": f"pod-{address}"}}


def test_slices_become_endpoints() -> None:
    slices = [
        part(one("10.0.0.1", ready=True), one("10.0.0.2", ready=False), one("10.0.0.3", ready=False, terminating=True)),
        part(one("10.0.0.4"), service="post"),
        {"metadata": {"name": "foreign"}, "endpoints": [one("10.0.0.5")]},
        part(service="image", endpoints=None),
    ]
    assert by_service(slices) == {
        "feed": [
            Endpoint("10.0.0.1:8000", ready=True),
            Endpoint("10.0.0.2:8000", ready=False),
            Endpoint("10.0.0.3:8000", ready=False, leaving=True),
        ],
        "post": [Endpoint("10.0.0.4:8000", ready=True)],
    }


def test_a_pod_in_two_slices_counts_once_and_as_ready() -> None:
    slices = [part(one("10.0.0.1", ready=False)), part(one("10.0.0.1", ready=True)), part(one("10.0.0.1", ready=False))]
    assert by_service(slices) == {"feed": [Endpoint("10.0.0.1:8000", ready=True)]}


def test_ipv6_addresses_are_in_brackets() -> None:
    assert by_service([part(one("2001:db8::1"), addressType="IPv6")])["feed"][0].address == "[2001:db8::1]:8000"


def test_ready_pods_come_first() -> None:
    slices = [part(one("10.0.0.1", ready=False), one("10.0.0.2", ready=True), service="gateway")]
    assert pods_behind(slices, "gateway") == ["pod-10.0.0.2", "pod-10.0.0.1"]
