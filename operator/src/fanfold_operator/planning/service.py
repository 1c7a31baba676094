"""A PlatformService: its objects, and its state from its Deployment's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fanfold.contracts.resources import PlatformServiceSpec, parse
from fanfold_operator.autoscale.report import Report, report
from fanfold_operator.autoscale.rules import Scaler, scaler
from fanfold_operator.conditions import Condition, find, merge
from fanfold_operator.kinds import AUTOSCALER, HTTP_ROUTE, SCALED_OBJECT, Key
from fanfold_operator.planning.actions import Actions, View, superfluous
from fanfold_operator.resources import autoscalers, meta, route
from fanfold_operator.resources.workload import Workload

if TYPE_CHECKING:
    from fanfold_operator.kinds import Manifest


def wanted(spec: PlatformServiceSpec) -> int:
    """Replicas to run: what the scaler says within the bounds, or none if it says 0."""
    return spec.replicas and max(spec.scaling.min, min(spec.scaling.max, spec.replicas))


def plan(view: View) -> Actions:
    """Everything one component consists of."""
    if view.paused:
        return Actions()
    spec = parse(PlatformServiceSpec, view.resource)
    workload = Workload(view.resource, spec)
    objects = [workload.service_account()]
    if spec.snapshot:
        objects += workload.snapshot_access()
    objects += [workload.network_policy(), workload.disruption_budget(), workload.service()]
    objects.append(workload.deployment(wanted(spec)))
    who = scaler(spec, view.apis)
    if who is Scaler.HPA:
        objects.append(autoscalers.horizontal(view.resource, spec, view.apis.pod_metrics))
    elif who is Scaler.KEDA:
        objects.append(autoscalers.scaled_object(view.resource, spec))
    if view.apis.gateway and (exposure := route.wanted(spec)):
        objects.append(route.http_route(view.resource, spec, exposure))
    return Actions(tuple(objects), superfluous(view, objects))


def optional(view: View) -> tuple[Key, ...]:
    """Objects of optional APIs that there may be: they are not watched, so they have to be looked at."""
    spec = parse(PlatformServiceSpec, view.resource)
    kinds = []
    if view.apis.keda and not spec.serves:
        kinds.append(SCALED_OBJECT)
    if view.apis.gateway and spec.exposure:
        kinds.append(HTTP_ROUTE)
    return tuple(Key(kind.kind, view.namespace, view.name) for kind in kinds)


def scales(view: View) -> bool:
    """Whether it is the operator itself that scales this service."""
    spec = parse(PlatformServiceSpec, view.resource)
    return not view.paused and bool(spec.replicas) and scaler(spec, view.apis) is Scaler.OPERATOR


def scaling(view: View) -> Report:
    """Who scales, and what came of it."""
    spec = parse(PlatformServiceSpec, view.resource)
    kind = AUTOSCALER if spec.serves else SCALED_OBJECT
    return report(view.resource, spec, view.apis, view.child(kind.kind, view.name), view.scaling)


def status(view: View) -> dict[str, Any]:
    """The status as it should read now."""
    spec = parse(PlatformServiceSpec, view.resource)
    deployment = view.child("Deployment", view.name)
    state = (deployment or {}).get("status", {})
    before = view.resource.get("status", {})
    generation = view.resource["metadata"]["generation"]
    done = rolled_out(deployment)
    scaled = scaling(view)
    conditions = [*_conditions(spec, deployment, rolled_out=done), ownership(view), scaled.condition]
    if exposed := _exposed(view, spec):
        conditions.append(exposed)
    new = {
        "observedGeneration": generation,
        "replicas": state.get("replicas", 0),
        "labelSelector": ",".join(f"{k}={v}" for k, v in meta.selector(spec.platform, spec.component).items()),
        "ready": f"{state.get('availableReplicas', 0)}/{wanted(spec)}",
        "autoscaling": scaled.block,
        "conditions": merge(before.get("conditions", ()), conditions, generation, view.now),
    }
    version = _version(deployment) if done else before.get("version")
    return new | ({"version": version} if version else {})


def ownership(view: View) -> Condition:
    """Whether somebody else declared fields of our objects theirs."""
    if view.conflicts:
        return Condition(
            "OwnershipConflict",
            status=True,
            reason="OwnedByOthers",
            message="; ".join(map(str, view.conflicts)) + ". Give them back (remove them there) or leave them so",
        )
    return Condition("OwnershipConflict", status=False, reason="NoConflict", message="")


def _exposed(view: View, spec: PlatformServiceSpec) -> Condition | None:
    """Whether the Gateway API takes clients to the gateway, if it is to."""
    exposure = route.wanted(spec)
    if exposure is None or exposure.parent_ref is None:
        return None
    if not view.apis.gateway:
        message = (
            f"this cluster does not serve {HTTP_ROUTE.api_version}: install the Gateway API, or choose another "
            "spec.gateway.exposure.type"
        )
        return Condition("Exposed", status=False, reason="ApiMissing", message=message)
    child = view.child(HTTP_ROUTE.kind, view.name) or {}
    for parent in child.get("status", {}).get("parents", ()):
        accepted = find({"status": parent}, "Accepted")
        if accepted is not None:
            is_accepted, message = accepted["status"] == "True", accepted.get("message", "")
            return Condition("Exposed", status=is_accepted, reason=accepted["reason"], message=message)
    message = f"no controller has taken HTTPRoute {view.name} yet: is there a Gateway {exposure.parent_ref.name}?"
    return Condition("Exposed", status=False, reason="Waiting", message=message)


def _version(deployment: Manifest | None) -> str | None:
    labels = (deployment or {}).get("metadata", {}).get("labels", {})
    version: str | None = labels.get("app.kubernetes.io/version")
    return version


def rolled_out(deployment: Manifest | None) -> bool:
    """Whether every replica runs the newest template, as `kubectl rollout status` judges."""
    if deployment is None:
        return False
    state, replicas = deployment.get("status", {}), deployment["spec"].get("replicas", 1)
    return bool(
        _observed(deployment)
        and state.get("updatedReplicas", 0) >= replicas
        and state.get("replicas", 0) == state.get("updatedReplicas", 0)
        and state.get("availableReplicas", 0) >= replicas
    )


def _observed(deployment: Manifest) -> bool:
    """Whether its status is about its spec as it is, and not about an earlier one."""
    return bool(deployment.get("status", {}).get("observedGeneration", 0) >= deployment["metadata"]["generation"])


def _conditions(spec: PlatformServiceSpec, deployment: Manifest | None, *, rolled_out: bool) -> list[Condition]:
    available = (deployment or {}).get("status", {}).get("availableReplicas", 0)
    count = f"{available} of {wanted(spec)} replicas are available"
    stalled = find(deployment, "Progressing")
    failed = find(deployment, "ReplicaFailure")
    why = f"; {failed['message']}" if failed and failed["status"] == "True" else ""
    observes = deployment is not None and _observed(deployment)
    is_stalled = observes and stalled is not None and stalled["reason"] == "ProgressDeadlineExceeded"
    if not wanted(spec):
        ready = Condition("Ready", status=False, reason="Stopped", message="scaled to 0 replicas")
    elif available >= spec.scaling.min:
        ready = Condition("Ready", status=True, reason="Available", message=count)
    else:
        ready = Condition(
            "Ready", status=False, reason="PodsNotReady", message=f"{count}, {spec.scaling.min} needed{why}"
        )
    if is_stalled:
        message = f"no replica of {spec.version} became ready in time{why}; see kubectl describe pods of it"
        degraded = Condition("Degraded", status=True, reason="RolloutStalled", message=message)
    else:
        degraded = Condition("Degraded", status=False, reason="AsExpected", message="")
    if rolled_out:
        progressing = Condition(
            "Progressing", status=False, reason="RolledOut", message=f"all replicas run {spec.version}"
        )
    else:
        progressing = Condition("Progressing", status=not is_stalled, reason="RollingOut", message=count + why)
    return [ready, progressing, degraded]
