"""Workers follow what waits for them, by KEDA or by the operator; `replicas` stays with whoever scales."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from fanfold_operator import discovery
from fanfold_operator.autoscale import scaler
from tests.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400), pytest.mark.usefixtures("kubelet")]

WORKER = "demo-feed-worker"
QUICK = {"scaleDownWindowSeconds": 0}


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second in place of 15, a moment in place of a minute."""
    monkeypatch.setattr(scaler, "SYNC_SECONDS", 0.5)
    monkeypatch.setattr(discovery, "REMEMBERED_SECONDS", 0.2)


@pytest.fixture(autouse=True)
def nothing_waits_afterwards(operator: Any) -> Iterator[None]:
    yield
    operator.waiting.clear()


@pytest.fixture
def worker(kube: Any, namespace: str) -> Callable[[], dict[str, Any]]:
    def read() -> dict[str, Any]:
        found: dict[str, Any] = kube.get("PlatformService", namespace, WORKER)
        return found

    return read


@pytest.fixture
def active(condition: Any) -> Callable[[], tuple[str, str]]:
    def read() -> tuple[str, str]:
        found = condition("AutoscalingActive", WORKER, "PlatformService")
        return found.get("status", ""), found.get("reason", "")

    return read


def sized(**autoscaling: Any) -> dict[str, Any]:
    worker = {
        "replicas": {"min": 1, "max": 6},
        "autoscaling": {"targetLag": 100, "targetAgeSeconds": 60, **autoscaling},
    }
    return {"services": {"feed-worker": worker}}


def test_a_worker_grows_with_its_backlog_and_shrinks_in_calm(
    operator: Any, ready: Any, worker: Any, active: Any, kube: Any, namespace: str
) -> None:
    ready(**sized(**QUICK))
    until(lambda: active() == ("True", "Active"))
    assert worker()["status"]["autoscaling"]["by"] == "Operator"
    operator.waiting["feed-worker"] = (450, 2.0)
    until(lambda: worker()["spec"]["replicas"] == 5)
    until(lambda: (kube.get("Deployment", namespace, WORKER) or {})["status"].get("availableReplicas") == 5)
    owners = [
        one["manager"]
        for one in worker()["metadata"]["managedFields"]
        if "f:replicas" in one["fieldsV1"].get("f:spec", {})
    ]
    assert set(owners) <= {scaler.MANAGER}, "the planner does not own replicas"
    until(lambda: "lastScaleTime" in worker()["status"]["autoscaling"])
    block = worker()["status"]["autoscaling"]
    assert block["desired"] == 5
    assert "messages waiting 450, target 100 per replica: asks for 5" in block["why"]

    def told() -> bool:
        events = [one for one in kube.list("Event", namespace) if one["reason"] == "Scaled"]
        return any("from 1 to 5" in one["message"] and one["involvedObject"]["name"] == WORKER for one in events)

    until(told)
    operator.waiting["feed-worker"] = (0, 0.0)
    until(lambda: worker()["spec"]["replicas"] < 5)


def test_nothing_shrinks_while_no_pod_tells_what_waits(
    operator: Any, ready: Any, worker: Any, active: Any, condition: Any
) -> None:
    operator.waiting["feed-worker"] = (300, 1.0)
    ready(**sized(**QUICK))
    until(lambda: worker()["spec"]["replicas"] == 3)
    operator.waiting["feed-worker"] = None
    until(lambda: active() == ("False", "MetricsMissing"))
    message = condition("AutoscalingActive", WORKER, "PlatformService")["message"]
    assert "not known: messages waiting, seconds the oldest waits; nothing shrinks until a ready pod" in message
    assert worker()["spec"]["replicas"] == 3
    operator.waiting["feed-worker"] = (0, 0.0)
    until(lambda: active() == ("True", "Active"))
    until(lambda: worker()["spec"]["replicas"] < 3)


def test_a_dry_run_tells_and_does_nothing(
    operator: Any, ready: Any, worker: Any, active: Any, kube: Any, namespace: str
) -> None:
    operator.waiting["feed-worker"] = (300, 1.0)
    ready(**sized(mode="DryRun"))
    until(lambda: worker()["status"].get("autoscaling", {}).get("desired") == 3)
    assert active() == ("True", "DryRun")
    assert worker()["spec"]["replicas"] == 1
    scale = kube.path("PlatformService", namespace, WORKER) + "/scale"
    kube.call("PATCH", scale, {"spec": {"replicas": 2}}, "application/merge-patch+json")
    until(lambda: (kube.get("Deployment", namespace, WORKER) or {})["spec"]["replicas"] == 2)
    assert worker()["spec"]["replicas"] == 2, "kubectl scale sets it, and it stays"


def test_when_off_or_stopped_nobody_scales(
    operator: Any, ready: Any, worker: Any, active: Any, kube: Any, namespace: str, make_platform: Any
) -> None:
    ready(**sized(mode="Off"))
    until(lambda: active() == ("False", "Off"))
    assert worker()["status"]["autoscaling"] == {"by": "Nobody"}
    make_platform(**sized())
    until(lambda: active() == ("True", "Active"))
    scale = kube.path("PlatformService", namespace, WORKER) + "/scale"
    kube.call("PATCH", scale, {"spec": {"replicas": 0}}, "application/merge-patch+json")
    until(lambda: active() == ("False", "Stopped"))
    operator.waiting["feed-worker"] = (500, 1.0)
    assert worker()["spec"]["replicas"] == 0


OPTIONAL = {
    "scaledobjects": ("keda.sh", "v1alpha1", "ScaledObject"),
    "httproutes": ("gateway.networking.k8s.io", "v1", "HTTPRoute"),
}


@pytest.fixture
def install(kube: Any) -> Iterator[Callable[[str], None]]:
    """Serve a minimal API of this name until the test ends."""
    names: list[tuple[str, str]] = []

    def answers(path: str, code: int) -> bool:
        return bool(kube.client.get(path).status_code == code)

    def make(plural: str) -> None:
        group, version, kind = OPTIONAL[plural]
        free = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
        # The real one of the Gateway API bears this annotation, without which its group is protected.
        approved = {"api-approved.kubernetes.io": "https://github.com/kubernetes-sigs/gateway-api/pull/2466"}
        annotations = approved if group.endswith(".k8s.io") else {}
        definition = {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": f"{plural}.{group}", "annotations": annotations},
            "spec": {
                "group": group,
                "scope": "Namespaced",
                "names": {"kind": kind, "plural": plural, "singular": kind.lower(), "listKind": f"{kind}List"},
                "versions": [
                    {
                        "name": version,
                        "served": True,
                        "storage": True,
                        "subresources": {"status": {}},
                        "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": free, "status": free}}},
                    }
                ],
            },
        }
        kube.apply(definition)
        names.append((definition["metadata"]["name"], f"/apis/{group}/{version}/{plural}"))  # type: ignore[index]
        until(partial(answers, names[-1][1], 200))

    yield make
    for name, path in names:
        kube.delete("CustomResourceDefinition", "", name)
        until(partial(answers, path, 404))


def test_where_keda_is_served_it_scales_the_workers(
    operator: Any,
    ready: Any,
    worker: Any,
    active: Any,
    kube: Any,
    namespace: str,
    install: Any,
    make_platform: Any,
    nudge: Any,
) -> None:
    def scaled_object() -> Any:
        return kube.get("ScaledObject", namespace, WORKER)

    ready(**sized())
    until(lambda: active() == ("True", "Active"))
    install("scaledobjects")
    until(lambda: (nudge("PlatformService", WORKER), scaled_object())[1])
    made = scaled_object()["spec"]
    assert made["scaleTargetRef"] == {"apiVersion": "fanfold.dev/v1alpha1", "kind": "PlatformService", "name": WORKER}
    assert (made["minReplicaCount"], made["maxReplicaCount"]) == (1, 6)
    lag, age = made["triggers"]
    assert lag["metadata"]["url"] == f"http://{WORKER}.{namespace}.svc:9000/metrics"
    assert lag["metadata"]["valueLocation"] == 'fanfold_backlog_messages{group="feed-worker"}'
    assert (lag["metadata"]["targetValue"], age["metadata"]["targetValue"]) == ("100", "60")
    until(lambda: active() == ("Unknown", "Waiting"))
    operator.waiting["feed-worker"] = (500, 1.0)  # must not move us: KEDA scales now
    ready_now = {"type": "Ready", "status": "True", "reason": "ScaledObjectReady", "message": "ok"}
    kube.patch("ScaledObject", namespace, WORKER, {"status": {"conditions": [ready_now]}}, "/status")
    until(lambda: (nudge("PlatformService", WORKER), active() == ("True", "Active"))[1])
    assert worker()["status"]["autoscaling"]["by"] == "KEDA"
    assert worker()["spec"]["replicas"] == 1
    make_platform(**sized(mode="Off"))
    until(lambda: scaled_object() is None)


def test_an_http_route_is_made_where_the_gateway_api_is_served(
    operator: Any,
    ready: Any,
    make_platform: Any,
    condition: Any,
    kube: Any,
    namespace: str,
    install: Any,
    nudge: Any,
) -> None:
    def exposed() -> tuple[str, str]:
        found = condition("Exposed")
        return found.get("status", ""), found.get("reason", "")

    exposure = {"type": "HTTPRoute", "parentRef": {"name": "edge", "namespace": "infra"}, "hostnames": ["feed.test"]}
    make_platform(gateway={"exposure": exposure})
    until(lambda: exposed() == ("False", "ApiMissing"), seconds=180)
    assert "install the Gateway API, or choose another" in condition("Exposed")["message"]
    assert condition("Ready")["status"] == "False"
    install("httproutes")
    route = until(
        lambda: (nudge("PlatformService", "demo-gateway"), kube.get("HTTPRoute", namespace, "demo-gateway"))[1],
        seconds=30,
    )
    assert route["spec"]["parentRefs"] == [{"name": "edge", "namespace": "infra"}]
    assert route["spec"]["hostnames"] == ["feed.test"]
    assert route["spec"]["rules"][0]["backendRefs"] == [{"name": "demo-gateway", "port": 8000}]
    assert kube.get("Service", namespace, "demo-gateway")["spec"]["type"] == "ClusterIP"
    until(lambda: exposed() == ("False", "Waiting"))
    accepted = {"type": "Accepted", "status": "True", "reason": "Accepted", "message": "taken"}
    kube.patch("HTTPRoute", namespace, "demo-gateway", {"status": {"parents": [{"conditions": [accepted]}]}}, "/status")
    until(lambda: (nudge("PlatformService", "demo-gateway"), exposed() == ("True", "Accepted"))[1])
    version = kube.get("HTTPRoute", namespace, "demo-gateway")["metadata"]["resourceVersion"]
    nudge("PlatformService", "demo-gateway")
    until(lambda: condition("Ready")["status"] == "True", seconds=60)
    assert kube.get("HTTPRoute", namespace, "demo-gateway")["metadata"]["resourceVersion"] == version, (
        "not written again"
    )
