"""Replicas that follow the load: what is wanted, what there is, and on what it is decided."""

from __future__ import annotations

from typing import Final

from dashboards.grafana import Board, Panel, Row
from dashboards.promql import highest, rate, series

SCOPE: Final = "{namespace}"

BOARD: Final = Board(
    "autoscaling",
    "Fanfold / Autoscaling",
    "What autoscalers want of each service, the replicas there are, and the load both follow.",
    (
        Row(
            "Replicas",
            (
                Panel(
                    "Replicas wanted",
                    "short",
                    "By the autoscaler of each service, whichever it is.",
                    (("{{service}}", highest("fanfold_operator_autoscaler_desired", "service", scope=SCOPE)),),
                ),
                Panel(
                    "Replicas that serve",
                    "short",
                    "Pods that tell their metrics, by component.",
                    (("{{component}}", f"count by (component) ({series('fanfold_build_info')})"),),
                ),
                Panel(
                    "Frozen",
                    "short",
                    "1: a service's replicas cannot follow its load, because metrics are missing.",
                    (("{{service}}", highest("fanfold_operator_autoscaler_frozen", "service", scope=SCOPE)),),
                    runbook="FanfoldAutoscalerFrozen",
                    limit=1,
                ),
            ),
        ),
        Row(
            "Load",
            (
                Panel(
                    "CPU by component",
                    "percentunit",
                    "Cores used, all replicas together. Services scale on it.",
                    (("{{component}}", rate("process_cpu_seconds_total", "component")),),
                ),
                Panel(
                    "Messages waiting by group",
                    "short",
                    "What workers are scaled by.",
                    (("{{group}}", highest("fanfold_backlog_messages", "group")),),
                ),
                Panel(
                    "Scalings by the operator",
                    "cps",
                    "Replicas of workers changed by the operator itself. Up and down in minutes: tight bounds.",
                    (
                        (
                            "{{service}}",
                            rate("fanfold_operator_autoscaler_scalings_total", "service", scope=SCOPE),
                        ),
                    ),
                    quiet="nothing was scaled",
                ),
            ),
        ),
    ),
    served_by="operator",
)
