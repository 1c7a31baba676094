"""Scenario files: those that come along, and what is said of those with mistakes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from fanfold_loadtest.documents import DocumentError, parse
from fanfold_loadtest.pod import FACTORS
from fanfold_loadtest.scenario import Scenario, built_in, judged_by, load, scaled

GOOD = """\
name: mine
description: Something of my own.
mix: {feed: 1}
phases:
  - name: steady
    seconds: 10
    rate: 5
slos:
  - {kind: errors, at_most_percent: 1}
"""


@pytest.mark.parametrize("name", list(built_in()))
def test_each_scenario_that_comes_along_is_sound_and_judges_itself(name: str) -> None:
    scenario = load(name)
    assert scenario.name == name
    assert scenario.slos


def test_the_scenarios_that_users_ask_for_come_along() -> None:
    wanted = {"browse", "celebrity", "thundering-herd", "follow-storm", "notifications", "upload", "soak", "breakpoint"}
    wanted |= {"ring-churn", "rolling-upgrade"}
    assert wanted <= set(built_in())


def test_every_scenario_is_explained_in_the_documentation() -> None:
    page = (Path(__file__).parents[3] / "docs" / "loadtest.md").read_text()
    assert [name for name in built_in() if f"| `{name}` |" not in page] == []


def test_every_scenario_is_listed_with_the_test_that_runs_it() -> None:
    page = (Path(__file__).parents[3] / "docs" / "evidence" / "loadtest.md").read_text()
    section = page.partition("### Run to their end\n")[2].partition("\n## ")[0]
    told = [line.split(" | ")[0] for line in section.splitlines() if line.startswith("| `")]
    assert sorted(name for cell in told for name in re.findall(r"`([a-z-]+)`", cell)) == sorted(built_in())


def test_a_herd_has_a_person_for_each_read_and_more() -> None:
    herd = load("thundering-herd")
    arrivals = sum(phase.rate * phase.seconds for phase in herd.phases)
    assert arrivals + 2 * arrivals**0.5 < herd.people


@pytest.mark.parametrize(
    ("replace", "by", "message"),
    [
        ("rate: 5", "rate: 0", "mine.yaml:7: phases[0].rate: Expected `float` > 0.0"),
        ("rate: 5", "rate: fast", "mine.yaml:7: phases[0].rate: Expected `float`, got `str`"),
        ("    rate: 5\n", "", "mine.yaml:5: phases[0]: Object missing required field `rate`"),
        (
            "rate: 5",
            "rate: 5\n    speed: 3",
            "mine.yaml:8: phases[0].speed: no such field; there are: events, measured, name, rate, seconds",
        ),
        ("kind: errors", "kind: luck", "mine.yaml:9: slos[0].kind: Invalid value 'luck'"),
        (
            "at_most_percent: 1",
            "at_most_percent: 1, at_most: 1",
            "mine.yaml:9: slos[0].at_most: no such field; there are: ",
        ),
        ("feed: 1", "dream: 1", "mine.yaml:3: mix: Invalid enum value 'dream'"),
        (
            "seconds: 10",
            "seconds: 10\n    events: [{at: 1, does: dance}]",
            "mine.yaml:7: phases[0].events[0].does: Invalid value 'dance'",
        ),
        (
            "seconds: 10",
            "seconds: 10\n    events: [{at: 1, does: scale, service: feed, up: 1}]",
            "mine.yaml:7: phases[0].events[0].up: no such field; there are: at, ",
        ),
        ("name: mine", "name: [", "mine.yaml:3: no YAML: "),
        ("seconds: 10", "seconds: 10\n    events: [{at: 10, does: celebrity-post}]", "an event at 10 s"),
        ("seconds: 10", "seconds: 10\n    measured: false", "phases: none is measured"),
        ("kind: errors", "kind: errors, phase: later", "slos: errors: no measured phase later; there are: steady"),
        ("kind: errors", "kind: errors, request: post", "slos: errors: no request post; there are: *, feed"),
        (
            "{kind: errors, at_most_percent: 1}",
            "{kind: freshness, percentile: 95, at_most_ms: 1}",
            "slos: freshness: nothing is published",
        ),
        (
            "{kind: errors, at_most_percent: 1}",
            "{kind: leak, of: memory, before: first, phase: steady, at_most_percent: 1}",
            "slos: leak: no measured phase first; there are: steady",
        ),
        (
            "{kind: errors, at_most_percent: 1}",
            "{kind: leak, of: patience, before: steady, phase: steady, at_most_percent: 1}",
            "mine.yaml:9: slos[0].of: Invalid enum value 'patience'",
        ),
        (
            "{kind: errors, at_most_percent: 1}",
            "{kind: capacity, at_least: 5, holding: [{kind: errors, phase: steady, at_most_percent: 1}]}",
            "slos: capacity: what must hold is asked of every step: leave phase out",
        ),
        (
            "{kind: errors, at_most_percent: 1}",
            "{kind: capacity, at_least: 5, holding: [{kind: errors, request: post, at_most_percent: 1}]}",
            "slos: errors: no request post; there are: *, feed",
        ),
    ],
)
def test_a_mistake_is_named_with_file_line_field_and_what_is_allowed(
    tmp_path: Path, replace: str, by: str, message: str
) -> None:
    assert replace in GOOD
    path = tmp_path / "mine.yaml"
    path.write_text(GOOD.replace(replace, by))
    with pytest.raises(DocumentError) as caught:
        load(str(path))
    text = str(caught.value)
    assert message in text
    assert "\n" not in text


CAPACITY = "{kind: capacity, at_least: 5, holding: [{kind: errors, at_most_percent: 1}]}"


@pytest.mark.parametrize(
    ("replace", "by", "message"),
    [
        ("rate: 9", "rate: 5", "slos: capacity: the rates of measured phases must rise"),
        ("model: open", "model: closed", "slos: capacity: a closed model has users, not rates"),
        ("slos: [", f"slos: [{CAPACITY}, ", "is there twice"),
    ],
)
def test_steps_on_the_way_to_the_capacity_must_be_some(tmp_path: Path, replace: str, by: str, message: str) -> None:
    steps = "model: open\nphases: [{name: a, seconds: 1, rate: 5}, {name: b, seconds: 1, rate: 9}]\n"
    text = f"{GOOD.partition('phases')[0]}{steps}slos: [{CAPACITY}]"
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    assert load(str(path)).capacity is not None
    assert replace in text
    path.write_text(text.replace(replace, by))
    with pytest.raises(DocumentError, match=message):
        load(str(path))


def test_an_unknown_name_is_answered_with_those_there_are() -> None:
    with pytest.raises(
        DocumentError, match=r"there is no scenario 'dream'; there are: breakpoint, browse, .*or give a"
    ):
        load("dream")


def test_a_file_that_is_not_there_or_empty_is_named(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match=r"absent\.yaml: cannot be read"):
        load(str(tmp_path / "absent.yaml"))
    with pytest.raises(DocumentError, match=r"^nothing: empty$"):
        parse("# nothing\n", Scenario, "nothing")


def test_objectives_of_a_file_are_checked_against_the_scenario(tmp_path: Path) -> None:
    path = tmp_path / "slos.yaml"
    path.write_text("slos: [{kind: latency, request: feed, phase: steady, percentile: 99, at_most_ms: 5}]")
    (slo,) = judged_by(load("browse"), path).slos
    assert slo.at_most_ms == 5  # type: ignore[union-attr]
    with pytest.raises(DocumentError, match=r"slos\.yaml: slos: latency: no measured phase steady"):
        judged_by(load("celebrity"), path)
    assert judged_by(load("browse"), None) == load("browse")


def test_another_size_keeps_the_shape() -> None:
    large = scaled(load("celebrity"), rate=4, time=0.5, people=2)
    before = load("celebrity")
    assert [phase.rate for phase in large.phases] == [phase.rate * 4 for phase in before.phases]
    assert large.seconds == before.seconds / 2
    assert large.phases[2].events[1].at == before.phases[2].events[1].at / 2
    assert large.people == before.people * 2
    with pytest.raises(DocumentError, match="too large or too small"):
        scaled(before, rate=1e9, time=1, people=1)


def test_line_numbers_survive_json_too() -> None:
    with pytest.raises(DocumentError, match=r"^x:1: phases: Expected `array`"):
        parse(json.dumps({"name": "x", "description": "long enough", "mix": {"feed": 1}, "phases": 3}), Scenario, "x")


@pytest.mark.parametrize("profile", FACTORS)
@pytest.mark.parametrize("name", built_in())
def test_every_scenario_can_be_run_in_every_profile(name: str, profile: str) -> None:
    factor = FACTORS[profile]
    wanted, small = scaled(load(name), factor, 1, factor), load(name)
    assert wanted.people == factor * small.people
    assert [one.rate for one in wanted.phases] == [factor * one.rate for one in small.phases]
    assert wanted.seconds == small.seconds
