"""The only entry: what comes in, where the ring sends it, and what is refused."""

from __future__ import annotations

from typing import Final

from dashboards.grafana import Board, Panel, Row
from dashboards.promql import highest, or_zero, quantile, rate, series

BOARD: Final = Board(
    "gateway",
    "Fanfold / Gateway and ring",
    "Requests by route and slot, the balance of the ring, snapshots, and what is refused or tried again.",
    (
        Row(
            "Requests",
            (
                Panel(
                    "Requests by route",
                    "reqps",
                    "Answered, by route of the table.",
                    (("{{method}} {{route}}", rate("fanfold_gateway_requests_total", "method, route")),),
                    stacked=True,
                ),
                Panel(
                    "Latency by route",
                    "s",
                    "99th percentile, from a request's first byte to the end of its answer.",
                    (
                        (
                            "{{method}} {{route}}",
                            quantile(0.99, "fanfold_gateway_request_duration_seconds", by="method, route"),
                        ),
                    ),
                    runbook="FanfoldFeedReadsSlow",
                ),
                Panel(
                    "Server errors by route",
                    "reqps",
                    "Answers with 5xx. Nothing is normal; 503 with Retry-After is load being shed.",
                    (
                        (
                            "{{method}} {{route}} {{status}}",
                            rate("fanfold_gateway_requests_total", "method, route, status", 'status=~"5.."'),
                        ),
                    ),
                    runbook="FanfoldGatewayErrors",
                    quiet="no answer was a server error",
                ),
            ),
        ),
        Row(
            "Ring",
            (
                Panel(
                    "Requests by slot",
                    "reqps",
                    "A slot is a replica's place on the ring; a pod that replaces another inherits it.",
                    (("{{slot}}", rate("fanfold_gateway_upstream_requests_total", "slot")),),
                ),
                Panel(
                    "Imbalance of the ring",
                    "short",
                    "The busiest slot of a service against the mean. Bounded load holds requests under way to 1.25.",
                    (("{{service}}", highest("fanfold:ring_imbalance:ratio_rate5m", "service")),),
                    runbook="FanfoldRingUneven",
                    limit=1.5,
                ),
                Panel(
                    "Mean time by slot",
                    "s",
                    "Time a slot takes for a request. One that is slower than its neighbours is sick.",
                    (
                        (
                            "{{slot}}",
                            rate("fanfold_gateway_upstream_seconds_total", "slot")
                            + f" / ({rate('fanfold_gateway_upstream_requests_total', 'slot')} > 0)",
                        ),
                    ),
                ),
            ),
        ),
        Row(
            "Snapshot",
            (
                Panel(
                    "Age of the snapshot",
                    "s",
                    "Since each gateway last heard from its snapshot's source. Over 10 s both watch and poll fail.",
                    (("{{pod}}", highest("fanfold_gateway_snapshot_age_seconds", "pod")),),
                    runbook="FanfoldSnapshotStale",
                    limit=30,
                ),
                Panel(
                    "Epoch in force",
                    "short",
                    "Version of the ring by gateway: lines that part show a gateway that does not follow.",
                    (("{{pod}}", f"min by (pod) ({series('fanfold_gateway_snapshot_epoch')})"),),
                    runbook="FanfoldSnapshotStale",
                ),
                Panel(
                    "Snapshots received",
                    "cps",
                    "By verdict. Those held back or refused have a reason in the gateway's log.",
                    (("{{verdict}}", rate("fanfold_gateway_snapshots_total", "verdict")),),
                    runbook="FanfoldSnapshotHeldBack",
                ),
            ),
        ),
        Row(
            "Overload",
            (
                Panel(
                    "Under way and limits",
                    "short",
                    "Requests under way by service, and the most that its slots take: where they meet, load is shed.",
                    (
                        ("{{service}}", f"sum by (service) ({series('fanfold_gateway_upstream_in_flight')})"),
                        ("{{service}} limit", f"sum by (service) ({series('fanfold_gateway_upstream_limit')})"),
                    ),
                ),
                Panel(
                    "Refused",
                    "reqps",
                    "Shed: a service was at its limit. Limited: a caller was. Rejected: malformed, or no such route.",
                    (
                        ("shed", or_zero(rate("fanfold_gateway_shed_total"))),
                        ("limited", or_zero(rate("fanfold_gateway_limited_total"))),
                        ("rejected", or_zero(rate("fanfold_gateway_rejected_requests_total"))),
                    ),
                    runbook="FanfoldGatewayErrors",
                ),
                Panel(
                    "Second tries",
                    "reqps",
                    "Retries on another slot, hedges of slow reads, and retries that the budget forbade.",
                    (
                        ("retries", rate("fanfold_gateway_retries_total")),
                        ("denied", rate("fanfold_gateway_retries_denied_total")),
                        ("hedges", rate("fanfold_gateway_hedges_total")),
                    ),
                ),
            ),
        ),
        Row(
            "Connections",
            (
                Panel(
                    "Clients connected",
                    "short",
                    "TCP connections and, among them, WebSockets.",
                    (
                        ("connections", f"sum ({series('fanfold_gateway_connections')})"),
                        ("websockets", f"sum ({series('fanfold_gateway_websockets')})"),
                    ),
                ),
                Panel(
                    "Notifications pushed",
                    "cps",
                    "Messages sent over WebSockets.",
                    (("pushed", rate("fanfold_gateway_websocket_messages_total")),),
                ),
                Panel(
                    "Connections to slots",
                    "short",
                    "Kept alive by the gateways, by service.",
                    (("{{service}}", f"sum by (service) ({series('fanfold_gateway_upstream_connections')})"),),
                ),
            ),
        ),
    ),
)
