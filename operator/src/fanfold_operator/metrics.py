"""What the operator measures of itself."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

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
