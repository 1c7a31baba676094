"""A run's documents: what is kept, what CI systems show, what people read."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree as ET

import msgspec
import pytest
from typer.testing import CliRunner

from fanfold_loadtest.cli import app
from fanfold_loadtest.html import report, write_all
from fanfold_loadtest.recording import Age, Mark, Recorder, Share
from fanfold_loadtest.results import Document, ResultError, document, read, recorder_of
from fanfold_loadtest.runner import Run
from fanfold_loadtest.scenario import load
from fanfold_loadtest.verdict import judge


def content(*, milliseconds: float = 10, share: Share | None = None, failures: int = 0) -> Document:
    scenario = load("celebrity")
    recorder = Recorder(scenario.seconds)
    for phase in ("before", "during", "after"):
        for number in range(400):
            recorder.add(phase, "feed", number / 4, milliseconds / 1000 * (1 + number / 400), None)
    for _ in range(failures):
        recorder.add("during", "post", 40.0, 0.1, "<script>500</script>")
    part = share or Share(
        arrivals=1_200, ages=[Age("during", 0.3)] * 10, marks=[Mark(41.0, "celebrity posts")], cpu_percent=12
    )
    recorder.put_into(part)
    run = Run(scenario, "http://gateway", 1, datetime(2026, 11, 23, tzinfo=UTC), [part])
    total = Recorder.of(scenario.seconds, [part])
    return document(run, total, judge(scenario, scenario.slos, total, [part]))


def test_a_kept_run_reads_back_with_its_histograms(tmp_path: Path) -> None:
    kept = content()
    write_all(tmp_path / "run", kept)
    again = read(tmp_path / "run" / "result.json")
    assert again == kept
    assert recorder_of(again).total(["before"], "feed").count == 400
    assert again.verdict == "passed"


def test_what_is_no_result_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    for text, message in (("{", "is no result of a run"), ('{"format": 1}', "is no result of a run")):
        path.write_text(text)
        with pytest.raises(ResultError, match=message):
            read(path)
    with pytest.raises(ResultError, match="cannot be read"):
        read(tmp_path / "absent.json")
    path.write_bytes(msgspec.json.encode(msgspec.structs.replace(content(), format=99)))
    with pytest.raises(ResultError, match="format 99, this version reads 1"):
        read(path)


def test_junit_has_a_case_for_each_objective_and_errors_for_a_void_run(tmp_path: Path) -> None:
    write_all(tmp_path, content(milliseconds=1_000))
    suite = ET.parse(tmp_path / "junit.xml").getroot()
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("4", "1", "0")
    assert [case.find("failure") is not None for case in suite] == [True, False, False, False]
    write_all(tmp_path, content(share=Share(arrivals=1_200, late=600, ages=[Age("during", 0.3)])))
    suite = ET.parse(tmp_path / "junit.xml").getroot()
    assert suite.get("errors") == "1"


def test_the_report_needs_nothing_from_elsewhere_and_runs_nothing_it_was_told() -> None:
    page = report(content(failures=3))
    head = page.split("</script>", 1)[1]  # behind Plotly's own code
    assert "http://" not in head.replace("http://gateway", "")
    assert "https://" not in head
    assert "<script>500" not in page
    assert "&lt;script&gt;500" in page
    assert "celebrity posts" in page


def test_comparing_tells_what_grew(tmp_path: Path) -> None:
    for name, kept in (("one", content()), ("same", content()), ("slow", content(milliseconds=20))):
        write_all(tmp_path / name, kept)
    run = CliRunner(env={"COLUMNS": "200"})
    one, same, slow = (str(tmp_path / name / "result.json") for name in ("one", "same", "slow"))
    assert run.invoke(app, ["compare", one, same]).exit_code == 0
    grown = run.invoke(app, ["compare", one, slow, "--html", str(tmp_path / "both.html")])
    assert grown.exit_code == 1
    assert "differs" in grown.stdout
    assert "more than chance" in (tmp_path / "both.html").read_text()
    assert run.invoke(app, ["compare", slow, one]).exit_code == 0
    assert run.invoke(app, ["compare", one, str(tmp_path / "absent")]).exit_code == 3


def test_scenarios_are_listed_with_what_they_show() -> None:
    listed = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["list"])
    assert listed.exit_code == 0
    assert "celebrity" in listed.stdout
    assert "100" in listed.stdout
