"""What the chart brings for Prometheus and Grafana: only on request, and only where somebody understands it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "fanfold"
ALL = 'metrics={"podMonitor":true,"rules":true,"dashboards":true,"labels":{"release":"stack"}}'
API = "monitoring.coreos.com/v1"


def render(*options: str) -> list[dict[str, Any]]:
    subprocess.run([ROOT / "tools" / "install-helm.sh"], check=True, timeout=900)
    command = [
        str(ROOT / ".build" / "bin" / "helm"),
        "template",
        "fanfold",
        str(CHART),
        "--namespace",
        "platforms",
        *options,
    ]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert answer.returncode == 0, answer.stderr
    return [one for one in yaml.safe_load_all(answer.stdout) if one]


def made(*options: str) -> dict[str, dict[str, Any]]:
    kinds = {"PodMonitor", "PrometheusRule", "ConfigMap"}
    return {one["kind"]: one for one in render(*options) if one["kind"] in kinds}


@pytest.fixture(scope="module")
def everything() -> dict[str, dict[str, Any]]:
    return made("--set-json", ALL, "--api-versions", API)


def test_nothing_is_made_unless_asked_for() -> None:
    assert made("--api-versions", API) == {}


def test_without_the_api_only_the_dashboards_are_made() -> None:
    assert made("--set-json", ALL).keys() == {"ConfigMap"}


def test_the_monitor_finds_operator_and_platforms_and_names_their_parts(everything: dict[str, Any]) -> None:
    monitor = everything["PodMonitor"]
    assert monitor["metadata"]["labels"]["release"] == "stack"
    assert monitor["spec"]["namespaceSelector"] == {"any": True}
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert endpoint["port"] == "admin"
    assert endpoint["honorLabels"] is True
    assert {one["targetLabel"] for one in endpoint["relabelings"]} == {"platform", "component"}
    (operator,) = [one for one in render() if one["kind"] == "Deployment"]
    template = operator["spec"]["template"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    assert "admin" in {port["name"] for one in template["spec"]["containers"] for port in one["ports"]}


def test_in_one_namespace_it_looks_there_only() -> None:
    options = ("--set-json", ALL, "--set-json", "namespaced=true", "--api-versions", API)
    assert made(*options)["PodMonitor"]["spec"]["namespaceSelector"] == {"matchNames": ["platforms"]}


def test_the_rules_and_dashboards_are_those_of_the_repository(everything: dict[str, Any]) -> None:
    rules = yaml.safe_load((ROOT / "dashboards" / "prometheus" / "rules.yaml").read_text())
    assert everything["PrometheusRule"]["spec"] == rules
    boards = {path.name: json.loads(path.read_text()) for path in (ROOT / "dashboards" / "grafana").glob("*.json")}
    assert {name: json.loads(text) for name, text in everything["ConfigMap"]["data"].items()} == boards
    assert len(json.dumps(everything["ConfigMap"])) < 1_000_000  # what a ConfigMap may hold
