"""A run of ``fanfold-loadtest`` beside what the platform did meanwhile."""

from __future__ import annotations

from typing import Final

from dashboards.grafana import Board, Panel, Row
from dashboards.promql import quantiles, rate, series

SCOPE: Final = "{run}"

BOARD: Final = Board(
    "loadtest",
    "Fanfold / Load test",
    "What the load generator asks for and sees, beside the platform's own figures. Verdicts are in its report.",
    (
        Row(
            "Seen by the generator",
            (
                Panel(
                    "Requests",
                    "reqps",
                    "Answered, good or not, by all processes of the run.",
                    (("{{outcome}}", rate("fanfold_loadtest_requests_total", "outcome", scope=SCOPE)),),
                    stacked=True,
                ),
                Panel(
                    "Latency from the intended start",
                    "s",
                    "Of the last seconds. The worst of the processes: percentiles do not add up.",
                    (
                        (
                            "p{{quantile}}",
                            f"max by (quantile) ({series('fanfold_loadtest_latency_seconds', scope=SCOPE)})",
                        ),
                    ),
                ),
                Panel(
                    "Arrivals",
                    "reqps",
                    "Drawn beforehand. Over 1 % late or dropped: the generator was too slow, and the run says nothing.",
                    (("{{state}}", rate("fanfold_loadtest_arrivals_total", "state", scope=SCOPE)),),
                ),
            ),
        ),
        Row(
            "Seen by the platform",
            (
                Panel(
                    "Requests at the gateway",
                    "reqps",
                    "By status.",
                    (("{{status}}", rate("fanfold_gateway_requests_total", "status")),),
                    runbook="FanfoldGatewayErrors",
                    stacked=True,
                ),
                Panel(
                    "Feed read latency at the gateway",
                    "s",
                    "Without the way between: what the generator sees on top is network, or its own.",
                    quantiles("fanfold_gateway_request_duration_seconds", 'route="/v1/feed"'),
                    runbook="FanfoldFeedReadsSlow",
                    limit=0.25,
                ),
                Panel(
                    "CPU by component",
                    "percentunit",
                    "Cores used: who saturates first sets the capacity.",
                    (("{{component}}", rate("process_cpu_seconds_total", "component")),),
                    stacked=True,
                ),
            ),
        ),
        Row(
            "The run",
            (
                Panel(
                    "Phase",
                    "short",
                    "1 while it lasts.",
                    (
                        (
                            "{{scenario}} {{phase}}",
                            f"max by (scenario, phase) ({series('fanfold_loadtest_running', scope=SCOPE)})",
                        ),
                    ),
                ),
                Panel(
                    "Requests under way",
                    "short",
                    "At the generator. It rises when the platform answers slower than requests come.",
                    (("under way", f"sum ({series('fanfold_loadtest_requests_in_flight', scope=SCOPE)})"),),
                ),
                Panel(
                    "CPU of the generator",
                    "percentunit",
                    "Cores of each process. Over 0.9 the run is void.",
                    (("{{process}}", series("fanfold_loadtest_cpu_cores", scope=SCOPE)),),
                    limit=0.9,
                ),
            ),
        ),
    ),
    served_by="loadtest",
)
