"""Every pod is shut in, and every object can be traced to its owner."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from msgspec import structs

from fanfold.contracts.components import COMPONENTS
from fanfold.contracts.resources import PlatformServiceSpec, Scaling
from fanfold_operator.kinds import Manifest
from fanfold_operator.planning import components, platform, service
from fanfold_operator.planning.actions import Images, View
from fanfold_operator.planning.platform import Stages
from fanfold_operator.resources import meta


def pods(manifest: Manifest) -> Iterator[dict[str, Any]]:
    template = (
        manifest.get("spec", {}).get("template") if manifest["kind"] in {"Deployment", "StatefulSet", "Job"} else None
    )
    if template:
        yield template


@pytest.fixture
def everything(resource: Callable[..., Manifest], view: Callable[..., View], images: Images) -> list[Manifest]:
    """All objects of a whole platform."""
    stages = Stages(view(resource("Platform")), images)
    ready = [{**one, "status": {"readyReplicas": 1}} for one in platform.plan(stages).apply]
    job = {**stages.job, "status": {"conditions": [{"type": "Complete", "status": "True"}]}}
    objects = list(platform.plan(Stages(view(resource("Platform"), [*ready, job]), images)).apply)
    for one in [one for one in objects if one["kind"] == "PlatformService"]:
        live = {**one, "metadata": {**one["metadata"], "uid": "u", "generation": 1}}
        objects += service.plan(view(live)).apply
    return objects


def test_there_is_a_pod_of_every_component_store_and_the_migrations(everything: list[Manifest]) -> None:
    found = {pod["metadata"]["labels"]["fanfold.dev/service"] for one in everything for pod in pods(one)}
    stores = {meta.POSTGRESQL, meta.VALKEY, meta.OBJECT_STORE, meta.MIGRATIONS}
    assert found == {component.name for component in COMPONENTS} | stores


def test_no_pod_has_more_rights_than_it_needs(everything: list[Manifest]) -> None:
    for pod in [pod for one in everything for pod in pods(one)]:
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] >= 10_000
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
        assert not any("hostPath" in volume for volume in spec["volumes"])
        token = pod["metadata"]["labels"]["fanfold.dev/service"] == "gateway"
        assert spec["automountServiceAccountToken"] is token
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["requests"]["cpu"]
            assert container["resources"]["requests"]["memory"]
            assert container["resources"]["limits"]["memory"]
            assert "securityContext" in container


def test_secrets_are_files_and_no_pod_sees_another_components(everything: list[Manifest]) -> None:
    for pod in [pod for one in everything for pod in pods(one)]:
        name = pod["metadata"]["labels"]["fanfold.dev/service"]
        volume = next(volume for volume in pod["spec"]["volumes"] if volume["name"] == "secrets")
        files = {item["path"] for source in volume["projected"]["sources"] for item in source["secret"]["items"]}
        if name in components.SECRETS:
            assert files == set(components.SECRETS[name])
        assert volume["projected"]["defaultMode"] == 0o440
        assert "secretKeyRef" not in json.dumps(pod["spec"]["containers"])
        assert "envFrom" not in json.dumps(pod["spec"]["containers"])


def test_every_probe_and_grace_fits(everything: list[Manifest]) -> None:
    for one in everything:
        if one["kind"] != "Deployment":
            continue
        spec = one["spec"]["template"]["spec"]
        container = spec["containers"][0]
        assert {name for name in container if name.endswith("Probe")} == {
            "startupProbe",
            "livenessProbe",
            "readinessProbe",
        }
        env = {item["name"]: item.get("value") for item in container["env"]}
        waits = ("FANFOLD_RELEASE_SECONDS", "FANFOLD_DRAIN_SECONDS", "FANFOLD_GRACE_SECONDS")
        assert sum(float(env[name]) for name in waits) < spec["terminationGracePeriodSeconds"]
        assert one["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


def test_who_serves_waits_before_it_stops_until_nobody_sends_to_it(everything: list[Manifest]) -> None:
    hooks = {
        one["metadata"]["name"]: one["spec"]["template"]["spec"]["containers"][0].get("lifecycle")
        for one in everything
        if one["kind"] == "Deployment"
    }
    waits = {"preStop": {"httpGet": {"path": "/drain", "port": "admin"}}}
    assert hooks["demo-feed"] == hooks["demo-gateway"] == waits
    assert hooks["demo-feed-worker"] is None


def test_replicas_that_are_to_survive_a_node_are_not_put_on_the_same(everything: list[Manifest]) -> None:
    rules = {}
    for one in everything:
        if one["kind"] == "Deployment":
            (spread,) = one["spec"]["template"]["spec"]["topologySpreadConstraints"]
            assert spread["nodeTaintsPolicy"] == "Honor", "a lost node would count as an empty one"
            rules[one["metadata"]["name"]] = spread["whenUnsatisfiable"]
            tolerated = {item["key"]: item for item in one["spec"]["template"]["spec"]["tolerations"]}
            assert set(tolerated) == {"node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"}
            assert all(item["tolerationSeconds"] <= 30 for item in tolerated.values())
    assert rules["demo-gateway"] == rules["demo-feed"] == "DoNotSchedule"
    assert rules["demo-post"] == "ScheduleAnyway", "one replica is enough"


def test_every_object_has_an_owner_and_the_platforms_label(everything: list[Manifest]) -> None:
    for one in everything:
        assert one["metadata"]["labels"]["fanfold.dev/platform"] == "demo"
        assert one["metadata"]["ownerReferences"][0]["controller"] is True
        assert one["metadata"]["namespace"] == "prod"


def test_only_the_gateway_is_reachable_from_outside(everything: list[Manifest]) -> None:
    services = {one["metadata"]["name"]: one["spec"] for one in everything if one["kind"] == "Service"}
    assert {name for name, spec in services.items() if spec.get("type", "ClusterIP") != "ClusterIP"} == {"demo-gateway"}
    workers = {meta.child_name("demo", one.name) for one in COMPONENTS if not one.serves}
    for name, spec in services.items():
        ports = {port["targetPort"] for port in spec["ports"]}
        assert ports <= ({"admin"} if name in workers else {"http", "store"}), "health and metrics are not for clients"
        assert name not in workers or spec["clusterIP"] == "None"
    for policy in [one for one in everything if one["kind"] == "NetworkPolicy"]:
        for rule in policy["spec"]["ingress"]:
            traffic = any(port["port"] == 8000 for port in rule["ports"])
            assert "from" in rule or (traffic and policy["metadata"]["name"] == "demo-gateway")


def test_the_gateway_may_read_one_config_map(everything: list[Manifest]) -> None:
    roles = [one for one in everything if one["kind"] == "Role"]
    assert [one["metadata"]["name"] for one in roles] == ["demo-gateway"]
    assert roles[0]["rules"] == [
        {
            "apiGroups": [""],
            "resources": ["configmaps"],
            "resourceNames": ["demo-snapshot"],
            "verbs": ["get", "list", "watch"],
        }
    ]


@pytest.mark.parametrize(("replicas", "expected"), [(0, 0), (1, 2), (3, 3), (99, 5)])
def test_replicas_stay_within_bounds_unless_stopped(replicas: int, expected: int) -> None:
    spec = PlatformServiceSpec(platform="demo", component="feed", version="1", image="x", replicas=replicas)
    scaling = Scaling(min=2, max=5)
    assert service.wanted(structs.replace(spec, scaling=scaling)) == expected


def test_a_fixed_size_has_no_autoscaler_and_a_former_one_goes(
    resource: Callable[..., Manifest], view: Callable[..., View]
) -> None:
    spec = {"platform": "demo", "component": "post", "version": "1", "image": "x", "scaling": {"min": 1, "max": 3}}
    live = resource("PlatformService", "demo-post", spec)
    scaler = next(one for one in service.plan(view(live)).apply if one["kind"] == "HorizontalPodAutoscaler")
    assert scaler["spec"]["metrics"][0]["resource"]["target"] == {"type": "AverageValue", "averageValue": "600m"}
    fixed = resource("PlatformService", "demo-post", {**spec, "scaling": {"min": 2, "max": 2}})
    plan = service.plan(view(fixed, [scaler]))
    assert not any(one["kind"] == "HorizontalPodAutoscaler" for one in plan.apply)
    assert plan.delete == (scaler,)
