from __future__ import annotations

import io
import stat
import time
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from fanfold_loadtest import journey
from fanfold_loadtest.arrivals import Measurement
from fanfold_loadtest.cli import app
from fanfold_loadtest.journey import Outcome, Step
from fanfold_loadtest.plan import Progress
from fanfold_loadtest.report import live, measured, outcome_document, write_json


def test_a_gateway_that_is_not_there_ends_the_demo_with_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journey, "GATEWAY_SECONDS", 0.1)
    result = CliRunner().invoke(app, ["demo", "--url", "http://127.0.0.1:9"])
    assert result.exit_code == 1
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("fanfold-loadtest: find the gateway: ")
    assert "ConnectError" in line


def test_a_run_against_a_wrong_url_ends_in_seconds_with_a_hint(tmp_path: Path) -> None:
    started = time.monotonic()
    result = CliRunner().invoke(app, ["run", "browse", "--url", "http://127.0.0.1:9", "--out", str(tmp_path)])
    assert result.exit_code == 3
    assert time.monotonic() - started < journey.GATEWAY_SECONDS / 2
    (line,) = result.stderr.strip().splitlines()
    assert "is this the gateway's URL? `make dev` serves http://127.0.0.1:8080" in line
    assert list(tmp_path.iterdir()) == []


def test_scenarios_that_act_on_a_cluster_ask_for_one_before_anything_is_made() -> None:
    result = CliRunner().invoke(app, ["run", "ring-churn", "--url", "http://127.0.0.1:9"])
    assert result.exit_code == 3
    assert "give --platform NAMESPACE/NAME" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["demo", "--url", "localhost"], "http://127.0.0.1:30080"),
        (["demo", "--url", "http://x", "--people", "2"], "--people"),
        (["run", "browse", "--url", "http://x", "--rate-factor", "0"], "--rate-factor"),
    ],
)
def test_wrong_options_are_refused_with_a_hint(arguments: list[str], hint: str) -> None:
    result = CliRunner(env={"COLUMNS": "200"}).invoke(app, arguments)
    assert result.exit_code == 2
    assert hint in result.stderr


def test_an_unknown_scenario_is_refused_with_those_there_are() -> None:
    result = CliRunner().invoke(app, ["run", "dream", "--url", "http://127.0.0.1:9"])
    assert result.exit_code == 3
    assert "browse" in result.stderr


def test_the_result_holds_a_password_so_only_its_owner_can_read_it(tmp_path: Path) -> None:
    outcome = Outcome("http://gateway", "abc", "ada_abc", "secret", [Step("post", "30 posts", 1.23456)])
    outcome.feed_reads = Measurement([0.001, 0.002], ["x"], 1)
    path = tmp_path / "result.json"
    write_json(path, outcome_document(outcome, 50))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert '"password": "secret"' in path.read_text()
    assert '"seconds": 1.235' in path.read_text()


def test_figures_are_milliseconds_and_null_where_nothing_was_answered() -> None:
    figures = measured(Measurement([0.001, 0.010], ["x"], 1), 50)
    assert (figures["p50_ms"], figures["p99_ms"], figures["requests"], figures["failures"]) == (1.0, 10.0, 3, 1)
    assert measured(Measurement(), 50)["p50_ms"] is None


LONG = Progress("a-phase-with-a-long-name", 12_345_678, 4_321, 5.2, 13_104.4, 9, 9_999, 12_345, 5_000, 1.0)


@pytest.mark.parametrize("progress", [[], [LONG, LONG]], ids=["before", "while"])
def test_the_live_view_has_three_lines_also_on_a_narrow_terminal(progress: list[Progress]) -> None:
    file = io.StringIO()
    Console(width=80, file=file, force_terminal=True, color_system="truecolor").print(live(progress, 37, 3_600))
    written = file.getvalue()
    assert len(written.splitlines()) == 3
    assert "37 of 3600 s" in written
    assert ("24,691,356 answers" in written) if progress else ("nothing answered yet" in written)
    assert not progress or "10,000 under way, 19,998 late, 24,690 dropped" in written
