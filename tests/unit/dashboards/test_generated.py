from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from dashboards.definitions import ALERTS, OVERVIEW, Alert
from dashboards.generate import files
from dashboards.grafana import Panel, expression

ROOT = Path(__file__).resolve().parents[3]
METRIC = re.compile(r"\bfanfold_[a-z_]+")
SUFFIXES = ("_total", "_bucket", "_sum", "_count")


def source_names() -> set[str]:
    """Every metric name in the services' and the operator's code, without the suffixes of the client library."""
    names = set()
    for part in ("platform", "operator"):
        for path in (ROOT / part / "src").rglob("*.py"):
            names |= set(METRIC.findall(path.read_text()))
    return {bare(name) for name in names}


def bare(name: str) -> str:
    for suffix in SUFFIXES:
        name = name.removesuffix(suffix)
    return name


@pytest.mark.parametrize("path", files(), ids=lambda path: path.name)
def test_the_committed_file_is_what_the_definitions_say(path: Path) -> None:
    assert path.read_text() == files()[path], "run `make dashboards`"


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_every_alert_has_a_runbook_that_begins_with_its_name(alert: Alert) -> None:
    assert (ROOT / f"docs/runbooks/{alert.name}.md").read_text().startswith(f"# {alert.name}\n")


def test_every_metric_that_is_shown_or_alarms_exists_in_the_code() -> None:
    shown = [query for panel in OVERVIEW for _, query in panel.queries] + [alert.expr for alert in ALERTS]
    used = {bare(name) for query in shown for name in METRIC.findall(query)}
    assert used <= source_names()
    assert used


@pytest.fixture(scope="module")
def promtool() -> str:
    found = shutil.which("promtool")
    assert found, "tools/install-promtool.sh puts it into .build/bin"
    return found


@pytest.mark.parametrize("panel", OVERVIEW, ids=lambda panel: panel.title)
def test_every_expression_is_scoped_and_parsed_by_promtool(panel: Panel, promtool: str, tmp_path: Path) -> None:
    texts = [
        expression(query).replace("$__rate_interval", "1m").replace("$namespace", ".*") for _, query in panel.queries
    ]
    assert all("namespace=~" in text for text in texts)
    rules = tmp_path / "rules.yaml"
    records = [{"record": f"panel:{number}", "expr": text} for number, text in enumerate(texts)]
    rules.write_text(yaml.safe_dump({"groups": [{"name": "panel", "rules": records}]}))
    answer = subprocess.run([promtool, "check", "rules", rules], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr


def test_the_alerts_fire_when_they_should_and_only_then(promtool: str) -> None:
    folder = ROOT / "dashboards" / "prometheus"
    answer = subprocess.run(
        [promtool, "test", "rules", "rules_test.yaml"], cwd=folder, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
