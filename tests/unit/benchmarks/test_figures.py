"""The pure parts of the benchmarks: what is made of measurements."""

from __future__ import annotations

import json
from collections import Counter
from copy import deepcopy
from typing import Any

import pytest
from common.load import Outcome  # type: ignore[import-not-found]
from common.results import FOLDER, summary  # type: ignore[import-not-found]
from common.tables import spread, table  # type: ignore[import-not-found]
from overload import judge, kept  # type: ignore[import-not-found]
from performance import NAMES, PAGE, page  # type: ignore[import-not-found]


def results() -> dict[str, dict[str, Any]]:
    return {name: json.loads((FOLDER / f"{name}.json").read_text()) for name in NAMES}


def test_a_percentile_is_a_latency_that_was_met() -> None:
    outcome = Outcome(latencies=[number / 1000 for number in range(100, 0, -1)], codes=[200] * 100)
    assert outcome.percentile(0.5) == pytest.approx(51)
    assert outcome.percentile(0.99) == pytest.approx(100)
    assert outcome.percentile(1.0) == pytest.approx(100)
    assert Outcome().percentile(0.99) == 0.0


def test_what_is_no_success_is_an_error() -> None:
    outcome = Outcome(seconds=2.0, statuses=Counter({200: 5, 204: 1, 503: 2, -1: 3}), latencies=[0.1] * 8)
    assert outcome.errors == 5
    assert outcome.rate == 4.0


def test_goodput_counts_what_came_in_time_and_was_due_within() -> None:
    outcome = Outcome(
        statuses=Counter({200: 4, 503: 1, -1: 1}),
        latencies=[0.1, 0.2, 1.5, 0.1, 0.0],
        finished=[0.5, 3.2, 5.0, 9.0, 4.0],
        codes=[200, 200, 200, 200, 503],
    )
    judged = judge(outcome, 3.0, 5.0)
    assert judged["goodput"] == 0.5  # one of two in time, the others due before and after
    assert judged["offered"] == 1.5
    assert judged["shed"] == pytest.approx(1 / 3)
    assert judged["failed"] == 1


def test_what_is_kept_is_the_worst_past_capacity() -> None:
    rows = [{"load": load, "goodput": goodput} for load, goodput in ((0.5, 50), (1.0, 80), (2.0, 100), (3.0, 90))]
    assert kept(rows) == 0.9


def test_rounds_are_shown_with_their_spread() -> None:
    assert spread(summary([1200.0, 900.0, 1000.4])) == "1,000 (900 to 1,200)"
    assert spread(summary([0.123]), 2) == "0.12 (0.12 to 0.12)"


def test_a_table_has_its_numbers_to_the_right() -> None:
    assert table(["a", "b"], [["x", "1"]]) == "| a | b |\n| --- | ---: |\n| x | 1 |"


def test_the_document_is_what_the_results_say() -> None:
    """Nobody edits docs/performance.md: `uv run python benchmarks/performance.py` writes it."""
    assert PAGE.read_text() == page(results())


def test_the_document_follows_the_results() -> None:
    changed = deepcopy(results())
    changed["churn"]["figures"]["errors"] = 77
    changed["gateway"]["machine"]["cpu"] = "another machine"
    written = page(changed)
    assert "**77 errors**" in written
    assert "another machine" in written
