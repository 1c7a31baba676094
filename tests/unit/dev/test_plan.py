"""What ``fanfold dev`` decides before it starts anything."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fanfold.contracts.components import BY_NAME, COMPONENTS
from fanfold.contracts.snapshot import decode
from fanfold.dev.plan import Launch, PlanError, assign, choose, environment, snapshot

LAUNCHES = [Launch("gateway", 8080, 1), Launch("feed", 2, 3), Launch("feed-worker", 4, 5), Launch("post", 6, 7)]


def test_everything_runs_when_nothing_is_asked_for() -> None:
    assert choose([]) == [component.name for component in COMPONENTS]


def test_what_is_asked_for_runs_in_the_order_of_the_table() -> None:
    assert choose(["feed", "gateway"]) == ["gateway", "feed"]


def test_an_unknown_component_is_named_with_those_there_are() -> None:
    with pytest.raises(PlanError, match=r"no component foto; there are: gateway, profile"):
        choose(["gateway", "foto"])


def test_each_component_gets_two_ports_of_its_own_and_the_gateway_the_one_asked_for() -> None:
    launches = assign(["gateway", "profile", "post"], range(100, 106), 8080)
    ports = [port for launch in launches for port in (launch.traffic_port, launch.admin_port)]
    assert launches[0].traffic_port == 8080
    assert len(set(ports)) == 6


def test_the_snapshot_has_one_slot_for_each_routed_service_and_nothing_else() -> None:
    found = decode(snapshot(LAUNCHES, epoch=7))
    assert found.epoch == 7
    assert {name: [(slot.slot, slot.address) for slot in slots] for name, slots in found.services.items()} == {
        "feed": [("feed-0", "127.0.0.1:2")],
        "post": [("post-0", "127.0.0.1:6")],
    }


def test_components_learn_of_each_other_and_listen_on_loopback_only() -> None:
    env = environment(LAUNCHES[1], LAUNCHES, Path("/somewhere"), "http://127.0.0.1:9")
    assert json.loads(env["FANFOLD_PEERS"]) == {"feed": "http://127.0.0.1:2", "post": "http://127.0.0.1:6"}
    assert env["FANFOLD_TRAFFIC_HOST"] == env["FANFOLD_ADMIN_HOST"] == "127.0.0.1"
    assert (env["FANFOLD_TRAFFIC_PORT"], env["FANFOLD_ADMIN_PORT"]) == ("2", "3")
    assert env["FANFOLD_SERVICE"] == "feed"


def test_no_environment_carries_a_secret() -> None:
    names = {name for launch in LAUNCHES for name in environment(launch, LAUNCHES, Path("/x"), "http://127.0.0.1:9")}
    assert not {name for name in names if any(word in name for word in ("KEY", "PASSWORD", "DATABASE", "VALKEY"))}


def test_the_table_knows_the_components_that_the_plan_names() -> None:
    assert {launch.name for launch in LAUNCHES} <= BY_NAME.keys()
