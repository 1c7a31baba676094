"""Are clients served, and does anything alarm."""

from __future__ import annotations

from typing import Final

from dashboards.grafana import Board, Panel, Row
from dashboards.promql import highest, or_zero, quantiles, rate, series
from dashboards.slos import BURNS, OBJECTIVES, Objective

FEED: Final = 'route="/v1/feed"'


def _share(one: Objective, title: str, description: str) -> Panel:
    good = f"min (1 - {series(one.record('5m'))})"
    return Panel(title, "percentunit", description, (("now", good),), kind="stat", runbook=one.alert)


def _burn(one: Objective, title: str) -> Panel:
    queries = tuple(
        (window, f"max ({series(one.record(window))}) / {one.budget:g}") for window in ("5m", "1h", "6h", "3d")
    )
    return Panel(
        title,
        "short",
        f"{one.promise}. 1 uses the error budget up in 30 days; above {BURNS[0].factor:g} over an hour it alarms.",
        queries,
        runbook=one.alert,
        limit=BURNS[0].factor,
    )


BOARD: Final = Board(
    "overview",
    "Fanfold / Overview",
    "Objectives, what is left of their budgets, and what alarms. Look here first.",
    (
        Row(
            "Now",
            (
                _share(OBJECTIVES[0], "Answered", "Requests without a server error, over 5 minutes."),
                _share(OBJECTIVES[1], "Feed reads in time", "Feed reads within 250 ms, over 5 minutes."),
                _share(OBJECTIVES[2], "Posts in time", "Deliveries within 5 s of the post, over 5 minutes."),
                Panel(
                    "Alerts firing",
                    "short",
                    "Critical and warning together. Zero is normal; the table below names them.",
                    (("firing", or_zero('sum(ALERTS{alertname=~"Fanfold.+",alertstate="firing"})')),),
                    kind="stat",
                    limit=1,
                ),
                Panel(
                    "Dead letters",
                    "short",
                    "Messages given up on that wait to be replayed or dropped. Zero is normal.",
                    (("letters", f"sum ({highest('fanfold_dead_letters', 'topic')})"),),
                    kind="stat",
                    runbook="FanfoldDeadLetters",
                    limit=1,
                ),
                Panel(
                    "Requests",
                    "reqps",
                    "All requests answered by the gateways.",
                    (("all", rate("fanfold_gateway_requests_total")),),
                    kind="stat",
                ),
            ),
        ),
        Row(
            "Error budgets",
            (
                _burn(OBJECTIVES[0], "Availability: burn rate"),
                _burn(OBJECTIVES[1], "Feed latency: burn rate"),
                _burn(OBJECTIVES[2], "Freshness: burn rate"),
            ),
        ),
        Row(
            "Alerts",
            (
                Panel(
                    "Alerts pending and firing",
                    "short",
                    "Each has a runbook in docs/runbooks.",
                    (("", 'ALERTS{alertname=~"Fanfold.+"}'),),
                    kind="table",
                    quiet="no alert is pending or firing",
                ),
            ),
        ),
        Row(
            "What clients see",
            (
                Panel(
                    "Feed read latency at the gateway",
                    "s",
                    "What clients wait for their home feed. Growth while a celebrity posts means that fan-out starves"
                    " readers.",
                    quantiles("fanfold_gateway_request_duration_seconds", FEED),
                    runbook="FanfoldFeedReadsSlow",
                    limit=0.25,
                ),
                Panel(
                    "Requests by status",
                    "reqps",
                    "All answers of the gateway. 5xx should be nothing; 429, and 503 with Retry-After, shed load.",
                    (("{{status}}", rate("fanfold_gateway_requests_total", "status")),),
                    runbook="FanfoldGatewayErrors",
                    stacked=True,
                ),
                Panel(
                    "Age of deliveries",
                    "s",
                    "From a post's commit to its place in warm feeds, 99th percentile of each lane.",
                    (
                        (
                            "{{lane}}",
                            "histogram_quantile(0.99, "
                            + rate("fanfold_fanout_delivery_age_seconds_bucket", "le, lane")
                            + ")",
                        ),
                    ),
                    runbook="FanfoldPostsLate",
                    limit=5,
                ),
            ),
        ),
        Row(
            "Saturation",
            (
                Panel(
                    "CPU by component",
                    "percentunit",
                    "Cores used by all replicas of a component. One that stays at its limit needs more replicas.",
                    (("{{component}}", rate("process_cpu_seconds_total", "component")),),
                    stacked=True,
                ),
                Panel(
                    "Memory by component",
                    "bytes",
                    "Resident memory of the largest replica. Steady growth over days is a leak.",
                    (("{{component}}", highest("process_resident_memory_bytes", "component")),),
                ),
                Panel(
                    "Requests under way by component",
                    "short",
                    "What services work on at this moment. It rises before latency does.",
                    (("{{component}}", f"sum by (component) ({series('fanfold_http_requests_in_flight')})"),),
                ),
            ),
        ),
    ),
)
