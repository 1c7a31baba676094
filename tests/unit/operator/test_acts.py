"""What a load test has done to its Platform: what is refused, how each act goes on, and that each is done once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from fanfold_operator.conditions import timestamp
from fanfold_operator.handlers.routing import concerned
from fanfold_operator.kinds import LOAD_TEST, Key, Manifest
from fanfold_operator.planning import acts
from fanfold_operator.planning.acts import EFFECT, Act, Scene, Wish, advance, deeds, losing, pinned
from fanfold_operator.planning.upgrade import ORDER
from fanfold_operator.store import Store

from .conftest import NOW

GROW = Wish(0, "scale", "feed", 1)
LOSE = Wish(1, "restart-pod", "feed")
RESTART = Wish(0, "restart-all")
Make = Callable[..., Scene]


def pod(name: str, **metadata: str) -> Manifest:
    return {"metadata": {"name": name, **metadata}}


def deployment(name: str, stamp: str = "", updated: int = 1) -> Manifest:
    counts = {"replicas": 1, "updatedReplicas": updated, "availableReplicas": 1, "observedGeneration": 1}
    template = {"metadata": {"annotations": {acts.RESTARTED: stamp}}} if stamp else {}
    return {
        "metadata": {"name": f"demo-{name}", "namespace": "prod", "generation": 1},
        "spec": {"replicas": 1, "template": template},
        "status": counts,
    }


@pytest.fixture
def scene(resource: Callable[..., Manifest]) -> Make:
    """Of the Platform `demo`, which allows 1 to 3 replicas of feed and runs two, and pods a and b."""

    def make(spec: Manifest | None = None, status: Manifest | None = None, **rest: Any) -> Scene:
        wanted = spec or {"services": {"feed": {"replicas": {"min": 1, "max": 3}}}}
        feed = {"status": {"replicas": 2, "ready": "2/2"}}
        known: dict[str, Any] = {
            "platform": resource("Platform", spec=wanted, status=status or {}),
            "paused": False,
            "services": {"feed": feed},
            "deployments": {one.name: deployment(one.name) for one in ORDER},
            "pods": {"feed": [pod("b"), pod("a")]},
            "now": NOW,
        }
        return Scene(**known | rest)

    return make


def test_a_service_is_scaled_within_the_platforms_bounds_and_done_when_it_runs_so_many(scene: Make) -> None:
    (begun,) = advance([], [GROW], scene())
    assert (begun.state, begun.replicas, begun.message) == ("Begun", 3, "feed to 3 replicas")
    assert advance([begun], [GROW], scene(now=NOW + EFFECT)) == [begun], "it is waited for"
    there = scene(services={"feed": {"status": {"replicas": 3, "ready": "3/3"}}}, now=NOW + timedelta(seconds=9))
    (done,) = advance([begun], [GROW], there)
    assert (done.state, done.message, done.since) == ("Done", "feed has 3", "2026-01-02T03:04:14Z")
    assert advance([done], [GROW], scene(now=NOW + 2 * EFFECT)) == [done], "over is over"
    (late,) = advance([begun], [GROW], scene(now=NOW + EFFECT + timedelta(seconds=1)))
    assert (late.state, late.message) == ("Failed", "feed to 3 replicas: that was not so within 240 s")


@pytest.mark.parametrize(
    ("wish", "more", "words"),
    [
        (Wish(0, "scale", "feed", 2), {}, "Platform demo allows 1 to 3 replicas of feed, it would be 4"),
        (Wish(0, "scale", "feed", -2), {}, "allows 1 to 3 replicas of feed, it would be 0"),
        (Wish(0, "scale", "gateway", 99), {}, "replicas of gateway, it would be 99"),
        (Wish(0, "scale", "dream", 1), {}, "dream is no service; there are: activity, feed"),
        (Wish(0, "restart-pod", "feed"), {"pods": {"feed": [pod("a", deletionTimestamp="x")]}}, "has no pod"),
        (GROW, {"paused": True}, "is paused: nothing of it is changed"),
        (GROW, {"platform": None}, "the Platform is gone"),
        (
            RESTART,
            {"status": {"upgrade": {"phase": "Gating", "to": "0.2.0", "toImage": "x", "since": "s"}}},
            "an upgrade to 0.2.0 is under way",
        ),
    ],
)
def test_what_may_not_be_done_is_refused_and_nothing_is(scene: Make, wish: Wish, more: Manifest, words: str) -> None:
    view = scene(**more)
    (act,) = advance([], [wish], view)
    assert act.state == "Failed"
    assert words in act.message
    assert deeds([act], view) == acts.Deeds()
    assert pinned([{"status": {"acts": msgspec.to_builtins([act])}}]) == {}


def test_a_pod_is_evicted_once_it_is_written_down_and_no_other_after_it(scene: Make) -> None:
    (begun,) = advance([], [LOSE], scene())
    assert (begun.pod, begun.message) == ("a", "a pod of feed is to go")
    assert deeds([], scene()).evict == ()
    assert deeds([begun], scene()).evict == (Key("Pod", "prod", "a"),), "also if its budget said no before"
    assert deeds([begun], scene(paused=True)).evict == ()
    goes = scene(pods={"feed": [pod("a", deletionTimestamp="x"), pod("b")]})
    assert deeds([begun], goes).evict == ()
    (done,) = advance([begun], [LOSE], goes)
    assert (done.state, done.message) == ("Done", "a pod of feed goes")
    assert losing([LOSE], []) == losing([LOSE], [begun]) == {"feed"}
    assert losing([LOSE], [done]) == set()


def test_all_restart_one_after_the_other_in_the_order_of_an_upgrade(scene: Make) -> None:
    now, record, order = NOW, advance([], [RESTART], scene()), []
    view = scene()
    while record[0].state == "Begun":
        act = record[0]
        (restart,) = deeds(record, view).restart
        order.append(act.service)
        assert restart == (Key("Deployment", "prod", f"demo-{act.service}"), act.since)
        begun = {**view.deployments, act.service: deployment(act.service, act.since, updated=0)}
        view = replace(view, deployments=begun)
        assert deeds(record, view).restart == (), "once"
        assert advance(record, [RESTART], view) == record, "its pods are not of the new template yet"
        now += timedelta(seconds=5)
        view = replace(view, now=now, deployments={**begun, act.service: deployment(act.service, act.since)})
        record = advance(record, [RESTART], view)
    assert order == [one.name for one in ORDER]
    assert order[-1] == "gateway"
    assert (record[0].state, record[0].message) == ("Done", "all are restarted")


def test_replicas_count_while_the_run_lasts_the_newest_of_each_service(resource: Any) -> None:
    def act(number: int, service: str, replicas: int, state: Any = "Done") -> Act:
        return Act(number=number, does="scale", state=state, since=timestamp(NOW), service=service, replicas=replicas)

    record = [act(0, "feed", 2), act(1, "post", 2), act(2, "feed", 3, "Begun"), act(3, "post", 9, "Failed")]
    test = resource("LoadTest", "run", {"platformRef": {"name": "demo"}, "acts": True})
    test["status"] = {"acts": msgspec.to_builtins(record)}
    assert pinned([test]) == {"feed": 3, "post": 2}
    assert acts.of(test["status"]) == record
    store = Store()
    store.put(test)
    assert store.of_platform(LOAD_TEST, "prod", "demo") == [store.get(Key("LoadTest", "prod", "run"))]
    assert Key("Platform", "prod", "demo") in concerned(test), "it looks what it has scaled"
    assert Key("Platform", "prod", "demo") not in concerned({**test, "spec": {"platformRef": {"name": "demo"}}})
