"""What alarms, and what is recorded for it. Each alert has a runbook, ``docs/runbooks/<name>.md``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from dashboards.slos import BURNS, BY, DAYS, OBJECTIVES, WINDOWS
from fanfold_operator.planning.upgrade import UNDER_WAY, Phase

HOLD: Final = "2m"
"""Burn rates have windows of their own; this bridges one scrape that went wrong."""
UPGRADE: Final = "fanfold_operator_upgrade_phase_timestamp_seconds"
UPGRADING: Final = f'phase=~"{"|".join(sorted(UNDER_WAY - {Phase.GATING}))}"'
"""A gate takes as long as its LoadTest, which has a deadline of its own."""
UNDONE: Final = f'phase=~"{Phase.REFUSED}|{Phase.ROLLED_BACK}"'
STORES: Final = 'persistentvolumeclaim=~"data-.+-(postgresql|valkey|objectstore)-0"'


@dataclass(frozen=True, slots=True)
class Alert:
    """One rule that alarms.

    Attributes:
        name: CamelCase; rules of one name differ in severity.
        expr: PromQL; true means alarm.
        hold: How long it must hold.
        severity: ``critical`` wakes somebody, ``warning`` waits for the morning.
        summary: One sentence with the labels that matter.
        labels: Further ones, that tell rules of one name apart.
    """

    name: str
    expr: str
    hold: str
    severity: str
    summary: str
    labels: tuple[tuple[str, str], ...] = ()


RECORDS: Final = {
    **{one.record(window): one.ratio(window) for one in OBJECTIVES for window in WINDOWS},
    "fanfold:slot_requests:rate5m": f"sum by ({BY}, service, slot) (rate(fanfold_gateway_upstream_requests_total[5m]))",
    "fanfold:ring_imbalance:ratio_rate5m": f"max by ({BY}, service) (fanfold:slot_requests:rate5m)"
    f" / (avg by ({BY}, service) (fanfold:slot_requests:rate5m) > 0)",
}
"""What is computed once and kept, by name: dashboards and alerts read it."""

BURNING: Final = tuple(
    Alert(
        one.alert,
        one.burning(burn),
        HOLD,
        burn.severity,
        f"{one.promise}: in {{{{ $labels.namespace }}}} the budget of {DAYS} days burns {burn.factor:g} times too fast"
        f" ({burn.spent}).",
        (("window", burn.long),),
    )
    for one in OBJECTIVES
    for burn in BURNS
)

ALERTS: Final = (
    *BURNING,
    Alert(
        "FanfoldCanaryFailing",
        "time() - fanfold_canary_last_success_timestamp_seconds > 120",
        "1m",
        "critical",
        "The canary {{ $labels.instance }} has not seen a post of its own arrive for two minutes.",
    ),
    Alert(
        "FanfoldSnapshotStale",
        "max by (namespace, pod) (fanfold_gateway_snapshot_age_seconds) > 30",
        "1m",
        "warning",
        "Gateway {{ $labels.pod }} has not heard from its snapshot's source for 30 s; it serves from memory.",
    ),
    Alert(
        "FanfoldSnapshotHeldBack",
        "max by (namespace, pod) (fanfold_gateway_snapshot_held) > 0",
        "1m",
        "critical",
        "Gateway {{ $labels.pod }} refuses the newest snapshot and serves from the one before.",
    ),
    Alert(
        "FanfoldRingUneven",
        f"fanfold:ring_imbalance:ratio_rate5m > 1.5 and avg by ({BY}, service) (fanfold:slot_requests:rate5m) > 5",
        "15m",
        "warning",
        "One replica of {{ $labels.service }} in {{ $labels.namespace }} gets {{ $value | humanize }} times the mean.",
    ),
    Alert(
        "FanfoldOutboxStuck",
        "max by (namespace, schema) (fanfold_outbox_oldest_seconds) > 60",
        "2m",
        "critical",
        "Events of {{ $labels.schema }} wait for a minute in the outbox: feeds and notifications fall behind.",
    ),
    Alert(
        "FanfoldFanoutBehind",
        f'max by ({BY}, topic) (fanfold_stream_oldest_seconds{{group="feed-worker",topic=~"posts|fanout-small"}}) > 30',
        "3m",
        "critical",
        "Posts in {{ $labels.namespace }} reach feeds half a minute late: {{ $labels.topic }} has a backlog.",
    ),
    Alert(
        "FanfoldBacklogOld",
        "max by (namespace, topic, group) (fanfold_stream_oldest_seconds) > 120",
        "5m",
        "warning",
        "{{ $labels.group }} is two minutes behind on {{ $labels.topic }}.",
    ),
    Alert(
        "FanfoldDeadLetters",
        f"max by ({BY}, topic) (fanfold_dead_letters) > 0",
        "1m",
        "warning",
        "{{ $value }} messages of {{ $labels.topic }} in {{ $labels.namespace }} were given up on, and wait.",
    ),
    Alert(
        "FanfoldStorageFilling",
        f"kubelet_volume_stats_available_bytes{{{STORES}}}"
        f" / kubelet_volume_stats_capacity_bytes{{{STORES}}} < 0.2"
        f" and predict_linear(kubelet_volume_stats_available_bytes{{{STORES}}}[6h], 4 * 86400) < 0",
        "15m",
        "warning",
        "{{ $labels.persistentvolumeclaim }} in {{ $labels.namespace }} will be full within four days.",
    ),
    Alert(
        "FanfoldStorageFilling",
        f"kubelet_volume_stats_available_bytes{{{STORES}}} / kubelet_volume_stats_capacity_bytes{{{STORES}}} < 0.05",
        "1m",
        "critical",
        "{{ $labels.persistentvolumeclaim }} in {{ $labels.namespace }} is full but for 5 %.",
    ),
    Alert(
        "FanfoldOperatorLeaderless",
        "max by (namespace) (fanfold_operator_leader) == 0 or absent(fanfold_operator_leader)",
        "1m",
        "critical",
        "No operator leads: nothing is repaired, scaled or rolled out, and the ring stands still.",
    ),
    Alert(
        "FanfoldOperatorReconcileErrors",
        'sum by (namespace, kind) (rate(fanfold_operator_reconciles_total{result="error"}[10m]))'
        " / sum by (namespace, kind) (rate(fanfold_operator_reconciles_total[10m])) > 0.2",
        "10m",
        "warning",
        "More than one reconcile in five of a {{ $labels.kind }} fails.",
    ),
    Alert(
        "FanfoldOperatorQueueStuck",
        "max by (namespace, pod) (fanfold_operator_queue_oldest_seconds) > 60",
        "2m",
        "critical",
        "A resource has waited for a minute to be reconciled by {{ $labels.pod }}.",
    ),
    Alert(
        "FanfoldSnapshotSlow",
        "histogram_quantile(0.99, sum by (le, namespace) "
        "(rate(fanfold_operator_snapshot_propagation_seconds_bucket[10m]))) > 1",
        "10m",
        "warning",
        "A changed ring takes longer than a second to reach every gateway.",
    ),
    Alert(
        "FanfoldUpgradeSlow",
        f"time() - max by ({BY}, phase) ({UPGRADE}{{{UPGRADING}}}) > 1800",
        "1m",
        "warning",
        "Upgrade of {{ $labels.platform }} in {{ $labels.namespace }} has been {{ $labels.phase }} for half an hour.",
    ),
    Alert(
        "FanfoldUpgradeFailed",
        f"max by ({BY}, phase) ({UPGRADE}{{{UNDONE}}}) > 0",
        "1m",
        "warning",
        "{{ $labels.platform }} in {{ $labels.namespace }} runs its old version: the new one was {{ $labels.phase }}.",
    ),
    Alert(
        "FanfoldAutoscalerFrozen",
        "max by (namespace, service) (fanfold_operator_autoscaler_frozen) > 0",
        "10m",
        "warning",
        "Replicas of {{ $labels.service }} in {{ $labels.namespace }} cannot follow the load: metrics are missing.",
    ),
)
