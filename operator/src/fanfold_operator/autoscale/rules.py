"""How fast any of the autoscalers may go, and who scales what. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from fanfold_operator.autoscale.decision import Direction, Rules, Step

if TYPE_CHECKING:
    from fanfold.contracts.resources import PlatformServiceSpec

UP_STEPS: Final = (Step(100, 15, percent=True), Step(4, 15))
"""Doubles within seconds of a burst, and the first time more than that."""
DOWN_STEPS: Final = (Step(25, 60, percent=True), Step(1, 60))
"""Shrinks slowly: a feed's crowd comes back."""
SYNC_SECONDS: Final = 15.0
"""Between decisions, as of the HorizontalPodAutoscaler (``--horizontal-pod-autoscaler-sync-period``)."""


class Scaler(StrEnum):
    """Who sets a service's replicas."""

    HPA = "HorizontalPodAutoscaler"
    KEDA = "KEDA"
    OPERATOR = "Operator"
    NOBODY = "Nobody"


@dataclass(frozen=True, slots=True)
class Apis:
    """What the cluster serves beside Kubernetes' own.

    Attributes:
        keda: ScaledObjects.
        gateway: HTTPRoutes.
        pod_metrics: Names of metrics of pods that an adapter provides.
    """

    keda: bool = False
    gateway: bool = False
    pod_metrics: frozenset[str] = frozenset()


def scaler(spec: PlatformServiceSpec, apis: Apis) -> Scaler:
    """Services scale on what Kubernetes measures of pods, workers on what waits for them.

    KEDA cannot only tell what it would do, so a dry run of a worker is the operator's own.
    """
    mode = spec.autoscaling.mode
    if mode == "Off" or spec.scaling.min >= spec.scaling.max:
        return Scaler.NOBODY
    if spec.serves:
        return Scaler.HPA
    return Scaler.KEDA if apis.keda and mode == "Auto" else Scaler.OPERATOR


def rules(spec: PlatformServiceSpec) -> Rules:
    """Bounds and behaviour of one service."""
    windows = spec.autoscaling
    return Rules(
        least=spec.scaling.min,
        most=spec.scaling.max,
        up=Direction(windows.scale_up_window_seconds, UP_STEPS),
        down=Direction(windows.scale_down_window_seconds, DOWN_STEPS),
    )
