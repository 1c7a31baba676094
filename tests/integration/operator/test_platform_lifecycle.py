"""A Platform's life from its making to its deletion, against a real API server and real controllers."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from fanfold.contracts.snapshot import SNAPSHOT_KEY, decode
from fanfold_operator.planning import platform
from tests.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400), pytest.mark.usefixtures("operator", "kubelet")]

Condition = Callable[..., dict[str, Any]]
Nudge = Callable[[str, str], None]
READY_SECONDS = 180  # some seconds on a quiet machine
CHILDREN = ("PlatformService", "HashRing", "StatefulSet", "Job", "Deployment", "Service", "ConfigMap", "NetworkPolicy")


def test_lost_credentials_are_not_made_anew_over_data_that_needs_the_old(
    nudge: Nudge, kube: Any, namespace: str, ready: Any, condition: Condition
) -> None:
    ready()
    kept = kube.get("Secret", namespace, "demo-credentials")
    kube.delete("Secret", namespace, "demo-credentials")
    nudge("Platform", "demo")
    until(lambda: condition("Ready").get("reason") == "CredentialsLost")
    assert "data-demo-postgresql-0" in condition("Ready")["message"]
    assert condition("Degraded")["status"] == "True"
    assert kube.get("Secret", namespace, "demo-credentials") is None
    assert kube.get("StatefulSet", namespace, "demo-postgresql"), "what runs goes on running"
    restored = {**kept, "metadata": {"name": "demo-credentials"}}
    kube.call("POST", kube.path("Secret", namespace), restored)
    nudge("Platform", "demo")
    until(lambda: condition("Ready").get("status") == "True")


def test_a_missing_secret_is_named_and_its_appearance_noticed(
    kube: Any, namespace: str, make_platform: Any, condition: Condition
) -> None:
    make_platform(database={"external": {"secretRef": {"name": "pg", "key": "url"}}})
    until(lambda: condition("Ready").get("reason") == "SecretMissing")
    assert "Secret pg does not exist" in condition("Ready")["message"]
    assert "waits for DatabaseReady" in condition("MigrationsComplete")["message"]

    def told() -> bool:  # after the status
        events = [one for one in kube.list("Event", namespace) if one["reason"] == "SecretMissing"]
        return any("pg" in one["message"] and one["type"] == "Warning" for one in events)

    until(told)
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "pg"}, "stringData": {"uri": "x"}}
    kube.apply(secret, namespace)
    until(lambda: condition("Ready").get("reason") == "SecretKeyMissing", seconds=READY_SECONDS)
    assert "has no key url (it has: uri)" in condition("Ready")["message"]
    kube.apply({**secret, "stringData": {"url": "postgresql+asyncpg://u:p@pg/db"}}, namespace)
    until(lambda: condition("Ready").get("status") == "True", seconds=READY_SECONDS)
    assert kube.get("StatefulSet", namespace, "demo-postgresql") is None
    volumes = kube.get("Deployment", namespace, "demo-follow")["spec"]["template"]["spec"]["volumes"]
    sources = next(one["projected"]["sources"] for one in volumes if one["name"] == "secrets")
    files = {item["path"]: (one["secret"]["name"], item["key"]) for one in sources for item in one["secret"]["items"]}
    assert files["database_url"] == ("pg", "url")
    assert files["valkey_url"] == ("demo-credentials", "valkey_url")


def test_services_wait_for_migrations_and_migrations_for_stores(
    kube: Any, kubelet: Any, namespace: str, make_platform: Any, condition: Condition
) -> None:
    for component in ("postgresql", "migrations"):
        kubelet.hold(namespace, component)
    make_platform()
    until(lambda: condition("CacheReady").get("status") == "True")
    assert condition("DatabaseReady")["status"] == "False"
    assert kube.list("Job", namespace) == []
    kubelet.release(namespace, "postgresql")
    until(lambda: condition("MigrationsComplete").get("reason") == "Migrating")
    assert kube.list("PlatformService", namespace) == []
    kubelet.release(namespace, "migrations")
    until(lambda: condition("Ready").get("status") == "True", seconds=READY_SECONDS)


def test_a_new_version_migrates_before_services_roll(
    kube: Any, kubelet: Any, namespace: str, ready: Any, condition: Condition
) -> None:
    ready()
    kubelet.hold(namespace, "migrations")
    services = {"post": {"replicas": {"min": 3}}}
    spec = {"version": "0.2.0", "services": services, "upgrade": {"soakSeconds": 0}}
    kube.patch("Platform", namespace, "demo", {"spec": spec})
    until(lambda: condition("MigrationsComplete").get("reason") == "Migrating")
    until(lambda: kube.get("Deployment", namespace, "demo-post")["spec"]["replicas"] == 3)
    image = kube.get("Deployment", namespace, "demo-post")["spec"]["template"]["spec"]["containers"][0]["image"]
    assert image == "registry.test/fanfold/fanfold:0.1.0"
    assert kube.get("Platform", namespace, "demo")["status"]["version"] == "0.1.0"
    kubelet.release(namespace, "migrations")
    until(lambda: kube.get("Platform", namespace, "demo")["status"].get("version") == "0.2.0", seconds=READY_SECONDS)
    until(lambda: len(kube.list("Job", namespace)) == 1)


def test_a_failed_migration_is_told_and_tried_again(
    kube: Any,
    kubelet: Any,
    namespace: str,
    make_platform: Any,
    condition: Condition,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(platform, "RETRY_MIGRATION", timedelta(seconds=5))  # a minute would do the same
    kubelet.hold(namespace, "migrations")
    make_platform()
    job = until(lambda: kube.list("Job", namespace))[0]["metadata"]["name"]
    # Paused, or the operator would put the Job's deadline right.
    kube.patch("Platform", namespace, "demo", {"metadata": {"annotations": {"fanfold.dev/paused": "true"}}})
    until(lambda: condition("Paused").get("status") == "True")
    kube.patch("Job", namespace, job, {"spec": {"activeDeadlineSeconds": 1}})
    until(lambda: condition("MigrationsComplete").get("reason") == "MigrationFailed", seconds=READY_SECONDS)
    assert f"kubectl logs job/{job}. Tried again every 5 s" in condition("MigrationsComplete")["message"]
    assert condition("Degraded")["status"] == "True"
    failed = kube.get("Job", namespace, job)["metadata"]["uid"]
    kubelet.release(namespace, "migrations")
    kube.patch("Platform", namespace, "demo", {"metadata": {"annotations": {"fanfold.dev/paused": None}}})
    until(lambda: condition("Ready").get("status") == "True", seconds=READY_SECONDS)
    assert kube.get("Job", namespace, job)["metadata"]["uid"] != failed


def test_a_deleted_platform_leaves_its_data_and_credentials_only_and_finds_them_when_made_again(
    kube: Any, namespace: str, ready: Any
) -> None:
    ready()
    before = kube.get("Secret", namespace, "demo-credentials")["data"]
    kube.delete("Platform", namespace, "demo")
    until(lambda: not any(_left(kube, namespace)), seconds=READY_SECONDS)
    claims = {one["metadata"]["name"]: one["metadata"]["uid"] for one in kube.list("PersistentVolumeClaim", namespace)}
    assert set(claims) == {f"data-demo-{store}-0" for store in ("postgresql", "valkey", "objectstore")}
    assert kube.get("Secret", namespace, "demo-credentials")["data"] == before
    ready()
    assert kube.get("Secret", namespace, "demo-credentials")["data"] == before
    found = {one["metadata"]["name"]: one["metadata"]["uid"] for one in kube.list("PersistentVolumeClaim", namespace)}
    assert found == claims


def test_a_lost_volume_is_made_anew_and_migrated_when_the_old_job_is_deleted(
    kube: Any, namespace: str, ready: Any, condition: Condition
) -> None:
    """What docs/operator/recovery.md tells to do."""
    ready()
    (job,) = kube.list("Job", namespace)
    claim = kube.get("PersistentVolumeClaim", namespace, "data-demo-postgresql-0")
    kube.delete("PersistentVolumeClaim", namespace, "data-demo-postgresql-0")
    kube.delete("Pod", namespace, "demo-postgresql-0")
    kube.delete("Job", namespace, job["metadata"]["name"])

    def anew() -> bool:
        jobs = kube.list("Job", namespace)
        volume = kube.get("PersistentVolumeClaim", namespace, "data-demo-postgresql-0")
        uids = {one["metadata"]["uid"] for one in (*jobs, volume or claim)}
        done = bool(jobs) and jobs[0].get("status", {}).get("succeeded") == 1
        return done and not uids & {job["metadata"]["uid"], claim["metadata"]["uid"]}

    until(anew, seconds=READY_SECONDS)
    until(lambda: condition("Ready").get("status") == "True", seconds=READY_SECONDS)


def test_deletion_policy_delete_leaves_nothing(kube: Any, namespace: str, ready: Any) -> None:
    ready(deletionPolicy="Delete")
    kube.delete("Platform", namespace, "demo")
    kinds = (*CHILDREN, "PersistentVolumeClaim")
    until(lambda: not any(_left(kube, namespace, kinds)), seconds=READY_SECONDS)
    until(lambda: kube.get("Secret", namespace, "demo-credentials") is None)


def test_two_platforms_of_one_namespace_do_not_touch_each_other(
    kube: Any, namespace: str, make_platform: Any, ready: Any, condition: Condition
) -> None:
    ready()
    make_platform("other")
    until(lambda: condition("Ready", "other").get("status") == "True", seconds=READY_SECONDS)
    mine = decode(kube.get("ConfigMap", namespace, "demo-snapshot")["data"][SNAPSHOT_KEY])
    theirs = decode(kube.get("ConfigMap", namespace, "other-snapshot")["data"][SNAPSHOT_KEY])
    addresses = [{slot.address for slots in one.services.values() for slot in slots} for one in (mine, theirs)]
    assert not addresses[0] & addresses[1]
    kube.delete("Platform", namespace, "other")
    until(lambda: kube.get("Deployment", namespace, "other-feed") is None, seconds=READY_SECONDS)
    assert condition("Ready")["status"] == "True"


def _left(kube: Any, namespace: str, kinds: tuple[str, ...] = CHILDREN) -> list[str]:
    """What is there of these kinds, but for what every namespace has."""
    return [
        f"{kind}/{one['metadata']['name']}"
        for kind in kinds
        for one in kube.list(kind, namespace)
        if one["metadata"]["name"] != "kube-root-ca.crt"
    ]
