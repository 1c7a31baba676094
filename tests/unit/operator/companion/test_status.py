"""`kubectl fanfold status`: what a tree says of resources and pods, and how it reads."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from typing import Any

import pytest
from rich.console import Console

from fanfold_operator.companion import pods, render
from fanfold_operator.companion.tree import Observed, Platform, grow

NOW = datetime(2026, 1, 2, 4, 0, 0, tzinfo=UTC)
MADE = "2026-01-02T03:00:00Z"
Manifest = dict[str, Any]


def conditions(**states: tuple[bool, str, str]) -> list[Manifest]:
    return [
        {"type": kind, "status": str(good), "reason": reason, "message": message, "lastTransitionTime": MADE}
        for kind, (good, reason, message) in states.items()
    ]


def custom(kind: str, name: str, spec: Manifest, status: Manifest, **metadata: Any) -> Manifest:
    head = {"name": name, "namespace": "prod", "generation": 1, "creationTimestamp": MADE, **metadata}
    return {"kind": kind, "metadata": head, "spec": spec, "status": {"observedGeneration": 1, **status}}


def pod(name: str, service: str, status: Manifest, **metadata: Any) -> Manifest:
    labels = {"fanfold.dev/platform": "demo", "fanfold.dev/service": service}
    head = {"name": name, "namespace": "prod", "labels": labels, "creationTimestamp": MADE, **metadata}
    return {"metadata": head, "spec": {"nodeName": "node-1"}, "status": status}


RUNNING = {"phase": "Running", "podIP": "10.0.0.1", "conditions": [{"type": "Ready", "status": "True"}]}
WELL = conditions(Ready=(True, "Ready", "clients can be served"), Degraded=(False, "AsExpected", ""))


def container(state: Manifest, **rest: Any) -> Manifest:
    return {"name": "main", "state": state, "restartCount": 0, **rest}


def service(name: str, status: Manifest, **scaling: int) -> Manifest:
    spec = {"platform": "demo", "component": name, "scaling": scaling, "replicas": 1}
    return custom("PlatformService", f"demo-{name}", spec, status)


def well_service(name: str, **scaling: int) -> Manifest:
    return service(name, {"ready": "1/1", "version": "0.1.0", "conditions": WELL}, **scaling)


def one(
    platform: Manifest, services: list[Manifest], members: list[Manifest], rings: list[Manifest] | None = None
) -> Platform:
    (tree,) = grow(Observed([platform], services, rings or [], members))
    return tree


def printed(platform: Platform) -> str:
    text = io.StringIO()
    Console(file=text, width=160, highlight=False).print(render.status(platform, NOW))
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines())


def test_a_platform_that_is_well_reads_so() -> None:
    status = {"ready": "11/11", "version": "0.1.0", "url": "http://192.0.2.1:30080", "conditions": WELL}
    ring = custom("HashRing", "demo", {"platform": "demo"}, {"epoch": 9, "acked": "2/2", "propagation": "41 ms"})
    tree = one(
        custom("Platform", "demo", {}, status),
        [well_service("feed", min=1, max=20), well_service("gateway")],
        [pod("demo-feed-a", "feed", RUNNING), pod("demo-gateway-a", "gateway", RUNNING),
         pod("demo-postgresql-0", "postgresql", RUNNING),
         pod("demo-migrations-x", "migrations", {"phase": "Succeeded"})],
        [ring],
    )  # fmt: skip
    assert tree.well
    assert (
        printed(tree)
        == """\
● prod/demo  11/11 ready  0.1.0  ring 9 acked 2/2 in 41 ms  http://192.0.2.1:30080
├── ✓ gateway  1/1  0.1.0
│   └── demo-gateway-a  Ready  node-1  1h
├── ✓ feed  1/1  scales 1 to 20  0.1.0
│   └── demo-feed-a  Ready  node-1  1h
└── ✓ postgresql  store  1/1
    └── demo-postgresql-0  Ready  node-1  1h"""
    )


def test_what_waits_is_told_with_its_reason() -> None:
    bad = conditions(
        Ready=(False, "ServicesNotReady", "ServicesReady: not ready: feed (0/1)"),
        ServicesReady=(False, "ServicesNotReady", "not ready: feed (0/1)"),
        DatabaseReady=(True, "Available", "embedded postgresql is ready"),
        OwnershipConflict=(False, "NoConflict", ""),
        Progressing=(True, "ServicesNotReady", "feed"),
    )
    pull = {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling\nimage x"}}
    crash = container({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s"}}, restartCount=4)
    crash["lastState"] = {"terminated": {"reason": "OOMKilled", "exitCode": 137, "finishedAt": "2026-01-02T03:58:00Z"}}
    paused = {"fanfold.dev/paused": "true"}
    tree = one(
        custom("Platform", "demo", {}, {"ready": "0/11", "conditions": bad}, annotations=paused),
        [service("feed", {"ready": "0/1", "conditions": conditions(Ready=(False, "PodsNotReady", "0 of 1 replicas"))})],
        [pod("demo-feed-a", "feed", {"phase": "Pending", "containerStatuses": [container(pull)]}),
         pod("demo-feed-b", "feed", {"phase": "Running", "containerStatuses": [crash]})],
    )  # fmt: skip
    assert not tree.well
    assert (
        printed(tree)
        == """\
▲ prod/demo  0/11 ready  no version serves yet
├── paused: nothing but the ring is changed until kubectl fanfold resume demo
├── under way: ServicesNotReady: feed
├── ✗ ServicesReady ServicesNotReady for 1h: not ready: feed (0/1)
├── ✗ Ready ServicesNotReady for 1h: ServicesReady: not ready: feed (0/1)
└── ✗ feed  0/1
    ├── ✗ Ready PodsNotReady for 1h: 0 of 1 replicas
    ├── demo-feed-a  ImagePullBackOff: Back-off pulling image x  node-1  1h
    └── demo-feed-b  CrashLoopBackOff: back-off 40s  node-1  1h  4 restarts, the last after OOMKilled 2m ago"""
    )


@pytest.mark.parametrize(
    ("status", "metadata", "state", "why"),
    [
        ({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
          "message": "0/1 nodes: Insufficient cpu"}]}, {}, "Unschedulable", "0/1 nodes: Insufficient cpu"),
        ({"phase": "Pending", "containerStatuses": [container({"waiting": {"reason": "ContainerCreating"}})]}, {},
         "Starting", ""),
        ({"phase": "Pending"}, {}, "Starting", "no container was made yet"),
        ({"phase": "Running", "containerStatuses": [container({"running": {}})], "conditions": [
            {"type": "Ready", "status": "False", "message": "containers with unready status: [main]"}]}, {},
         "NotReady", "containers with unready status: [main]"),
        (RUNNING, {"deletionTimestamp": MADE}, "Leaving", f"being deleted since {MADE}"),
        ({"phase": "Failed", "reason": "Evicted", "message": "The node was low on memory"}, {}, "Evicted",
         "The node was low on memory"),
        ({"phase": "Failed", "containerStatuses": [container({"terminated": {"exitCode": 3}})]}, {}, "Failed",
         "exit code 3"),
        ({"phase": "Pending", "initContainerStatuses": [container({"waiting": {"reason": "CrashLoopBackOff"}})],
          "containerStatuses": [container({"waiting": {"reason": "PodInitializing"}})]}, {}, "CrashLoopBackOff", ""),
    ],
    ids=["unschedulable", "creating", "new", "unready", "leaving", "evicted", "exit code", "init container"],
)  # fmt: skip
def test_a_pod_says_why_it_waits(status: Manifest, metadata: Manifest, state: str, why: str) -> None:
    read = pods.read(pod("demo-feed-a", "feed", status, **metadata))
    assert (read.ready, read.state, read.why) == (False, state, why)


def test_a_message_of_any_length_becomes_one_bounded_line() -> None:
    waiting = {"waiting": {"reason": "RunContainerError", "message": "a\n" * 500}}
    read = pods.read(pod("demo-feed-a", "feed", {"phase": "Pending", "containerStatuses": [container(waiting)]}))
    assert len(read.why) == 200
    assert "\n" not in read.why


def test_a_condition_is_cut_on_the_screen_but_not_in_what_programs_read() -> None:
    long = "no metrics " * 50
    tree = one(custom("Platform", "demo", {}, {"conditions": conditions(Ready=(False, "X", long))}), [], [])
    assert tree.troubles[0].message == long
    assert "…" in printed(tree)
    assert len(printed(tree)) < 400


def test_a_spec_the_operator_has_not_seen_is_not_well() -> None:
    resource = custom("Platform", "demo", {}, {"ready": "11/11", "conditions": WELL}, generation=2)
    tree = one(resource, [], [])
    assert tree.stale
    assert not tree.well


def test_a_service_that_is_not_well_makes_its_platform_so() -> None:
    resource = custom("Platform", "demo", {}, {"ready": "11/11", "conditions": WELL})
    degraded = service(
        "feed", {"conditions": conditions(Ready=(True, "A", ""), Degraded=(True, "RolloutStalled", "x"))}
    )
    assert one(resource, [well_service("gateway")], []).well
    assert not one(resource, [well_service("gateway"), degraded], []).well


def test_platforms_of_one_name_in_two_namespaces_keep_their_own() -> None:
    here = custom("Platform", "demo", {}, {"conditions": WELL})
    there = custom("Platform", "demo", {}, {"conditions": WELL}, namespace="test")
    foreign = well_service("feed")
    foreign["metadata"]["namespace"] = "test"
    first, second = grow(Observed([there, here], [well_service("gateway"), foreign], [], []))
    assert [(first.namespace, [one.name for one in first.services])] == [("prod", ["gateway"])]
    assert [(second.namespace, [one.name for one in second.services])] == [("test", ["feed"])]


def test_markup_in_names_and_messages_is_not_obeyed() -> None:
    trouble = conditions(Ready=(False, "X", "[red]alarm[/red]"))
    text = printed(one(custom("Platform", "demo", {}, {"url": "http://[::1]:80", "conditions": trouble}), [], []))
    assert "[red]alarm[/red]" in text
    assert "http://[::1]:80" in text


def test_autoscaling_tells_who_scales_to_what_and_why_and_is_no_trouble_when_switched_off() -> None:
    off = conditions(Ready=(True, "Available", ""), AutoscalingActive=(False, "Off", "mode is Off"))
    blind = conditions(Ready=(True, "Available", ""), AutoscalingActive=(False, "MetricsMissing", "no metrics"))
    scaling = {"by": "Operator", "desired": 4, "why": "backlog asks for 4"}
    tree = one(
        custom("Platform", "demo", {}, {"conditions": WELL}),
        [
            service("feed", {"ready": "2/2", "conditions": off, "autoscaling": {"by": "Nobody"}}),
            service("feed-worker", {"ready": "1/1", "conditions": blind, "autoscaling": scaling}, min=1, max=9),
        ],
        [],
    )
    text = printed(tree)
    assert tree.services[0].troubles == ()
    assert "feed-worker  1/1  scales 1 to 9 by Operator, wants 4 (backlog asks for 4)" in text
    assert "AutoscalingActive MetricsMissing for 1h: no metrics" in text
