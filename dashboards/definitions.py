"""What is shown and what alarms: the only file to edit; the rest follows from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from dashboards.grafana import Panel

FEED: Final = 'route="/v1/feed"'


def quantile(q: float, histogram: str, matchers: str = "", by: str = "") -> str:
    """PromQL of a quantile of a histogram's rate over the dashboard's interval."""
    inside = ",".join(part for part in ("{scope}", matchers) if part)
    group = ", ".join(part for part in ("le", by) if part)
    return f"histogram_quantile({q}, sum by ({group}) (rate({histogram}_bucket{{{inside}}}[$__rate_interval])))"


def rate(counter: str, by: str, matchers: str = "") -> str:
    """PromQL of a counter's rate by some labels."""
    inside = ",".join(part for part in ("{scope}", matchers) if part)
    return f"sum by ({by}) (rate({counter}{{{inside}}}[$__rate_interval]))"


OVERVIEW: Final = (
    Panel(
        "Feed read latency at the gateway",
        "s",
        "What clients wait for their home feed. Growth while a celebrity posts means that fan-out starves readers.",
        tuple(
            (f"p{int(q * 100)}", quantile(q, "fanfold_gateway_request_duration_seconds", FEED))
            for q in (0.5, 0.9, 0.99)
        ),
    ),
    Panel(
        "Requests by status",
        "reqps",
        "All answers of the gateway. 5xx should be nothing; 429 and 503 with Retry-After are load being shed.",
        (("{{status}}", rate("fanfold_gateway_requests_total", "status")),),
    ),
    Panel(
        "Age of deliveries",
        "s",
        "From a post's commit to its place in warm feeds, by lane.",
        (("{{lane}} p99", quantile(0.99, "fanfold_fanout_delivery_age_seconds", by="lane")),),
    ),
    Panel(
        "Deliveries",
        "short",
        "Pushes into feeds a second, by feed: warm ones took the post, cold ones will be rebuilt when read.",
        (("{{feed}}", rate("fanfold_fanout_deliveries_total", "feed")),),
    ),
    Panel(
        "Oldest message not acknowledged",
        "s",
        "Backlog of each consumer group. A steady rise means more workers are needed, or one message is stuck.",
        (("{{topic}} {{group}}", "max by (topic, group) (fanfold_stream_oldest_seconds{{scope}})"),),
    ),
    Panel(
        "Oldest event not relayed",
        "s",
        "Outbox rows that have not reached their stream. Should be about nothing.",
        (("{{schema}}", "max by (schema) (fanfold_outbox_oldest_seconds{{scope}})"),),
    ),
    Panel(
        "Feed reads by outcome",
        "reqps",
        "Warm reads take two round trips to Valkey; others had to be rebuilt from SQL first.",
        (("{{outcome}}", rate("fanfold_feed_reads_total", "outcome")),),
    ),
    Panel(
        "Age of the snapshot",
        "s",
        "Time since each gateway last heard from its snapshot's source. Over 10 s both watch and poll fail.",
        (("{{pod}}", "max by (pod) (fanfold_gateway_snapshot_age_seconds{{scope}})"),),
    ),
    Panel(
        "Load of the ring's slots",
        "reqps",
        "Requests by slot. Bounded load keeps every slot within 1.25 times the mean.",
        (("{{slot}}", rate("fanfold_gateway_upstream_requests_total", "slot")),),
    ),
)


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert; its runbook is ``docs/runbooks/<name>.md``.

    Attributes:
        name: CamelCase.
        expr: PromQL; true means alarm.
        hold: How long it must hold.
        severity: ``critical`` wakes somebody, ``warning`` waits for the morning.
        summary: One sentence with the labels that matter.
    """

    name: str
    expr: str
    hold: str
    severity: str
    summary: str


ALERTS: Final = (
    Alert(
        "FanfoldFeedReadsSlow",
        "histogram_quantile(0.99, sum by (le, namespace) "
        '(rate(fanfold_gateway_request_duration_seconds_bucket{route="/v1/feed"}[5m]))) > 0.25',
        "5m",
        "critical",
        "One feed read in a hundred takes longer than 250 ms in {{ $labels.namespace }}.",
    ),
    Alert(
        "FanfoldGatewayErrors",
        'sum by (namespace) (rate(fanfold_gateway_requests_total{status=~"5.."}[5m]))'
        " / sum by (namespace) (rate(fanfold_gateway_requests_total[5m])) > 0.01",
        "5m",
        "critical",
        "More than 1 % of the answers in {{ $labels.namespace }} are server errors.",
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
        "FanfoldOutboxStuck",
        "max by (namespace, schema) (fanfold_outbox_oldest_seconds) > 60",
        "2m",
        "critical",
        "Events of {{ $labels.schema }} wait for a minute in the outbox: feeds and notifications fall behind.",
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
        'sum by (namespace, topic, group) (increase(fanfold_events_handled_total{outcome="dead"}[10m])) > 0',
        "0m",
        "warning",
        "{{ $labels.group }} gave up on messages of {{ $labels.topic }}.",
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
        "FanfoldAutoscalerFrozen",
        "max by (namespace, service) (fanfold_operator_autoscaler_frozen) > 0",
        "10m",
        "warning",
        "Replicas of {{ $labels.service }} in {{ $labels.namespace }} cannot follow the load: metrics are missing.",
    ),
)
