"""What a PlatformService's status says of its scaling, whoever does it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from fanfold_operator.autoscale.decision import Metric, asked
from fanfold_operator.autoscale.rules import Apis, Scaler, rules, scaler
from fanfold_operator.conditions import Condition, find
from fanfold_operator.differences import quantity

if TYPE_CHECKING:
    from fanfold.contracts.resources import PlatformServiceSpec
    from fanfold_operator.kinds import Manifest

KIND: Final = "AutoscalingActive"
MISSING: Final = "MetricsMissing"
"""Reason of a condition that is False because nothing is known of the load: replicas are frozen, at least downwards."""


@dataclass(frozen=True, slots=True)
class State:
    """What the operator's own autoscaler last decided of one service.

    Attributes:
        desired: Replicas it wants.
        why: What led there, as of when it last changed.
        missing: Metrics that it does not have.
        scaled_at: When it last changed the replicas, RFC 3339.
    """

    desired: int
    why: str
    missing: tuple[str, ...] = ()
    scaled_at: str | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """The condition, and the status' block ``autoscaling``."""

    condition: Condition
    block: dict[str, Any]

    @property
    def frozen(self) -> bool:
        """Whether replicas cannot follow the load for lack of metrics."""
        return self.condition.reason == MISSING


def report(
    resource: Manifest, spec: PlatformServiceSpec, apis: Apis, child: Manifest | None, state: State | None
) -> Report:
    """What to tell.

    Args:
        resource: The PlatformService with its status as it is.
        spec: Its spec.
        apis: What the cluster serves.
        child: The live HorizontalPodAutoscaler or ScaledObject, if one is there.
        state: Of the operator's own autoscaler, if it decides.
    """
    who, before = scaler(spec, apis), resource.get("status", {}).get("autoscaling", {})
    if who is Scaler.NOBODY:
        off = spec.autoscaling.mode == "Off"
        message = "mode is Off: kubectl scale sets the replicas" if off else "bounds are equal: the size is fixed"
        return Report(_condition("False", "Off" if off else "FixedSize", message), {"by": who})
    if not spec.replicas:
        return Report(_condition("False", "Stopped", "scaled to 0 replicas: scale to 1 to start again"), {"by": who})
    known = find(resource, KIND)
    if who is Scaler.OPERATOR and state is None and known and before.get("by") == who:
        # An operator that has just started knows no better, and writes nothing.
        return Report(_condition(known["status"], known["reason"], known["message"]), before)
    if who is Scaler.OPERATOR:
        found = _own(spec, state)
    elif child is None:
        found = Report(_condition("Unknown", "Waiting", f"{who} is not made yet"), {})
    elif who is Scaler.KEDA:
        found = _keda(spec, child)
    else:
        found = _horizontal(spec, child)
    block = {"by": who, **found.block}
    if "lastScaleTime" in before and "lastScaleTime" not in block:
        block["lastScaleTime"] = before["lastScaleTime"]
    return Report(found.condition, block)


def scaled(before: dict[str, Any], after: dict[str, Any]) -> str | None:
    """What happened between two of the status' blocks, if replicas were changed; None if not."""
    if "desired" not in before or before["desired"] == after.get("desired"):
        return None
    if before.get("lastScaleTime") == after.get("lastScaleTime"):  # a wish only
        return None
    why = f": {after['why']}" if after.get("why") else ""
    return f"scaled from {before['desired']} to {after.get('desired')} by {after['by']}{why}"


def _own(spec: PlatformServiceSpec, state: State | None) -> Report:
    if state is None:
        return Report(_condition("Unknown", "Waiting", "nothing has been measured yet"), {})
    block: dict[str, Any] = {"desired": state.desired, "why": state.why}
    if state.scaled_at:
        block["lastScaleTime"] = state.scaled_at
    if state.missing:
        message = (
            f"not known: {', '.join(state.missing)}; nothing shrinks until a ready pod of {spec.component} tells it"
        )
        return Report(_condition("False", MISSING, message), block)
    return Report(_active(spec), block)


def _horizontal(spec: PlatformServiceSpec, child: Manifest) -> Report:
    status = child.get("status", {})
    if spec.autoscaling.mode == "DryRun":
        block = _would(spec, child)
    else:
        limited = find(child, "ScalingLimited")
        why = limited["message"] if limited and limited["status"] == "True" else ""
        block = {"desired": status["desiredReplicas"], "why": why} if status.get("desiredReplicas") else {}
    if "lastScaleTime" in status:
        block["lastScaleTime"] = status["lastScaleTime"]
    active = find(child, "ScalingActive") or find(child, "AbleToScale")
    if active is None:
        return Report(_condition("Unknown", "Waiting", "the HorizontalPodAutoscaler has not looked yet"), block)
    if active["status"] != "True":
        return Report(_condition("False", MISSING, f"{active['reason']}: {active['message']}"), block)
    return Report(_active(spec), block)


def _would(spec: PlatformServiceSpec, child: Manifest) -> dict[str, Any]:
    """What the metrics of an autoscaler that may not act ask for, before windows and steps."""
    targets = {_name(one): one for one in child["spec"]["metrics"]}
    wants = {}
    for one in child.get("status", {}).get("currentMetrics") or ():
        value, target = _average(one, "current"), _average(targets.get(_name(one), {}), "target")
        if value is not None and target:
            metric = Metric(f"mean {_name(one)}", value, target, shared=False)
            wants[metric] = asked(metric, spec.replicas, spec.replicas) or 0
    if not wants:
        return {}
    most = max(wants, key=lambda metric: wants[metric])
    desired = rules(spec).clamp(wants[most])
    return {"desired": desired, "why": f"dry run: {most.name} asks for {wants[most]}"}


def _name(metric: dict[str, Any]) -> str:
    inner = metric.get("resource") or metric.get("pods", {}).get("metric") or {}
    return str(inner.get("name", ""))


def _average(metric: dict[str, Any], side: str) -> float | None:
    """``averageValue`` of one side of an HPA's metric."""
    inner = metric.get("resource") or metric.get("pods") or {}
    value = inner.get(side, {}).get("averageValue")
    return None if value is None else float(quantity(value))


def _keda(spec: PlatformServiceSpec, child: Manifest) -> Report:
    ready = find(child, "Ready")
    if ready is None:
        return Report(_condition("Unknown", "Waiting", "KEDA has not looked at its ScaledObject yet"), {})
    if ready["status"] != "True":
        return Report(_condition("False", MISSING, f"{ready['reason']}: {ready.get('message', '')}"), {})
    return Report(_active(spec), {"desired": spec.replicas})


def _active(spec: PlatformServiceSpec) -> Condition:
    if spec.autoscaling.mode == "DryRun":
        return _condition("True", "DryRun", "status.autoscaling tells what would be done; nothing is")
    return _condition("True", "Active", "replicas follow the load")


def _condition(status: str, reason: str, message: str) -> Condition:
    return Condition(KIND, status={"True": True, "False": False}.get(status), reason=reason, message=message)
