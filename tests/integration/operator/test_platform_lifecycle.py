"""A Platform's life, against a real API server and real controllers."""

from __future__ import annotations

import base64
import json
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from fanfold.contracts.components import COMPONENTS
from fanfold.contracts.snapshot import SNAPSHOT_KEY, Snapshot, decode

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180), pytest.mark.usefixtures("operator", "kubelet")]

Condition = Callable[..., dict[str, Any]]
CHILDREN = ("PlatformService", "HashRing", "StatefulSet", "Job", "Deployment", "Service", "ConfigMap", "NetworkPolicy")


@pytest.fixture
def ready(kube: Any, namespace: str, make_platform: Any, condition: Condition, eventually: Any) -> Callable[..., None]:
    def wait(**spec: Any) -> None:
        make_platform(**spec)
        try:
            eventually(lambda: condition("Ready").get("status") == "True", 60)
        except AssertionError as error:
            pytest.fail(f"not Ready: {kube.get('Platform', namespace, 'demo')['status']}; {error}")

    return wait


@pytest.fixture
def snapshot(kube: Any, namespace: str) -> Callable[[], Snapshot]:
    return lambda: decode(kube.get("ConfigMap", namespace, "demo-snapshot")["data"][SNAPSHOT_KEY])


def settle(api_calls: Callable[[], Counter[str]], seconds: float = 1.5) -> Counter[str]:
    """Wait until the operator has made no call for a while; its calls so far."""
    before, since = api_calls(), time.monotonic()
    deadline = since + 30
    while time.monotonic() - since < seconds:
        assert time.monotonic() < deadline, "the operator does not come to rest"
        time.sleep(0.1)
        now = api_calls()
        if now != before:
            before, since = now, time.monotonic()
    return before


def test_an_empty_spec_becomes_a_whole_platform(kube: Any, namespace: str, ready: Any) -> None:
    ready()
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
        assert (
            kube.get("HorizontalPodAutoscaler", namespace, name)["spec"]["scaleTargetRef"]["kind"] == "PlatformService"
        )
        assert kube.get("PodDisruptionBudget", namespace, name)
        assert (kube.get("Service", namespace, name) is not None) == component.serves


def test_a_settled_platform_is_left_alone(
    kube: Any, namespace: str, ready: Any, api_calls: Callable[[], Counter[str]]
) -> None:
    ready()
    before = settle(api_calls)
    versions = {
        one["metadata"]["name"]: one["metadata"]["resourceVersion"] for one in kube.list("Deployment", namespace)
    }
    kube.patch("Platform", namespace, "demo", {"metadata": {"annotations": {"note": "reconcile"}}})
    assert settle(api_calls) - before == {"GET": 1}, "it reads the generated Secret, the rest it was told by watches"
    before = settle(api_calls)
    for service in kube.list("PlatformService", namespace):
        name = service["metadata"]["name"]
        kube.patch("PlatformService", namespace, name, {"metadata": {"annotations": {"note": "reconcile"}}})
    assert set(settle(api_calls) - before) == {"GET"}
    after = {one["metadata"]["name"]: one["metadata"]["resourceVersion"] for one in kube.list("Deployment", namespace)}
    assert after == versions


@pytest.mark.parametrize("kind", ["Deployment", "Service", "NetworkPolicy", "PodDisruptionBudget", "ServiceAccount"])
def test_a_deleted_child_is_back_within_five_seconds(
    kube: Any, namespace: str, ready: Any, eventually: Any, kind: str
) -> None:
    ready()
    uid = kube.get(kind, namespace, "demo-feed")["metadata"]["uid"]
    kube.delete(kind, namespace, "demo-feed")

    def back() -> bool:
        found = kube.get(kind, namespace, "demo-feed")
        return found is not None and found["metadata"]["uid"] != uid

    eventually(back, 5)


def test_an_edited_child_is_put_right_within_five_seconds(
    kube: Any, namespace: str, ready: Any, eventually: Any
) -> None:
    ready()
    kube.patch("Service", namespace, "demo-feed", {"spec": {"selector": {"fanfold.dev/service": "post"}}})
    kube.patch("Deployment", namespace, "demo-feed", {"spec": {"replicas": 7}})

    def right() -> bool:
        selector = kube.get("Service", namespace, "demo-feed")["spec"]["selector"]["fanfold.dev/service"]
        return selector == "feed" and kube.get("Deployment", namespace, "demo-feed")["spec"]["replicas"] == 2

    eventually(right, 5)


def test_a_field_that_another_manager_applied_is_left_to_it(
    kube: Any, namespace: str, ready: Any, condition: Condition, eventually: Any, api_calls: Callable[[], Counter[str]]
) -> None:
    ready()
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
    settled = settle(api_calls)
    kube.patch("PlatformService", namespace, "demo-post", {"metadata": {"annotations": {"note": "again"}}})
    assert settle(api_calls) == settled, "a known conflict is not tried again"
    assert kube.get("Deployment", namespace, "demo-post")["spec"]["revisionHistoryLimit"] == 9
    theirs["spec"] = {}
    kube.apply(theirs, namespace, manager="gitops")
    eventually(lambda: condition("OwnershipConflict", "demo-post", "PlatformService").get("status") == "False")
    assert kube.get("Deployment", namespace, "demo-post")["spec"]["revisionHistoryLimit"] == 3


def test_credentials_are_made_once(kube: Any, namespace: str, ready: Any, api_calls: Any) -> None:
    ready()
    before = kube.get("Secret", namespace, "demo-credentials")["data"]
    kube.patch("Platform", namespace, "demo", {"spec": {"feed": {"length": 30}}})
    settle(api_calls)
    assert kube.get("Secret", namespace, "demo-credentials")["data"] == before


def test_a_key_that_is_missing_is_added_and_the_others_stay(
    kube: Any, namespace: str, ready: Any, eventually: Any
) -> None:
    ready()
    before = kube.get("Secret", namespace, "demo-credentials")["data"]
    kube.patch("Secret", namespace, "demo-credentials", {"data": {"cursor_key": None}})
    kube.patch("Platform", namespace, "demo", {"metadata": {"annotations": {"note": "reconcile"}}})
    eventually(lambda: "cursor_key" in kube.get("Secret", namespace, "demo-credentials")["data"])
    after = kube.get("Secret", namespace, "demo-credentials")["data"]
    assert {key: value for key, value in after.items() if key != "cursor_key"} == {
        key: value for key, value in before.items() if key != "cursor_key"
    }


def test_lost_credentials_are_not_made_anew_over_data_that_needs_the_old(
    kube: Any, namespace: str, ready: Any, condition: Condition, eventually: Any
) -> None:
    ready()
    kept = kube.get("Secret", namespace, "demo-credentials")
    kube.delete("Secret", namespace, "demo-credentials")
    kube.patch("Platform", namespace, "demo", {"metadata": {"annotations": {"note": "reconcile"}}})
    eventually(lambda: condition("Ready").get("reason") == "CredentialsLost")
    assert "data-demo-postgresql-0" in condition("Ready")["message"]
    assert condition("Degraded")["status"] == "True"
    assert kube.get("Secret", namespace, "demo-credentials") is None
    assert kube.get("StatefulSet", namespace, "demo-postgresql"), "what runs goes on running"
    restored = {**kept, "metadata": {"name": "demo-credentials"}}
    kube.call("POST", kube.path("Secret", namespace), restored)
    kube.patch("Platform", namespace, "demo", {"metadata": {"annotations": {"note": "restored"}}})
    eventually(lambda: condition("Ready").get("status") == "True")


def test_a_missing_secret_is_named_and_its_appearance_noticed(
    kube: Any, namespace: str, make_platform: Any, condition: Condition, eventually: Any
) -> None:
    make_platform(database={"external": {"secretRef": {"name": "pg", "key": "url"}}})
    eventually(lambda: condition("Ready").get("reason") == "SecretMissing")
    assert "Secret pg does not exist" in condition("Ready")["message"]
    assert condition("MigrationsComplete")["message"] == "waits for DatabaseReady"
    events = [one for one in kube.list("Event", namespace) if one["reason"] == "SecretMissing"]
    assert any("pg" in one["message"] and one["type"] == "Warning" for one in events)
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "pg"}, "stringData": {"uri": "x"}}
    kube.apply(secret, namespace)
    eventually(lambda: condition("Ready").get("reason") == "SecretKeyMissing", 30)
    assert "has no key url (it has: uri)" in condition("Ready")["message"]
    kube.apply({**secret, "stringData": {"url": "postgresql+asyncpg://u:p@pg/db"}}, namespace)
    eventually(lambda: condition("Ready").get("status") == "True", 60)
    assert kube.get("StatefulSet", namespace, "demo-postgresql") is None
    volumes = kube.get("Deployment", namespace, "demo-follow")["spec"]["template"]["spec"]["volumes"]
    sources = next(one["projected"]["sources"] for one in volumes if one["name"] == "secrets")
    files = {item["path"]: (one["secret"]["name"], item["key"]) for one in sources for item in one["secret"]["items"]}
    assert files["database_url"] == ("pg", "url")
    assert files["valkey_url"] == ("demo-credentials", "valkey_url")


def test_services_wait_for_migrations_and_migrations_for_stores(
    kube: Any, kubelet: Any, namespace: str, make_platform: Any, condition: Condition, eventually: Any
) -> None:
    for component in ("postgresql", "migrations"):
        kubelet.hold(namespace, component)
    make_platform()
    eventually(lambda: condition("CacheReady").get("status") == "True")
    assert condition("DatabaseReady")["status"] == "False"
    assert kube.list("Job", namespace) == []
    kubelet.release(namespace, "postgresql")
    eventually(lambda: condition("MigrationsComplete").get("reason") == "Migrating")
    assert kube.list("PlatformService", namespace) == []
    kubelet.release(namespace, "migrations")
    eventually(lambda: condition("Ready").get("status") == "True", 60)


def test_a_new_version_migrates_before_services_roll(
    kube: Any, kubelet: Any, namespace: str, ready: Any, condition: Condition, eventually: Any
) -> None:
    ready()
    kubelet.hold(namespace, "migrations")
    kube.patch(
        "Platform", namespace, "demo", {"spec": {"version": "0.2.0", "services": {"post": {"replicas": {"min": 3}}}}}
    )
    eventually(lambda: condition("MigrationsComplete").get("reason") == "Migrating")
    eventually(lambda: kube.get("Deployment", namespace, "demo-post")["spec"]["replicas"] == 3)
    image = kube.get("Deployment", namespace, "demo-post")["spec"]["template"]["spec"]["containers"][0]["image"]
    assert image == "registry.test/fanfold/fanfold:0.1.0"
    assert kube.get("Platform", namespace, "demo")["status"]["version"] == "0.1.0"
    kubelet.release(namespace, "migrations")
    eventually(lambda: kube.get("Platform", namespace, "demo")["status"].get("version") == "0.2.0", 60)
    eventually(lambda: len(kube.list("Job", namespace)) == 1)


def test_a_failed_migration_is_told(
    kube: Any, kubelet: Any, namespace: str, make_platform: Any, condition: Condition, eventually: Any
) -> None:
    kubelet.hold(namespace, "migrations")
    make_platform()
    job = eventually(lambda: kube.list("Job", namespace))[0]["metadata"]["name"]
    kube.patch("Job", namespace, job, {"spec": {"activeDeadlineSeconds": 1}})
    eventually(lambda: condition("MigrationsComplete").get("reason") == "MigrationFailed", 30)
    assert f"kubectl logs job/{job}" in condition("MigrationsComplete")["message"]
    assert condition("Degraded")["status"] == "True"
    kubelet.release(namespace, "migrations")


def test_kubectl_scale_reaches_the_deployment(kube: Any, namespace: str, ready: Any, eventually: Any) -> None:
    ready()
    path = kube.path("PlatformService", namespace, "demo-feed") + "/scale"
    scale = kube.call("GET", path)
    assert scale["status"]["selector"] == "fanfold.dev/platform=demo,fanfold.dev/service=feed"
    merge = "application/merge-patch+json"
    kube.call("PATCH", path, {"spec": {"replicas": 3}}, merge)
    eventually(lambda: kube.get("Deployment", namespace, "demo-feed")["spec"]["replicas"] == 3)
    eventually(lambda: kube.call("GET", path)["status"]["replicas"] == 3)
    kube.call("PATCH", path, {"spec": {"replicas": 0}}, merge)
    eventually(lambda: kube.get("Deployment", namespace, "demo-feed")["spec"]["replicas"] == 0)


def test_the_ring_follows_replicas_and_a_rollout_moves_no_slot(
    kube: Any, namespace: str, ready: Any, eventually: Any, snapshot: Callable[[], Snapshot]
) -> None:
    ready()
    before = snapshot()
    assert [slot.slot for slot in before.services["feed"]] == ["feed-0", "feed-1"]
    addresses = {slot.address for slot in before.services["feed"]}
    restart = {"metadata": {"annotations": {"kubectl.kubernetes.io/restartedAt": "now"}}}
    kube.patch("Deployment", namespace, "demo-feed", {"spec": {"template": restart}})
    eventually(lambda: not addresses & {slot.address for slot in snapshot().services["feed"]}, 60)
    after = snapshot()
    assert [slot.slot for slot in after.services["feed"]] == ["feed-0", "feed-1"]
    assert after.epoch > before.epoch
    assert [slot for name in before.services for slot in before.services[name] if name != "feed"] == [
        slot for name in after.services for slot in after.services[name] if name != "feed"
    ]
    ring = kube.get("HashRing", namespace, "demo")["status"]
    assert ring["epoch"] == after.epoch
    eventually(lambda: kube.get("HashRing", namespace, "demo")["status"]["acked"] == "2/2")


def test_a_deleted_or_damaged_snapshot_comes_back_with_a_higher_epoch_or_the_same(
    kube: Any, namespace: str, ready: Any, eventually: Any, snapshot: Callable[[], Snapshot]
) -> None:
    ready()
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


def test_a_paused_platform_is_not_repaired_until_resumed(
    kube: Any, namespace: str, ready: Any, condition: Condition, eventually: Any, api_calls: Any
) -> None:
    ready()
    kube.patch("Platform", namespace, "demo", {"metadata": {"annotations": {"fanfold.dev/paused": "true"}}})
    eventually(lambda: condition("Paused").get("status") == "True")
    kube.delete("Service", namespace, "demo-post")
    settle(api_calls)
    assert kube.get("Service", namespace, "demo-post") is None
    kube.patch("Platform", namespace, "demo", {"metadata": {"annotations": {"fanfold.dev/paused": None}}})
    eventually(lambda: kube.get("Service", namespace, "demo-post"))


def test_deleting_a_platform_leaves_its_data_and_credentials_only(
    kube: Any, namespace: str, ready: Any, eventually: Any
) -> None:
    ready()
    kube.delete("Platform", namespace, "demo")
    eventually(lambda: not any(_left(kube, namespace)), 60)
    assert {one["metadata"]["name"] for one in kube.list("PersistentVolumeClaim", namespace)} == {
        f"data-demo-{store}-0" for store in ("postgresql", "valkey", "objectstore")
    }
    assert kube.get("Secret", namespace, "demo-credentials")


def test_a_platform_made_again_finds_its_data_and_credentials(
    kube: Any, namespace: str, ready: Any, eventually: Any
) -> None:
    ready()
    before = kube.get("Secret", namespace, "demo-credentials")["data"]
    kube.delete("Platform", namespace, "demo")
    eventually(lambda: not any(_left(kube, namespace)), 60)
    ready()
    assert kube.get("Secret", namespace, "demo-credentials")["data"] == before


def test_deletion_policy_delete_leaves_nothing(kube: Any, namespace: str, ready: Any, eventually: Any) -> None:
    ready(deletionPolicy="Delete")
    kube.delete("Platform", namespace, "demo")
    kinds = (*CHILDREN, "PersistentVolumeClaim")
    eventually(lambda: not any(_left(kube, namespace, kinds)), 60)
    eventually(lambda: kube.get("Secret", namespace, "demo-credentials") is None)


def test_two_platforms_of_one_namespace_do_not_touch_each_other(
    kube: Any, namespace: str, make_platform: Any, ready: Any, condition: Condition, eventually: Any
) -> None:
    ready()
    make_platform("other")
    eventually(lambda: condition("Ready", "other").get("status") == "True", 60)
    mine = decode(kube.get("ConfigMap", namespace, "demo-snapshot")["data"][SNAPSHOT_KEY])
    theirs = decode(kube.get("ConfigMap", namespace, "other-snapshot")["data"][SNAPSHOT_KEY])
    addresses = [{slot.address for slots in one.services.values() for slot in slots} for one in (mine, theirs)]
    assert not addresses[0] & addresses[1]
    kube.delete("Platform", namespace, "other")
    eventually(lambda: kube.get("Deployment", namespace, "other-feed") is None, 60)
    assert condition("Ready")["status"] == "True"


def test_each_component_gets_its_own_secrets_and_no_other(kube: Any, namespace: str, ready: Any) -> None:
    ready()
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


def _left(kube: Any, namespace: str, kinds: tuple[str, ...] = CHILDREN) -> list[str]:
    """What is there of these kinds, but for what every namespace has."""
    return [
        f"{kind}/{one['metadata']['name']}"
        for kind in kinds
        for one in kube.list(kind, namespace)
        if one["metadata"]["name"] != "kube-root-ca.crt"
    ]
