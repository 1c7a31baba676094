from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from dashboards.alerts import ALERTS, BURNING, RECORDS
from dashboards.boards import BOARDS
from dashboards.generate import files, main
from dashboards.grafana import ANNOTATIONS, DATASOURCE, Board, Panel, dashboard, expression
from fanfold_loadtest import facts
from tests.unit.dashboards.exposed import TARGET, bare, families, grouped, selectors

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / "dashboards" / "prometheus"
RECORD = re.compile(r"\bfanfold:[a-z0-9_:]+")
FAMILIES = families()
PANELS = [(board, panel) for board in BOARDS for panel in board.panels]


def expressions() -> list[str]:
    shown = [query for _, panel in PANELS for _, query in panel.queries] + facts.queries()
    return [*shown, *(one.query for one in ANNOTATIONS), *(alert.expr for alert in ALERTS), *RECORDS.values()]


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_committed_file_is_what_the_definitions_say(path: Path) -> None:
    assert path.read_text() == files()[path], "run `make dashboards`"


def test_no_generated_file_is_left_over() -> None:
    folders = {path.parent for path in files()}
    written = {path for folder in folders for path in folder.iterdir() if path.suffix == ".json"}
    assert written == {path for path in files() if path.suffix == ".json"}


def test_the_check_tells_which_file_is_stale(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["--check"]) == 0
    path = next(iter(files()))
    monkeypatch.setattr("dashboards.generate.files", lambda: {path: "something else"})
    assert main(["--check"]) == 1
    assert path.name in capsys.readouterr().err


@pytest.mark.parametrize("query", dict.fromkeys(expressions()))
def test_every_metric_that_is_named_exists_and_has_these_labels(query: str) -> None:
    named = [(name, labels) for name, labels in selectors(expression(query)) if not name.startswith("fanfold:")]
    recorded = [labels for name, labels in selectors(expression(query)) if name.startswith("fanfold:")]
    for name, labels in named:
        assert bare(name) in FAMILIES, name
        assert labels <= FAMILIES[bare(name)] | TARGET, name
    assert all(labels <= {"namespace", "platform", "service", "slot"} for labels in recorded)
    known = TARGET.union(*(FAMILIES[bare(name)] for name, _ in named), {"service", "slot"} if recorded else ())
    assert grouped(expression(query)) <= known
    assert named or recorded


def test_every_recorded_series_that_is_read_is_recorded_and_the_reverse() -> None:
    read = {name for query in expressions() for name in RECORD.findall(query)}
    assert read <= RECORDS.keys()
    assert RECORDS.keys() <= read


@pytest.mark.parametrize(("board", "panel"), PANELS, ids=[f"{board.name}: {panel.title}" for board, panel in PANELS])
def test_every_panel_says_what_it_shows_in_which_unit_and_of_whom(board: Board, panel: Panel) -> None:
    assert panel.description.endswith(".")
    assert panel.unit in {"s", "reqps", "cps", "short", "percentunit", "bytes"}
    assert panel.queries
    assert not panel.runbook or panel.runbook in {alert.name for alert in ALERTS}
    for _, query in panel.queries:
        text = expression(query)
        outside = "fanfold_canary_" in text or "ALERTS{" in text  # not of one platform
        assert outside or re.search(r'=~"\$(namespace|operator|scenario)"', text), text
        assert "rate(" not in text or "[$__rate_interval]" in text


def test_titles_and_uids_are_told_apart() -> None:
    assert len({board.name for board in BOARDS}) == len({board.title for board in BOARDS}) == len(BOARDS)
    for board in BOARDS:
        assert len({panel.title for panel in board.panels}) == len(board.panels)
    assert BOARDS[0].name == "overview"


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)
def test_a_dashboard_can_be_pointed_at_any_data_source_and_marks_what_happened(board: Board) -> None:
    content = json.loads(json.dumps(dashboard(board)))
    variables = {one["name"] for one in content["templating"]["list"]}
    assert {"datasource", "namespace", "platform"} <= variables
    text = json.dumps(content["panels"]) + json.dumps(content["annotations"])
    assert set(re.findall(r"\$(namespace|platform|operator|scenario)", text)) <= variables
    assert {one["name"] for one in content["annotations"]["list"]} == {one.name for one in ANNOTATIONS}
    graphs = [panel for panel in content["panels"] if panel["type"] != "row"]
    assert all(target["datasource"] == DATASOURCE for panel in graphs for target in panel["targets"])
    assert len({panel["id"] for panel in content["panels"]}) == len(content["panels"])


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)
def test_no_panel_covers_another(board: Board) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard(board)["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + dx, place["y"] + dy) for dx in range(place["w"]) for dy in range(place["h"])}
        assert not taken & cells
        assert all(x < 24 for x, _ in cells)
        taken |= cells


def test_every_expression_is_parsed_by_promtool(promtool: str, tmp_path: Path) -> None:
    texts = [expression(query).replace("$__rate_interval", "1m") for query in expressions()]
    records = [{"record": f"panel:{number}", "expr": text} for number, text in enumerate(texts)]
    rules = tmp_path / "rules.yaml"
    rules.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": records}]}))
    answer = subprocess.run([promtool, "check", "rules", rules], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    assert f"{len(texts)} rules found" in answer.stdout


def test_the_alerts_fire_when_they_should_and_only_then(promtool: str) -> None:
    answer = subprocess.run(
        [promtool, "test", "rules", "rules_test.yaml"], cwd=FOLDER, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr


def test_every_alert_is_seen_firing() -> None:
    tests = yaml.safe_load((FOLDER / "rules_test.yaml").read_text())["tests"]
    fired = {one["alertname"] for group in tests for one in group["alert_rule_test"] if one["exp_alerts"]}
    assert fired | {alert.name for alert in BURNING} == {alert.name for alert in ALERTS}


def test_what_scrapes_a_cluster_is_a_valid_configuration(promtool: str, tmp_path: Path) -> None:
    # Debian builds Prometheus without the discovery of Kubernetes: the rest of each job is checked.
    content = yaml.safe_load((FOLDER / "prometheus.yaml").read_text())
    for job in content["scrape_configs"]:
        assert job.pop("kubernetes_sd_configs")[0]["role"] in {"pod", "node"}
    (tmp_path / "prometheus.yaml").write_text(yaml.safe_dump(content))
    answer = subprocess.run(
        [promtool, "check", "config", "--syntax-only", tmp_path / "prometheus.yaml"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
