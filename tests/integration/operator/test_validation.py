"""What the API server refuses, and what it says then. Every rule: one that passes, one that does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from fanfold.contracts.resources import HashRingSpec, PlatformServiceSpec, PlatformSpec, parse

pytestmark = pytest.mark.cluster

EXAMPLES = sorted((Path(__file__).parents[3] / "examples").glob("*.yaml"))
REF = {"secretRef": {"name": "x"}}
STORE = {"endpoint": "https://s3.test", **REF}

ACCEPTED: list[dict[str, Any]] = [
    {},
    {"gateway": {"replicas": {"min": 3, "max": 3}}},
    {"services": {"feed": {"replicas": {"min": 20}}}},
    {"services": {"image-worker": {"resources": {"requests": {"cpu": 2, "memory": "1.5Gi"}}}}},
    {"gateway": {"exposure": {"type": "NodePort", "nodePort": 30080}}},
    {"gateway": {"exposure": {"type": "LoadBalancer"}}},
    {"database": {"external": REF}, "cache": {"external": REF}, "objectStore": {"external": STORE}},
    {"database": {"embedded": {"storage": "1Gi", "storageClassName": "fast"}}},
    {"fanout": {"celebrityMode": "batched", "celebrityThreshold": 1}},
    {"media": {"baseURL": "https://cdn.test/media"}},
    {"media": {"baseURL": "https://cdn.test"}},
    {"ring": {"virtualNodes": 1, "boundedLoad": 1.01, "snapshotRefreshSeconds": 60}},
    {"version": "1.2.3-rc.1"},
]

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"gateway": {"replicas": {"min": 4, "max": 3}}}, "replicas.min must not be greater than replicas.max"),
    ({"services": {"post": {"replicas": {"min": 11}}}}, "or set max too (its default applies when it is not set)"),
    ({"services": {"feed": {"replicas": {"min": 0}}}}, "should be greater than or equal to 1"),
    ({"services": {"fed": {}}}, ".spec.services.fed: field not declared in schema"),
    (
        {"gateway": {"exposure": {"type": "ClusterIP", "nodePort": 30080}}},
        "exposure.nodePort needs exposure.type NodePort",
    ),
    ({"gateway": {"targetCPUPercent": 101}}, "should be less than or equal to 100"),
    ({"gateway": {"resources": {"requests": {"cpu": "much"}}}}, "should match"),
    ({"database": {}}, "set exactly one of database.embedded and database.external"),
    ({"database": {"embedded": {}, "external": REF}}, "set exactly one of database.embedded and database.external"),
    ({"cache": {"embedded": {}, "external": REF}}, "set exactly one of cache.embedded and cache.external"),
    ({"objectStore": {}}, "set exactly one of objectStore.embedded and objectStore.external"),
    ({"database": {"external": {}}}, "secretRef: Required value"),
    ({"database": {"embedded": {"storage": "big"}}}, "should match"),
    ({"objectStore": {"external": {**STORE, "endpoint": "s3.test/path"}}}, "should match"),
    ({"objectStore": {"external": {**STORE, "bucket": "Upper"}}}, "should match"),
    ({"fanout": {"celebrityMode": "push"}}, 'supported values: "pull", "batched"'),
    ({"fanout": {"celebrityThreshold": 0}}, "should be greater than or equal to 1"),
    ({"ring": {"boundedLoad": 1}}, "boundedLoad must be 1.01 or more"),
    ({"ring": {"snapshotRefreshSeconds": 0}}, "should be greater than or equal to 1"),
    ({"feed": {"length": 101}}, "should be less than or equal to 100"),
    ({"media": {"baseURL": "ftp://cdn.test"}}, "should match"),
    ({"version": "no spaces"}, "should match"),
    ({"deletionPolicy": "Maybe"}, 'supported values: "Retain", "Delete"'),
]

CHANGES: list[tuple[dict[str, Any], dict[str, Any], str | None]] = [
    ({}, {"database": {"embedded": {"storage": "20Gi"}}}, "storage is fixed once made"),
    ({}, {"database": {"embedded": None, "external": REF}}, "database cannot change between embedded and external"),
    ({}, {"cache": {"embedded": None, "external": REF}}, "cache cannot change between embedded and external"),
    ({}, {"objectStore": {"embedded": None, "external": STORE}}, "objectStore cannot change between embedded and"),
    ({}, {"cache": {"embedded": {"storageClassName": "fast"}}}, "storageClassName is fixed once made"),
    (
        {"objectStore": {"embedded": {"storageClassName": "slow"}}},
        {"objectStore": {"embedded": {"storageClassName": "fast"}}},
        "storageClassName is fixed once made",
    ),
    ({"database": {"external": REF}}, {"database": {"external": {"secretRef": {"name": "y"}}}}, None),
    ({}, {"cache": {"embedded": {"maxMemory": "512Mi"}}}, None),
    ({}, {"deletionPolicy": "Delete", "feed": {"length": 50}}, None),
]


def manifest(kind: str, spec: dict[str, Any], name: str = "demo") -> dict[str, Any]:
    return {"apiVersion": "fanfold.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}


@pytest.fixture
def try_to_apply(kube: Any, namespace: str) -> Any:
    def apply(body: dict[str, Any]) -> Any:
        return kube.apply(body, namespace, dryRun="All", fieldValidation="Strict")

    return apply


@pytest.mark.parametrize("spec", ACCEPTED, ids=str)
def test_accepted(try_to_apply: Any, spec: dict[str, Any]) -> None:
    parse(PlatformSpec, try_to_apply(manifest("Platform", spec)))


@pytest.mark.parametrize(("spec", "words"), REFUSED, ids=str)
def test_refused_with_a_sentence_that_says_what_to_change(try_to_apply: Any, spec: dict[str, Any], words: str) -> None:
    with pytest.raises(AssertionError) as refusal:
        try_to_apply(manifest("Platform", spec))
    assert words in str(refusal.value)


@pytest.mark.parametrize("name", ["9lives", "a.b", "x" * 41])
def test_a_name_that_services_cannot_be_named_after_is_refused(try_to_apply: Any, name: str) -> None:
    with pytest.raises(AssertionError, match="the name must"):
        try_to_apply(manifest("Platform", {}, name))


@pytest.mark.parametrize(("before", "change", "words"), CHANGES, ids=str)
def test_what_cannot_change_once_made(
    kube: Any, namespace: str, before: dict[str, Any], change: dict[str, Any], words: str | None
) -> None:
    kube.apply(manifest("Platform", before), namespace)
    if words is None:
        kube.patch("Platform", namespace, "demo", {"spec": change})
        return
    with pytest.raises(AssertionError) as refusal:
        kube.patch("Platform", namespace, "demo", {"spec": change})
    assert words in str(refusal.value)


def test_the_types_defaults_are_the_api_servers(try_to_apply: Any) -> None:
    spec = {"platform": "demo", "component": "feed", "version": "1", "image": "x"}
    made = parse(PlatformServiceSpec, try_to_apply(manifest("PlatformService", spec)))
    assert made == PlatformServiceSpec(platform="demo", component="feed", version="1", image="x")
    ring = parse(HashRingSpec, try_to_apply(manifest("HashRing", {"platform": "demo"})))
    assert ring == HashRingSpec(platform="demo")


@pytest.mark.parametrize(
    ("kind", "spec", "words"),
    [
        ("PlatformService", {"platform": "d", "component": "nope", "version": "1", "image": "x"}, "Unsupported value"),
        ("PlatformService", {"component": "feed", "version": "1", "image": "x"}, "platform: Required value"),
        (
            "PlatformService",
            {"platform": "d", "component": "feed", "version": "1", "image": "x", "scaling": {"min": 3, "max": 2}},
            "scaling.min must not be greater than scaling.max",
        ),
        ("HashRing", {"platform": "d", "virtualNodes": 0}, "should be greater than or equal to 1"),
    ],
)
def test_services_and_rings_are_checked_too(try_to_apply: Any, kind: str, spec: dict[str, Any], words: str) -> None:
    with pytest.raises(AssertionError) as refusal:
        try_to_apply(manifest(kind, spec))
    assert words in str(refusal.value)


@pytest.mark.parametrize(
    ("kind", "spec"),
    [
        ("PlatformService", {"platform": "demo", "component": "feed", "version": "1", "image": "x"}),
        ("HashRing", {"platform": "demo"}),
    ],
)
def test_a_child_does_not_change_its_platform(kube: Any, namespace: str, kind: str, spec: dict[str, Any]) -> None:
    kube.apply(manifest(kind, spec), namespace)
    with pytest.raises(AssertionError, match="platform is fixed"):
        kube.patch(kind, namespace, "demo", {"spec": {"platform": "other"}})
    if kind == "PlatformService":
        with pytest.raises(AssertionError, match="component is fixed"):
            kube.patch(kind, namespace, "demo", {"spec": {"component": "post"}})


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_is_accepted_as_it_stands(try_to_apply: Any, path: Path) -> None:
    for document in yaml.safe_load_all(path.read_text()):
        try_to_apply(document)
