"""Burn rates over days of simulated traffic, by promtool: which window alarms, and which stays silent."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from dashboards.alerts import BURNING, Alert
from dashboards.grafana import RUNBOOKS
from dashboards.slos import AVAILABILITY, BURNS, FRESHNESS, LATENCY, OBJECTIVES, Burn, Objective

ROOT = Path(__file__).resolve().parents[3]
STEP = 2
"""Minutes between samples: the shortest window must hold two."""
MINUTES = 3 * 24 * 60 + 8 * 60
EVALUATION = 10
PER_STEP = 200_000

Phases = list[tuple[int, float]]
"""Minutes, and how many times the budget is burnt meanwhile."""

TRAFFIC: dict[str, tuple[Phases, tuple[str, ...]]] = {
    "good": ([(MINUTES, 0.5)], ()),
    "sudden": ([(MINUTES - 80, 0), (80, 20)], ("1h",)),
    "over": ([(MINUTES - 100, 0), (70, 28), (30, 0)], ()),
    "steady": ([(MINUTES - 420, 0), (420, 8)], ("6h",)),
    "creeping": ([(MINUTES, 1.5)], ("3d",)),
}
"""By namespace: what happens, and which windows alarm at its end."""


def counter(phases: Phases, per_step: float, budget: float) -> str:
    """What promtool calls a series, of a counter of bad events; budget 0: of all events."""
    parts, value = [], 0.0
    for minutes, burn in phases:
        step = per_step * budget * burn if budget else per_step
        parts.append(f"{value:.0f}+{step:.0f}x{minutes // STEP - 1}")
        value += step * (minutes // STEP)
    return " ".join(parts)


def series(objective: Objective) -> list[dict[str, str]]:
    found = []
    for namespace, (phases, _) in TRAFFIC.items():
        every = counter(phases, PER_STEP, 0)
        bad = counter(phases, PER_STEP, objective.budget)
        good = counter(
            [(m, (1 - objective.budget * x) / objective.budget) for m, x in phases], PER_STEP, objective.budget
        )
        where = f'namespace="{namespace}",platform="p"'
        if objective is AVAILABILITY:
            rows = {f'fanfold_gateway_requests_total{{{where},status="200"}}': good}
            rows[f'fanfold_gateway_requests_total{{{where},status="503"}}'] = bad
        else:
            name, inside, le = {
                LATENCY: ("fanfold_gateway_request_duration_seconds", f'{where},route="/v1/feed"', "0.25"),
                FRESHNESS: ("fanfold_fanout_delivery_age_seconds", where, "5.0"),
            }[objective]
            rows = {f"{name}_count{{{inside}}}": every, f'{name}_bucket{{{inside},le="{le}"}}': good}
        found += [{"series": name, "values": values} for name, values in rows.items()]
    return found


def expected(alert: Alert, burn: Burn) -> list[dict[str, Any]]:
    return [
        {
            "exp_labels": {"namespace": name, "platform": "p", "severity": burn.severity, "window": burn.long},
            "exp_annotations": {
                "summary": alert.summary.replace("{{ $labels.namespace }}", name),
                "runbook_url": f"{RUNBOOKS}{alert.name}.md",
            },
        }
        for name, (_, windows) in TRAFFIC.items()
        if burn.long in windows
    ]


def only(objective: Objective) -> dict[str, Any]:
    """The committed rules of one objective: all of them over three days would take minutes."""
    groups = yaml.safe_load((ROOT / "dashboards/prometheus/rules.yaml").read_text())["groups"]
    for group in groups:
        group["rules"] = [
            rule
            for rule in group["rules"]
            if rule.get("alert") == objective.alert or f":{objective.name}:" in rule.get("record", "")
        ]
    return {"groups": groups}


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda one: one.name)
def test_each_speed_of_burning_alarms_in_its_own_window(objective: Objective, promtool: str, tmp_path: Path) -> None:
    alerts = [(alert, burn) for alert in BURNING for burn in BURNS if alert.labels == (("window", burn.long),)]
    firing = [one for alert, burn in alerts if alert.name == objective.alert for one in expected(alert, burn)]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(only(objective)))
    content = {
        "rule_files": ["rules.yaml"],
        "evaluation_interval": f"{EVALUATION}m",
        "tests": [
            {
                "interval": f"{STEP}m",
                "input_series": series(objective),
                "alert_rule_test": [
                    {"eval_time": f"{MINUTES - EVALUATION}m", "alertname": objective.alert, "exp_alerts": firing},
                    {"eval_time": "300m", "alertname": objective.alert, "exp_alerts": firing[-1:]},
                ],
            }
        ],
    }
    file = tmp_path / "test.yaml"
    file.write_text(yaml.safe_dump(content))
    answer = subprocess.run([promtool, "test", "rules", file], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert len(firing) == len(BURNS)
