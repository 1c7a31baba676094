"""What a Platform's plan brings about, and what its status tells."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from fanfold.contracts.components import COMPONENTS
from fanfold_operator.kinds import Manifest, key_of
from fanfold_operator.planning import platform, summary
from fanfold_operator.planning.actions import Actions, Conflict, Images, View
from fanfold_operator.planning.platform import Stages

EXTERNAL = {
    "database": {"external": {"secretRef": {"name": "stores", "key": "db"}}},
    "cache": {"external": {"secretRef": {"name": "stores", "key": "cache"}}},
    "objectStore": {"external": {"endpoint": "https://s3.test/", "secretRef": {"name": "stores"}, "bucket": "photos"}},
}
KEYS = frozenset({"db", "cache", "access_key", "secret_key"})


def names(plan: Actions, kind: str) -> list[str]:
    return [one["metadata"]["name"] for one in plan.apply if one["kind"] == kind]


def conditions(status: dict[str, Any]) -> dict[str, tuple[str, str]]:
    return {one["type"]: (one["status"], one["reason"]) for one in status["conditions"]}


def with_children(stages: Stages, *children: Manifest) -> Stages:
    known = dict(stages.view.children) | {key_of(child): child for child in children}
    return Stages(replace(stages.view, children=known), stages.images)


def store_ready(stages: Stages) -> Stages:
    sets = [one for one in platform.plan(stages).apply if one["kind"] == "StatefulSet"]
    return with_children(stages, *({**one, "status": {"readyReplicas": 1}} for one in sets))


def migrated(stages: Stages) -> Stages:
    done = {"conditions": [{"type": "Complete", "status": "True"}]}
    return with_children(stages, {**stages.job, "status": done})


def serving(stages: Stages) -> Stages:
    services = []
    for one in platform.plan(stages).apply:
        if one["kind"] == "PlatformService":
            ready = {"type": "Ready", "status": "True", "reason": "Available", "message": ""}
            status = {"observedGeneration": 1, "ready": "1/1", "version": one["spec"]["version"], "conditions": [ready]}
            services.append({**one, "metadata": {**one["metadata"], "generation": 1}, "status": status})
    ring = next(one for one in platform.plan(stages).apply if one["kind"] == "HashRing")
    synced = {"type": "Synced", "status": "True", "reason": "AllAcked", "message": ""}
    ring = {**ring, "status": {"epoch": 4, "acked": "2/2", "conditions": [synced]}}
    return with_children(stages, *services, ring)


@pytest.fixture
def fresh(resource: Callable[..., Manifest], view: Callable[..., View], images: Images) -> Callable[..., Stages]:
    return lambda spec=None, **rest: Stages(view(resource("Platform", spec=spec), **rest), images)


def test_first_come_stores_and_the_ring_only(fresh: Callable[..., Stages]) -> None:
    plan = platform.plan(fresh())
    assert names(plan, "StatefulSet") == ["demo-postgresql", "demo-valkey", "demo-objectstore"]
    assert names(plan, "HashRing") == ["demo"]
    assert names(plan, "Job") == []
    assert names(plan, "PlatformService") == []
    assert plan.delete == ()


def test_then_migrations_then_every_component(fresh: Callable[..., Stages]) -> None:
    stages = store_ready(fresh())
    assert len(names(platform.plan(stages), "Job")) == 1
    assert names(platform.plan(stages), "PlatformService") == []
    stages = migrated(stages)
    assert names(platform.plan(stages), "PlatformService") == [f"demo-{one.name}" for one in COMPONENTS]


def test_a_database_that_restarts_undoes_nothing(fresh: Callable[..., Stages]) -> None:
    stages = serving(migrated(store_ready(fresh())))
    down = {**stages.view.child("StatefulSet", "demo-postgresql"), "status": {}}  # type: ignore[dict-item]
    plan = platform.plan(with_children(stages, down))
    assert plan.delete == ()
    assert len(names(plan, "Job")) == 1
    assert len(names(plan, "PlatformService")) == len(COMPONENTS)


def test_what_a_component_is_told(fresh: Callable[..., Stages]) -> None:
    stages = migrated(
        store_ready(fresh({"services": {"feed": {"replicas": {"min": 3, "max": 9}, "targetCPUPercent": 40}}}))
    )
    services = {
        one["spec"]["component"]: one["spec"]
        for one in platform.plan(stages).apply
        if "component" in one.get("spec", {})
    }
    assert services["feed"]["scaling"] == {"min": 3, "max": 9, "targetCPUPercent": 40}
    assert "replicas" not in services["feed"], "replicas belongs to whoever scales"
    env = {one["name"]: one["value"] for one in services["feed"]["env"]}
    assert env["FANFOLD_SERVICE"] == "feed"
    assert json.loads(env["FANFOLD_PEERS"])["follow"] == "http://demo-follow:8000"
    assert services["gateway"]["snapshot"] == "demo-snapshot"
    gateway = {one["name"]: one["value"] for one in services["gateway"]["env"]}
    assert gateway["FANFOLD_SNAPSHOT_SOURCE"] == "configmap:prod/demo-snapshot"
    assert {
        name for name, spec in services.items() if any(one["file"] == "token_private_key" for one in spec["secrets"])
    } == {"profile"}


def test_external_stores_come_from_the_users_secret(fresh: Callable[..., Stages]) -> None:
    stages = migrated(fresh(EXTERNAL, secrets={"stores": KEYS}))
    plan = platform.plan(stages)
    assert names(plan, "StatefulSet") == []
    image = next(one["spec"] for one in plan.apply if one.get("spec", {}).get("component") == "image")
    files = {one["file"]: (one["secret"], one["key"]) for one in image["secrets"]}
    assert files["database_url"] == ("stores", "db")
    assert files["s3_secret_key"] == ("stores", "secret_key")
    assert files["identity_key"] == ("demo-credentials", "identity_key")
    env = {one["name"]: one["value"] for one in image["env"]}
    assert (env["FANFOLD_S3_ENDPOINT"], env["FANFOLD_S3_BUCKET"]) == ("https://s3.test", "photos")


def test_what_feeds_are_like_reaches_the_services_that_share_it(fresh: Callable[..., Stages]) -> None:
    spec = {"feed": {"length": 7, "ownPosts": False}, "fanout": {"timelineCopies": 3, "celebrityMode": "batched"}}
    stages = migrated(fresh(EXTERNAL | spec, secrets={"stores": KEYS}))
    wanted = {
        "FANFOLD_FEED_LENGTH": "7",
        "FANFOLD_OWN_POSTS": "false",
        "FANFOLD_TIMELINE_COPIES": "3",
        "FANFOLD_CELEBRITY_MODE": "batched",
    }
    given = {
        one["spec"]["component"]: {item["name"]: item["value"] for item in one["spec"]["env"]}
        for one in platform.plan(stages).apply
        if one["kind"] == "PlatformService"
    }
    for component in ("feed", "feed-worker", "post"):
        assert {name: given[component][name] for name in wanted} == wanted


def test_a_read_replica_is_for_services_with_lists_and_its_secret_must_be_there(fresh: Callable[..., Stages]) -> None:
    database = {
        "external": {"secretRef": {"name": "stores", "key": "db"}, "readSecretRef": {"name": "ro", "key": "uri"}}
    }
    missing = migrated(fresh(EXTERNAL | {"database": database}, secrets={"stores": KEYS, "ro": frozenset()}))
    assert missing.database.reason == "SecretKeyMissing"
    stages = migrated(fresh(EXTERNAL | {"database": database}, secrets={"stores": KEYS, "ro": frozenset({"uri"})}))
    given = {
        one["spec"]["component"]: {file["file"]: (file["secret"], file["key"]) for file in one["spec"]["secrets"]}
        for one in platform.plan(stages).apply
        if one["kind"] == "PlatformService"
    }
    readers = {name for name, files in given.items() if "database_read_url" in files}
    assert readers == {"follow", "post", "activity", "notification"}
    assert given["post"]["database_read_url"] == ("ro", "uri")


@pytest.mark.parametrize(
    ("secrets", "reason", "words"),
    [
        ({"stores": None}, "SecretMissing", "Secret stores does not exist in namespace prod: create it with key db"),
        ({"stores": frozenset({"uri"})}, "SecretKeyMissing", "Secret stores has no key db (it has: uri)"),
    ],
)
def test_a_missing_secret_is_the_first_thing_told(
    fresh: Callable[..., Stages], secrets: Any, reason: str, words: str
) -> None:
    status = summary.status(fresh(EXTERNAL, secrets=secrets), None)
    assert conditions(status)["Ready"] == ("False", reason)
    assert words in next(one["message"] for one in status["conditions"] if one["type"] == "Ready")
    assert conditions(status)["MigrationsComplete"] == ("False", "Waiting")


def test_a_whole_platform_is_ready_and_nothing_else_is_told(fresh: Callable[..., Stages]) -> None:
    stages = serving(migrated(store_ready(fresh(node_address="192.0.2.1"))))
    service = {
        "metadata": {"name": "demo-gateway"},
        "spec": {"type": "NodePort", "ports": [{"port": 8000, "nodePort": 30123}]},
    }
    first = summary.status(stages, service)
    assert conditions(first)["UpToDate"] == ("False", "Installing")
    stages = Stages(replace(stages.view, resource={**stages.view.resource, "status": first}), stages.images)
    status = summary.status(stages, service)
    told = conditions(status)
    assert told["Ready"] == ("True", "Ready")
    assert told["UpToDate"] == ("True", "Current")
    assert {kind for kind, (value, _) in told.items() if value == "False"} == {
        "Degraded", "OwnershipConflict", "Paused", "Progressing",
    }  # fmt: skip
    assert status["ready"] == f"{len(COMPONENTS)}/{len(COMPONENTS)}"
    assert status["version"] == "0.1.0"
    assert status["ring"] == {"epoch": 4, "acked": "2/2"}
    assert status["url"] == "http://192.0.2.1:30123"


def test_the_epoch_that_was_told_is_remembered_while_the_ring_is_made_anew(
    fresh: Callable[..., Stages], resource: Callable[..., Manifest]
) -> None:
    stages = fresh()
    told = resource("Platform", status={"ring": {"epoch": 4, "acked": "2/2"}})
    stages = Stages(replace(stages.view, resource=told), stages.images)
    assert summary.status(stages, None)["ring"] == {"epoch": 4, "acked": "0/0"}


def test_readiness_that_is_lost_is_degraded_until_it_is_back(
    fresh: Callable[..., Stages], resource: Callable[..., Manifest]
) -> None:
    stages = serving(migrated(store_ready(fresh())))
    was_ready = {"conditions": [{"type": "Ready", "status": "True", "reason": "Ready", "lastTransitionTime": "x"}]}
    down = {**stages.view.child("StatefulSet", "demo-valkey"), "status": {}}  # type: ignore[dict-item]
    stages = with_children(stages, down)
    first = summary.status(
        Stages(replace(stages.view, resource=resource("Platform", status=was_ready)), stages.images), None
    )
    assert conditions(first)["Degraded"] == ("True", "LostReadiness")
    again = summary.status(
        Stages(replace(stages.view, resource=resource("Platform", status=first)), stages.images), None
    )
    assert conditions(again)["Degraded"] == ("True", "LostReadiness")
    back = {**down, "status": {"readyReplicas": 1}}
    healed = with_children(
        Stages(replace(stages.view, resource=resource("Platform", status=again)), stages.images), back
    )
    assert conditions(summary.status(healed, None))["Degraded"] == ("False", "AsExpected")


def test_a_failed_migration_is_made_again_after_a_minute(
    fresh: Callable[..., Stages],
) -> None:
    stages = store_ready(fresh())
    failed = {"type": "Failed", "status": "True", "message": "boom", "lastTransitionTime": "2026-01-02T03:03:30Z"}
    job = {**stages.job, "status": {"conditions": [failed]}}
    stages = with_children(stages, job)
    plan = platform.plan(stages)
    assert plan.delete == ()
    assert len(names(plan, "Job")) == 1
    assert stages.migrations.reason == "MigrationFailed"
    later = Stages(replace(stages.view, now=stages.view.now + timedelta(seconds=30)), stages.images)
    plan = platform.plan(later)
    assert plan.delete == (job,)
    assert names(plan, "Job") == []


def test_the_same_view_gives_the_same_plan(fresh: Callable[..., Stages]) -> None:
    stages = serving(migrated(store_ready(fresh())))
    assert platform.plan(stages) == platform.plan(Stages(stages.view, stages.images))


def test_a_paused_platform_is_not_planned(fresh: Callable[..., Stages]) -> None:
    stages = fresh(paused=True)
    assert platform.plan(stages) == Actions()
    assert conditions(summary.status(stages, None))["Paused"] == ("True", "Annotated")


def test_lost_credentials_stop_the_stores_from_being_made(fresh: Callable[..., Stages]) -> None:
    stages = fresh(lost_volumes=("data-demo-postgresql-0",))
    assert names(platform.plan(stages), "StatefulSet") == []
    status = summary.status(stages, None)
    assert conditions(status)["Ready"] == ("False", "CredentialsLost")
    assert conditions(status)["Degraded"] == ("True", "Failed")


def test_a_conflict_is_told_with_its_owner_and_fields(fresh: Callable[..., Stages]) -> None:
    stages = fresh()
    key = next(iter(store_ready(stages).view.children))
    stages = Stages(replace(stages.view, conflicts=(Conflict(key, "flux", (".spec.replicas",)),)), stages.images)
    told = next(one for one in summary.status(stages, None)["conditions"] if one["type"] == "OwnershipConflict")
    assert told["status"] == "True"
    assert ".spec.replicas belong to 'flux'" in told["message"]


def test_a_new_image_waits_for_somebody_to_restart_an_embedded_store(fresh: Callable[..., Stages]) -> None:
    stages = store_ready(fresh())
    sets = {one["metadata"]["name"]: one for one in platform.plan(stages).apply if one["kind"] == "StatefulSet"}
    assert {one["spec"]["updateStrategy"]["type"] for one in sets.values()} == {"OnDelete"}
    assert stages.cache.message == "embedded valkey is ready"
    outdated = {"readyReplicas": 1, "updateRevision": "demo-valkey-2"}
    stages = with_children(stages, {**sets["demo-valkey"], "status": outdated})
    assert stages.cache.status
    assert "kubectl delete pod demo-valkey-0 restarts it" in stages.cache.message


@pytest.mark.parametrize(("policy", "kept"), [("Retain", "Retain"), ("Delete", "Delete")])
def test_volumes_obey_the_deletion_policy(fresh: Callable[..., Stages], policy: str, kept: str) -> None:
    for one in platform.plan(fresh({"deletionPolicy": policy})).apply:
        if one["kind"] == "StatefulSet":
            assert one["spec"]["persistentVolumeClaimRetentionPolicy"]["whenDeleted"] == kept


def test_a_platform_without_embedded_data_retains_nothing(fresh: Callable[..., Stages]) -> None:
    assert fresh().retains
    assert not fresh(EXTERNAL).retains


@pytest.mark.parametrize(
    ("service", "address", "url"),
    [
        ({"type": "NodePort", "ports": [{"nodePort": 30001}]}, None, None),
        ({"type": "NodePort", "ports": [{"nodePort": 30001}]}, "2001:db8::1", "http://[2001:db8::1]:30001"),
        ({"type": "ClusterIP", "ports": [{}]}, None, "http://demo-gateway.prod.svc:8000"),
        ({"type": "LoadBalancer", "ports": [{}]}, None, "http://192.0.2.9:8000"),
    ],
)
def test_the_url_follows_the_exposure(
    fresh: Callable[..., Stages], service: Any, address: str | None, url: str | None
) -> None:
    manifest = {
        "metadata": {"name": "demo-gateway", "namespace": "prod"},
        "spec": service,
        "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.9"}]}},
    }
    assert summary.status(fresh(node_address=address), manifest).get("url") == url


def test_what_a_load_test_has_scaled_has_so_many_replicas_and_the_rest_its_bounds(fresh: Callable[..., Stages]) -> None:
    spec = {"services": {"feed": {"replicas": {"min": 1, "max": 4}}}}
    stages = migrated(store_ready(fresh(spec, pinned={"feed": 3})))
    scaling = {
        one["spec"]["component"]: one["spec"]["scaling"]
        for one in platform.plan(stages).apply
        if one["kind"] == "PlatformService"
    }
    assert (scaling["feed"]["min"], scaling["feed"]["max"]) == (3, 3)
    assert scaling["post"]["max"] > 3
