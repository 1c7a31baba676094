"""A whole Platform, left alone and meddled with, against a real API server and real controllers."""

from __future__ import annotations

import base64
import json
import secrets
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fanfold.contracts.components import COMPONENTS
from fanfold.contracts.snapshot import SNAPSHOT_KEY, Snapshot, decode

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400), pytest.mark.usefixtures("operator", "kubelet", "whole")]

Settle = Callable[[], Counter[str]]
Condition = Callable[..., dict[str, Any]]
Nudge = Callable[[str, str], None]


@pytest.fixture(scope="module")
def namespace(kube: Any) -> Iterator[str]:
    """One for all tests here."""
    name = f"test-{secrets.token_hex(4)}"
    kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    yield name
    kube.delete("Namespace", "", name)


@pytest.fixture(scope="module")
def platform(kube: Any, namespace: str, operator: Any, kubelet: Any) -> None:
    body = {"apiVersion": "fanfold.dev/v1alpha1", "kind": "Platform", "metadata": {"name": "demo"}, "spec": {}}
    kube.apply(body, namespace)


@pytest.fixture
def whole(platform: None, condition: Condition, eventually: Any) -> None:
    """Each test begins with a platform that is Ready, and whose autoscalers have told what they know."""

    def told() -> bool:
        names = [f"demo-{component.name}" for component in COMPONENTS]
        reasons = [condition("AutoscalingActive", name, "PlatformService").get("reason") for name in names]
        return not {None, "Waiting"} & set(reasons)

    eventually(lambda: condition("Ready").get("status") == "True", 180)
    eventually(told, 90)


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


def test_a_settled_platform_is_left_alone(nudge: Nudge, kube: Any, namespace: str, settle: Settle) -> None:
    before = settle()
    versions = {
        one["metadata"]["name"]: one["metadata"]["resourceVersion"] for one in kube.list("Deployment", namespace)
    }
    nudge("Platform", "demo")
    assert settle() - before == {"GET": 1}, "it reads the generated Secret, the rest it was told by watches"
    before = settle()
    for service in kube.list("PlatformService", namespace):
        name = service["metadata"]["name"]
        nudge("PlatformService", name)
    assert set(settle() - before) == {"GET"}
    after = {one["metadata"]["name"]: one["metadata"]["resourceVersion"] for one in kube.list("Deployment", namespace)}
    assert after == versions


@pytest.mark.parametrize("kind", ["Deployment", "Service", "NetworkPolicy", "PodDisruptionBudget", "ServiceAccount"])
def test_a_deleted_child_is_back_within_five_seconds(kube: Any, namespace: str, eventually: Any, kind: str) -> None:
    uid = kube.get(kind, namespace, "demo-feed")["metadata"]["uid"]
    kube.delete(kind, namespace, "demo-feed")

    def back() -> bool:
        found = kube.get(kind, namespace, "demo-feed")
        return found is not None and found["metadata"]["uid"] != uid

    eventually(back, 5)


def test_an_edited_child_is_put_right_within_five_seconds(kube: Any, namespace: str, eventually: Any) -> None:
    kube.patch("Service", namespace, "demo-feed", {"spec": {"selector": {"fanfold.dev/service": "post"}}})
    kube.patch("Deployment", namespace, "demo-feed", {"spec": {"replicas": 7}})

    def right() -> bool:
        selector = kube.get("Service", namespace, "demo-feed")["spec"]["selector"]["fanfold.dev/service"]
        return bool(selector == "feed" and kube.get("Deployment", namespace, "demo-feed")["spec"]["replicas"] == 2)

    eventually(right, 5)


def test_a_field_that_another_manager_applied_is_left_to_it(
    nudge: Nudge, kube: Any, namespace: str, condition: Condition, eventually: Any, settle: Settle
) -> None:
    theirs = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "demo-post"},
        "spec": {"revisionHistoryLimit": 9},
    }
    kube.apply(theirs, namespace, manager="gitops", force="true")
    found = eventually(
        lambda: (one := condition("OwnershipConflict", "demo-post", "PlatformService")).get("status") == "True" and one
    )
    assert "gitops" in found["message"]
    assert ".spec.revisionHistoryLimit" in found["message"]
    before = settle()
    nudge("PlatformService", "demo-post")
    assert set(settle() - before) <= {"GET"}, "a known conflict is not tried again"
    assert kube.get("Deployment", namespace, "demo-post")["spec"]["revisionHistoryLimit"] == 9
    theirs["spec"] = {}
    kube.apply(theirs, namespace, manager="gitops")
    eventually(lambda: condition("OwnershipConflict", "demo-post", "PlatformService").get("status") == "False")
    assert kube.get("Deployment", namespace, "demo-post")["spec"]["revisionHistoryLimit"] == 3


def test_credentials_are_made_once(kube: Any, namespace: str, settle: Settle) -> None:
    before = kube.get("Secret", namespace, "demo-credentials")["data"]
    kube.patch("Platform", namespace, "demo", {"spec": {"feed": {"length": 30}}})
    settle()
    assert kube.get("Secret", namespace, "demo-credentials")["data"] == before


def test_a_key_that_is_missing_is_added_and_the_others_stay(
    nudge: Nudge, kube: Any, namespace: str, eventually: Any
) -> None:
    before = kube.get("Secret", namespace, "demo-credentials")["data"]
    kube.patch("Secret", namespace, "demo-credentials", {"data": {"cursor_key": None}})
    nudge("Platform", "demo")
    eventually(lambda: "cursor_key" in kube.get("Secret", namespace, "demo-credentials")["data"])
    after = kube.get("Secret", namespace, "demo-credentials")["data"]
    assert {key: value for key, value in after.items() if key != "cursor_key"} == {
        key: value for key, value in before.items() if key != "cursor_key"
    }


def test_kubectl_scale_reaches_the_deployment(
    kube: Any, namespace: str, eventually: Any, snapshot: Callable[[], Snapshot]
) -> None:
    path = kube.path("PlatformService", namespace, "demo-feed") + "/scale"
    scale = kube.call("GET", path)
    assert scale["status"]["selector"] == "fanfold.dev/platform=demo,fanfold.dev/service=feed"
    merge = "application/merge-patch+json"
    kube.call("PATCH", path, {"spec": {"replicas": 3}}, merge)
    eventually(lambda: kube.get("Deployment", namespace, "demo-feed")["spec"]["replicas"] == 3)
    eventually(lambda: kube.call("GET", path)["status"]["replicas"] == 3)
    kube.call("PATCH", path, {"spec": {"replicas": 0}}, merge)
    eventually(lambda: kube.get("Deployment", namespace, "demo-feed")["spec"]["replicas"] == 0)
    eventually(lambda: not snapshot().services["feed"])
    kube.call("PATCH", path, {"spec": {"replicas": 2}}, merge)
    eventually(lambda: len(snapshot().services["feed"]) == 2)


def test_the_ring_follows_replicas_and_a_rollout_moves_no_slot(
    kube: Any, namespace: str, eventually: Any, snapshot: Callable[[], Snapshot]
) -> None:
    eventually(lambda: [slot.state for slot in snapshot().services["feed"]] == ["active", "active"])
    before = snapshot()
    addresses = {slot.address for slot in before.services["feed"]}
    seen = set()

    def replaced() -> bool:
        now = snapshot().services["feed"]
        seen.add(tuple(slot.slot for slot in now if slot.state == "active"))
        return not addresses & {slot.address for slot in now}

    restart = {"metadata": {"annotations": {"kubectl.kubernetes.io/restartedAt": "now"}}}
    kube.patch("Deployment", namespace, "demo-feed", {"spec": {"template": restart}})
    eventually(replaced, 60)
    assert seen == {("feed-0", "feed-1")}, "at no moment did a key move"
    after = snapshot()
    assert after.epoch > before.epoch
    assert [slot for name in before.services for slot in before.services[name] if name != "feed"] == [
        slot for name in after.services for slot in after.services[name] if name != "feed"
    ]
    eventually(lambda: kube.get("HashRing", namespace, "demo")["status"]["epoch"] == snapshot().epoch)
    eventually(lambda: kube.get("HashRing", namespace, "demo")["status"]["acked"] == "2/2")


def test_a_deleted_or_damaged_snapshot_comes_back_with_a_higher_epoch_or_the_same(
    kube: Any, namespace: str, eventually: Any, snapshot: Callable[[], Snapshot]
) -> None:
    before = snapshot()
    kube.delete("ConfigMap", namespace, "demo-snapshot")
    eventually(lambda: kube.get("ConfigMap", namespace, "demo-snapshot"), 5)
    assert snapshot().services == before.services
    assert snapshot().epoch >= before.epoch
    kube.patch("ConfigMap", namespace, "demo-snapshot", {"data": {SNAPSHOT_KEY: "{}"}})
    found = eventually(
        lambda: (one := kube.get("ConfigMap", namespace, "demo-snapshot"))["data"][SNAPSHOT_KEY] != "{}" and one
    )
    assert decode(found["data"][SNAPSHOT_KEY]).epoch > before.epoch


def test_a_ring_deleted_with_its_snapshot_comes_back_with_its_slots_and_no_lower_epoch(
    kube: Any, namespace: str, eventually: Any, snapshot: Callable[[], Snapshot]
) -> None:
    """Gateways refuse an epoch older than theirs: a ring that began anew at 1 would reach none of them."""
    before, path = snapshot(), kube.path("HashRing", namespace, "demo")
    uid = kube.get("HashRing", namespace, "demo")["metadata"]["uid"]
    kube.call("DELETE", path, {"propagationPolicy": "Foreground"})  # the snapshot first, then the ring

    def back() -> bool:
        ring = kube.get("HashRing", namespace, "demo")
        return bool(ring and ring["metadata"]["uid"] != uid and kube.get("ConfigMap", namespace, "demo-snapshot"))

    eventually(back, 30)
    assert snapshot().services == before.services
    assert snapshot().epoch >= before.epoch
    eventually(lambda: kube.get("Platform", namespace, "demo")["status"]["ring"]["acked"] == "2/2")


def test_a_paused_platform_is_not_repaired_until_resumed(
    kube: Any, namespace: str, condition: Condition, eventually: Any, settle: Settle
) -> None:
    kube.patch("Platform", namespace, "demo", {"metadata": {"annotations": {"fanfold.dev/paused": "true"}}})
    eventually(lambda: condition("Paused").get("status") == "True")
    kube.delete("Service", namespace, "demo-post")
    settle()
    assert kube.get("Service", namespace, "demo-post") is None
    kube.patch("Platform", namespace, "demo", {"metadata": {"annotations": {"fanfold.dev/paused": None}}})
    eventually(lambda: kube.get("Service", namespace, "demo-post"))


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
    kube: Any, namespace: str, ready: Any, condition: Any, eventually: Any
) -> None:
    ready(monitoring={"prometheus": {"embedded": {}}})
    eventually(lambda: condition("PrometheusReady").get("status") == "True", 60)
    settings = kube.get("ConfigMap", namespace, "demo-prometheus")["data"]["prometheus.yaml"]
    assert f"http://operator.test.svc:9000/targets/{namespace}/demo" in settings
    kube.delete("Deployment", namespace, "demo-prometheus")
    eventually(lambda: kube.get("Deployment", namespace, "demo-prometheus"), 30)
    kube.patch("Platform", namespace, "demo", {"spec": {"monitoring": None}})
    for kind in ("Deployment", "Service", "ConfigMap", "NetworkPolicy"):
        eventually(lambda kind=kind: kube.get(kind, namespace, "demo-prometheus") is None, 30)
    eventually(lambda: condition("PrometheusReady") == {})
    assert condition("Ready")["status"] == "True"
