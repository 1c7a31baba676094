"""Autoscalers of one component, each by the same rules. They act on the PlatformService's scale subresource."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fanfold.contracts.components import ADMIN_PORT
from fanfold_operator import kinds
from fanfold_operator.autoscale import backlog
from fanfold_operator.autoscale.rules import SYNC_SECONDS, rules
from fanfold_operator.resources import meta

if TYPE_CHECKING:
    from collections.abc import Container

    from fanfold.contracts.resources import PlatformServiceSpec
    from fanfold_operator.autoscale.decision import Direction
    from fanfold_operator.kinds import Kind, Manifest

IN_FLIGHT: Final = "fanfold_http_requests_in_flight"
GATEWAY_IN_FLIGHT: Final = "fanfold_gateway_requests_in_flight"


def pod_metric(component: str) -> str:
    """Name of the metric of a component's pods that tells their requests under way."""
    return GATEWAY_IN_FLIGHT if component == "gateway" else IN_FLIGHT


def horizontal(owner: Manifest, spec: PlatformServiceSpec, served: Container[str]) -> Manifest:
    """On CPU, and on requests under way where an adapter has served that metric.

    The target is CPU time per replica, not a share of the request: the two then can be set apart. In mode DryRun it
    measures and may not act.
    """
    metrics = [_resource("cpu", f"{spec.scaling.target_cpu_percent * 10}m")]
    name = pod_metric(spec.component)
    if name in served:
        metrics.append(_pods(name, str(spec.autoscaling.target_in_flight)))
    return _build(
        kinds.AUTOSCALER,
        owner,
        spec,
        scaleTargetRef=_target(owner),
        minReplicas=spec.scaling.min,
        maxReplicas=spec.scaling.max,
        metrics=metrics,
        behavior=_behavior(spec, acts=spec.autoscaling.mode == "Auto"),
    )


def scaled_object(owner: Manifest, spec: PlatformServiceSpec) -> Manifest:
    """KEDA's, on what the workers tell of their group: see `backlog.metrics` for the meaning of both."""
    namespace, name = owner["metadata"]["namespace"], owner["metadata"]["name"]
    url = f"http://{name}.{namespace}.svc:{ADMIN_PORT}/metrics"
    targets = spec.autoscaling
    return _build(
        kinds.SCALED_OBJECT,
        owner,
        spec,
        scaleTargetRef=_target(owner),
        minReplicaCount=spec.scaling.min,
        maxReplicaCount=spec.scaling.max,
        pollingInterval=int(SYNC_SECONDS),
        advanced={"horizontalPodAutoscalerConfig": {"behavior": _behavior(spec, acts=True)}},
        triggers=[
            _trigger(spec, url, backlog.MESSAGES, targets.target_lag, "AverageValue"),
            _trigger(spec, url, backlog.OLDEST, targets.target_age_seconds, "Value"),
        ],
    )


def _trigger(spec: PlatformServiceSpec, url: str, metric: str, target: int, kind: str) -> dict[str, Any]:
    return {
        "type": "metrics-api",
        "name": metric.replace("_", "-"),
        "metricType": kind,
        "metadata": {
            "url": url,
            "format": "prometheus",
            "valueLocation": f'{metric}{{group="{spec.component}"}}',
            "targetValue": str(target),
        },
    }


def _resource(name: str, average: str) -> dict[str, Any]:
    return {"type": "Resource", "resource": {"name": name, "target": {"type": "AverageValue", "averageValue": average}}}


def _pods(name: str, average: str) -> dict[str, Any]:
    target = {"type": "AverageValue", "averageValue": average}
    return {"type": "Pods", "pods": {"metric": {"name": name}, "target": target}}


def _behavior(spec: PlatformServiceSpec, *, acts: bool) -> dict[str, Any]:
    law = rules(spec)
    return {"scaleUp": _direction(law.up, acts=acts), "scaleDown": _direction(law.down, acts=acts)}


def _direction(direction: Direction, *, acts: bool) -> dict[str, Any]:
    policies = [
        {"type": "Percent" if step.percent else "Pods", "value": step.value, "periodSeconds": step.seconds}
        for step in direction.steps
    ]
    select = "Max" if acts else "Disabled"
    return {"stabilizationWindowSeconds": direction.window, "selectPolicy": select, "policies": policies}


def _target(owner: Manifest) -> dict[str, str]:
    return {"apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": owner["metadata"]["name"]}


def _build(kind: Kind, owner: Manifest, spec: PlatformServiceSpec, **body: Any) -> Manifest:
    return meta.manifest(
        kind,
        owner,
        owner["metadata"]["name"],
        platform=spec.platform,
        component=spec.component,
        version=spec.version,
        spec=body,
    )
