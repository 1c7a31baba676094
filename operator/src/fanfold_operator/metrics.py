"""What the operator measures of itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from prometheus_client import Counter, Gauge, Histogram

from fanfold_operator import kinds

if TYPE_CHECKING:
    from datetime import datetime

    from fanfold_operator.kinds import Key

api_calls: Final = Counter(
    "fanfold_operator_api_calls", "Calls to the Kubernetes API, beside watches", ["verb", "kind", "status"]
)
reconciles: Final = Counter("fanfold_operator_reconciles", "Reconciles that ended", ["kind", "result"])
reconcile_seconds: Final = Histogram(
    "fanfold_operator_reconcile_seconds",
    "Duration of a reconcile",
    ["kind"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
queue_depth: Final = Gauge("fanfold_operator_queue_depth", "Keys that are due and wait for a worker")
queue_oldest: Final = Gauge("fanfold_operator_queue_oldest_seconds", "How long the oldest due key has waited")
queue_seconds: Final = Histogram(
    "fanfold_operator_queue_seconds",
    "Time a due key waited for a worker",
    buckets=(0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 60),
)
leader: Final = Gauge("fanfold_operator_leader", "1 for the operator that writes, 0 for one that stands by")
event_lag_seconds: Final = Histogram(
    "fanfold_operator_event_lag_seconds",
    "From an object's change, seen by a write or a listing, until its watch told of it",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60),
)
last_event: Final = Gauge("fanfold_operator_last_event_timestamp_seconds", "Unix time of the last watch event")
last_resync: Final = Gauge("fanfold_operator_last_resync_timestamp_seconds", "Unix time of the last full listing")
propagation_seconds: Final = Histogram(
    "fanfold_operator_snapshot_propagation_seconds",
    "From a changed ring until every gateway used its snapshot",
    buckets=(0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 2, 5, 10),
)
ring_epoch: Final = Gauge("fanfold_operator_ring_epoch", "Epoch of the ring", ["namespace", "platform"])
autoscaler_desired: Final = Gauge(
    "fanfold_operator_autoscaler_desired", "Replicas that a service's autoscaler wants", ["namespace", "service"]
)
autoscaler_frozen: Final = Gauge(
    "fanfold_operator_autoscaler_frozen",
    "1 if a service's replicas cannot follow its load because metrics are missing",
    ["namespace", "service"],
)
autoscaler_scalings: Final = Counter(
    "fanfold_operator_autoscaler_scalings", "Replicas changed by the operator itself", ["namespace", "service"]
)


upgrade_since: Final = Gauge(
    "fanfold_operator_upgrade_phase_timestamp_seconds",
    "Unix time since when a platform's newest upgrade is in its phase",
    ["namespace", "platform", "phase"],
)

BY_RESOURCE: Final[dict[str, tuple[str, tuple[Gauge | Counter, ...]]]] = {
    kinds.PLATFORM.kind: ("platform", (upgrade_since,)),
    kinds.HASH_RING.kind: ("platform", (ring_epoch,)),
    kinds.PLATFORM_SERVICE.kind: ("service", (autoscaler_desired, autoscaler_frozen, autoscaler_scalings)),
}
"""What is told of each resource of a kind, and the label that holds its name."""


def tell_scaling(key: Key, desired: int | None, *, frozen: bool) -> None:
    """What is known of the scaling of one service."""
    if desired is not None:
        autoscaler_desired.labels(key.namespace, key.name).set(desired)
    autoscaler_frozen.labels(key.namespace, key.name).set(frozen)


def tell_upgrade(key: Key, phase: str, since: datetime) -> None:
    """How far the upgrade of one platform is."""
    upgrade_since.remove_by_labels({"namespace": key.namespace, "platform": key.name})
    upgrade_since.labels(key.namespace, key.name, phase).set(since.timestamp())


def forget(key: Key) -> None:
    """The resource is gone."""
    label, told = BY_RESOURCE.get(key.kind, ("", ()))
    for metric in told:
        metric.remove_by_labels({"namespace": key.namespace, label: key.name})


def forget_all() -> None:
    """This operator does not lead any more: another one tells. What was counted stays."""
    for _, told in BY_RESOURCE.values():
        for metric in told:
            if isinstance(metric, Gauge):
                metric.clear()
