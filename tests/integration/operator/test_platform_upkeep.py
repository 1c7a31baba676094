"""A whole Platform, left alone and meddled with, against a real API server and real controllers."""

from __future__ import annotations

import base64
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from statistics import median
from typing import Any

import pytest

from fanfold.contracts.components import COMPONENTS
from fanfold.contracts.snapshot import SNAPSHOT_KEY, Snapshot, decode
from tests.integration.operator.kube import made_namespace
from tests.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400), pytest.mark.usefixtures("operator", "kubelet", "whole")]

Settle = Callable[[], Counter[str]]
Condition = Callable[..., dict[str, Any]]
Nudge = Callable[[str, str], None]


@pytest.fixture(scope="module")
def namespace(kube: Any) -> Iterator[str]:
    """One for all tests here."""
    with made_namespace(kube) as name:
        yield name


@pytest.fixture(scope="module")
def platform(kube: Any, namespace: str, operator: Any, kubelet: Any) -> None:
    body = {"apiVersion": "fanfold.dev/v1alpha1", "kind": "Platform", "metadata": {"name": "demo"}, "spec": {}}
    kube.apply(body, namespace)


@pytest.fixture
def whole(platform: None, condition: Condition, informed: Any) -> None:
    """Each test begins with a platform that is Ready, and whose autoscalers have told what they know."""
    until(lambda: condition("Ready").get("status") == "True", seconds=180)
    informed()


@pytest.fixture
def snapshot(kube: Any, namespace: str) -> Callable[[], Snapshot]:
    return lambda: decode(kube.get("ConfigMap", namespace, "demo-snapshot")["data"][SNAPSHOT_KEY])


def test_an_empty_spec_becomes_a_whole_platform(kube: Any, namespace: str) -> None:
    platform = kube.get("Platform", namespace, "demo")
    status = platform["status"]
    assert status["ready"] == f"{len(COMPONENTS)}/{len(COMPONENTS)}"
    assert status["version"] == "0.1.0"
    assert status["observedGeneration"] == platform["metadata"]["generation"]
    assert status["url"].startswith("http://192.0.2.7:3")
    assert status["ring"]["epoch"] >= 1
    assert {one["metadata"]["name"] for one in kube.list("StatefulSet", namespace)} == {
        "demo-postgresql",
        "demo-valkey",
        "demo-objectstore",
    }
    for component in COMPONENTS:
        name = f"demo-{component.name}"
        assert kube.get("Deployment", namespace, name)["status"]["availableReplicas"] == component.min_replicas
        autoscaler = kube.get("HorizontalPodAutoscaler", namespace, name)
        assert (autoscaler is not None) == component.serves, "workers are scaled by what waits for them"
        assert not autoscaler or autoscaler["spec"]["scaleTargetRef"]["kind"] == "PlatformService"
        assert kube.get("PodDisruptionBudget", namespace, name)
        headless = kube.get("Service", namespace, name)["spec"]["clusterIP"] == "None"
        assert headless != component.serves, "that of workers is for those who ask each pod"


def test_a_settled_platform_is_left_alone(nudge: Nudge, kube: Any, namespace: str, costs: Any) -> None:
    def generations() -> dict[str, int]:
        return {one["metadata"]["name"]: one["metadata"]["generation"] for one in kube.list("Deployment", namespace)}

    def nudge_all() -> None:
        for service in kube.list("PlatformService", namespace):
            nudge("PlatformService", service["metadata"]["name"])

    before = generations()
    costs(lambda: nudge("Platform", "demo"), lambda calls: calls == {"GET": 1})  # of the generated Secret
    costs(nudge_all, lambda calls: set(calls) == {"GET"})
    assert generations() == before


@pytest.fixture
def within_five_seconds() -> Callable[[Callable[[], Callable[[], bool]]], None]:
    """Break something three times, and see that it is repaired in time: but for once, for a busy machine may stall."""

    def seconds(break_it: Callable[[], Callable[[], bool]]) -> float:
        repaired, broken = break_it(), time.monotonic()
        until(repaired)
        return time.monotonic() - broken

    def check(break_it: Callable[[], Callable[[], bool]]) -> None:
        took = [seconds(break_it) for _ in range(3)]
        assert median(took) < 5, took

    return check


@pytest.mark.parametrize("kind", ["Deployment", "Service", "NetworkPolicy", "PodDisruptionBudget", "ServiceAccount"])
def test_a_deleted_child_is_back_within_five_seconds(
    kube: Any, namespace: str, within_five_seconds: Any, kind: str
) -> None:
    def delete() -> Callable[[], bool]:
        uid = kube.get(kind, namespace, "demo-feed")["metadata"]["uid"]
        kube.delete(kind, namespace, "demo-feed")

        def back() -> bool:
            found = kube.get(kind, namespace, "demo-feed")
            return found is not None and found["metadata"]["uid"] != uid

        return back

    within_five_seconds(delete)


def test_an_edited_child_is_put_right_within_five_seconds(kube: Any, namespace: str, within_five_seconds: Any) -> None:
    def right() -> bool:
        selector = kube.get("Service", namespace, "demo-feed")["spec"]["selector"]["fanfold.dev/service"]
        return bool(selector == "feed" and kube.get("Deployment", namespace, "demo-feed")["spec"]["replicas"] == 2)

    def edit() -> Callable[[], bool]:
        kube.patch("Service", namespace, "demo-feed", {"spec": {"selector": {"fanfold.dev/service": "post"}}})
        kube.patch("Deployment", namespace, "demo-feed", {"spec": {"replicas": 7}})
        return right

    within_five_seconds(edit)


def test_a_field_that_another_manager_applied_is_left_to_it(
    nudge: Nudge, kube: Any, namespace: str, condition: Condition, costs: Any
) -> None:
    theirs = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "demo-post"},
        "spec": {"revisionHistoryLimit": 9},
    }
    kube.apply(theirs, namespace, manager="gitops", force="true")
    found = until(
        lambda: (one := condition("OwnershipConflict", "demo-post", "PlatformService")).get("status") == "True" and one
    )
    assert "gitops" in found["message"]
    assert ".spec.revisionHistoryLimit" in found["message"]
    costs(lambda: nudge("PlatformService", "demo-post"), lambda calls: set(calls) <= {"GET"})  # it is known
    assert kube.get("Deployment", namespace, "demo-post")["spec"]["revisionHistoryLimit"] == 9
    theirs["spec"] = {}
    kube.apply(theirs, namespace, manager="gitops")
    until(lambda: condition("OwnershipConflict", "demo-post", "PlatformService").get("status") == "False")
    assert kube.get("Deployment", namespace, "demo-post")["spec"]["revisionHistoryLimit"] == 3


def test_credentials_are_made_once(kube: Any, namespace: str, settle: Settle) -> None:
    before = kube.get("Secret", namespace, "demo-credentials")["data"]
    kube.patch("Platform", namespace, "demo", {"spec": {"feed": {"length": 30}}})
    settle()
    assert kube.get("Secret", namespace, "demo-credentials")["data"] == before


def test_a_key_that_is_missing_is_added_and_the_others_stay(nudge: Nudge, kube: Any, namespace: str) -> None:
    before = kube.get("Secret", namespace, "demo-credentials")["data"]
    kube.patch("Secret", namespace, "demo-credentials", {"data": {"cursor_key": None}})
    nudge("Platform", "demo")
    until(lambda: "cursor_key" in kube.get("Secret", namespace, "demo-credentials")["data"])
    after = kube.get("Secret", namespace, "demo-credentials")["data"]
    assert {key: value for key, value in after.items() if key != "cursor_key"} == {
        key: value for key, value in before.items() if key != "cursor_key"
    }


def test_kubectl_scale_reaches_the_deployment(kube: Any, namespace: str, snapshot: Callable[[], Snapshot]) -> None:
    path = kube.path("PlatformService", namespace, "demo-feed") + "/scale"
    scale = kube.call("GET", path)
    assert scale["status"]["selector"] == "fanfold.dev/platform=demo,fanfold.dev/service=feed"
    merge = "application/merge-patch+json"
    kube.call("PATCH", path, {"spec": {"replicas": 3}}, merge)
    until(lambda: kube.get("Deployment", namespace, "demo-feed")["spec"]["replicas"] == 3)
    until(lambda: kube.call("GET", path)["status"]["replicas"] == 3)
    kube.call("PATCH", path, {"spec": {"replicas": 0}}, merge)
    until(lambda: kube.get("Deployment", namespace, "demo-feed")["spec"]["replicas"] == 0)
    until(lambda: not snapshot().services["feed"])
    kube.call("PATCH", path, {"spec": {"replicas": 2}}, merge)
    until(lambda: len(snapshot().services["feed"]) == 2)


def test_the_ring_follows_replicas_and_a_rollout_moves_no_slot(
    kube: Any, namespace: str, snapshot: Callable[[], Snapshot]
) -> None:
    until(lambda: [slot.state for slot in snapshot().services["feed"]] == ["active", "active"])
    before = snapshot()
    addresses = {slot.address for slot in before.services["feed"]}
    seen = set()

    def replaced() -> bool:
        now = snapshot().services["feed"]
        seen.add(tuple(slot.slot for slot in now if slot.state == "active"))
        return not addresses & {slot.address for slot in now}

    restart = {"metadata": {"annotations": {"kubectl.kubernetes.io/restartedAt": "now"}}}
    kube.patch("Deployment", namespace, "demo-feed", {"spec": {"template": restart}})
    until(replaced, seconds=60)
    assert seen == {("feed-0", "feed-1")}, "at no moment did a key move"
    after = snapshot()
    assert after.epoch > before.epoch
    assert [slot for name in before.services for slot in before.services[name] if name != "feed"] == [
        slot for name in after.services for slot in after.services[name] if name != "feed"
    ]
    until(lambda: kube.get("HashRing", namespace, "demo")["status"]["epoch"] == snapshot().epoch)
    until(lambda: kube.get("HashRing", namespace, "demo")["status"]["acked"] == "2/2")


def test_a_deleted_or_damaged_snapshot_comes_back_with_a_higher_epoch_or_the_same(
    kube: Any, namespace: str, snapshot: Callable[[], Snapshot]
) -> None:
    before = snapshot()
    kube.delete("ConfigMap", namespace, "demo-snapshot")
    until(lambda: kube.get("ConfigMap", namespace, "demo-snapshot"))
    assert snapshot().services == before.services
    assert snapshot().epoch >= before.epoch
    kube.patch("ConfigMap", namespace, "demo-snapshot", {"data": {SNAPSHOT_KEY: "{}"}})
    found = until(
        lambda: (one := kube.get("ConfigMap", namespace, "demo-snapshot"))["data"][SNAPSHOT_KEY] != "{}" and one
    )
    assert decode(found["data"][SNAPSHOT_KEY]).epoch > before.epoch


def test_a_ring_deleted_with_its_snapshot_comes_back_with_its_slots_and_no_lower_epoch(
    kube: Any, namespace: str, snapshot: Callable[[], Snapshot]
) -> None:
    """Gateways refuse an epoch older than theirs: a ring that began anew at 1 would reach none of them."""
    before, path = snapshot(), kube.path("HashRing", namespace, "demo")
    uid = kube.get("HashRing", namespace, "demo")["metadata"]["uid"]
    kube.call("DELETE", path, {"propagationPolicy": "Foreground"})  # the snapshot first, then the ring

    def back() -> bool:
        ring = kube.get("HashRing", namespace, "demo")
        return bool(ring and ring["metadata"]["uid"] != uid and kube.get("ConfigMap", namespace, "demo-snapshot"))

    until(back)
    assert snapshot().services == before.services
    assert snapshot().epoch >= before.epoch
    until(lambda: kube.get("Platform", namespace, "demo")["status"]["ring"]["acked"] == "2/2")


def test_a_paused_platform_is_not_repaired_until_resumed(
    kube: Any, namespace: str, condition: Condition, settle: Settle
) -> None:
    kube.patch("Platform", namespace, "demo", {"metadata": {"annotations": {"fanfold.dev/paused": "true"}}})
    until(lambda: condition("Paused").get("status") == "True")
    kube.delete("Service", namespace, "demo-post")
    settle()
    assert kube.get("Service", namespace, "demo-post") is None
    kube.patch("Platform", namespace, "demo", {"metadata": {"annotations": {"fanfold.dev/paused": None}}})
    until(lambda: kube.get("Service", namespace, "demo-post"))
    until(lambda: condition("Paused").get("status") == "False")


def test_each_component_gets_its_own_secrets_and_no_other(kube: Any, namespace: str) -> None:
    readers: dict[str, set[str]] = {}
    for deployment in kube.list("Deployment", namespace):
        pod = deployment["spec"]["template"]["spec"]
        for source in next(one["projected"]["sources"] for one in pod["volumes"] if one["name"] == "secrets"):
            for item in source["secret"]["items"]:
                readers.setdefault(item["path"], set()).add(deployment["metadata"]["name"])
        assert "demo-credentials" not in json.dumps(pod["containers"])
    assert readers["token_private_key"] == {"demo-profile"}
    assert readers["s3_secret_key"] == {"demo-image", "demo-image-worker"}
    assert "demo-gateway" not in readers["database_url"]
    secret = kube.get("Secret", namespace, "demo-credentials")["data"]
    assert set(readers) <= set(secret)
    assert "PRIVATE KEY" in base64.b64decode(secret["token_private_key"]).decode()


def test_a_prometheus_comes_and_goes_with_the_spec_and_nobody_waits_for_it(
    kube: Any, namespace: str, ready: Any, condition: Any
) -> None:
    def gone(kind: str) -> bool:
        return kube.get(kind, namespace, "demo-prometheus") is None

    ready(monitoring={"prometheus": {"embedded": {}}})
    until(lambda: condition("PrometheusReady").get("status") == "True", seconds=60)
    settings = kube.get("ConfigMap", namespace, "demo-prometheus")["data"]["prometheus.yaml"]
    assert f"http://operator.test.svc:9000/targets/{namespace}/demo" in settings
    kube.delete("Deployment", namespace, "demo-prometheus")
    until(lambda: kube.get("Deployment", namespace, "demo-prometheus"))
    kube.patch("Platform", namespace, "demo", {"spec": {"monitoring": None}})
    for kind in ("Deployment", "Service", "ConfigMap", "NetworkPolicy"):
        until(partial(gone, kind))
    until(lambda: condition("PrometheusReady") == {})
    assert condition("Ready")["status"] == "True"
