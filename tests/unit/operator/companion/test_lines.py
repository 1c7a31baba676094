"""`kubectl fanfold logs`: lines read, chosen and merged."""

from __future__ import annotations

import re

import pytest

from fanfold_operator.companion import render
from fanfold_operator.companion.lines import Choice, Line, merged, read, seconds

ENTRY = (
    '{"level": "warning", "event": "slow_query", "ms": 812, "timestamp": "x", "service": "feed", "request_id": "r1"}'
)


def test_a_structured_line_is_taken_apart() -> None:
    line = read("feed", "demo-feed-a", f"2026-01-02T03:04:05.678901234Z {ENTRY}\n")
    assert (line.level, line.event, line.fields) == ("warning", "slow_query", {"ms": 812, "request_id": "r1"})
    assert render.line(line).plain == "demo-feed-a 03:04:05.678 warning slow_query ms=812 request_id=r1"


@pytest.mark.parametrize("text", ["LOG:  checkpoint starting: time", "12", "", "{broken", '["a"]'])
def test_a_line_that_is_not_ours_is_shown_as_it_is(text: str) -> None:
    line = read("postgresql", "demo-postgresql-0", f"2026-01-02T03:04:05Z {text}")
    assert (line.text, line.event, line.level) == (text, text, None)


def test_levels_and_patterns_choose() -> None:
    warning, plain = read("feed", "a", f"t {ENTRY}"), read("postgresql", "b", "t LOG: slow")
    assert [Choice()(one) for one in (warning, plain)] == [True, True]
    assert [Choice("warning")(one) for one in (warning, plain)] == [True, False]
    assert [Choice("error")(one) for one in (warning, plain)] == [False, False]
    assert [Choice(pattern=re.compile("slow"))(one) for one in (warning, plain)] == [True, True]
    assert [Choice(pattern=re.compile("812"))(one) for one in (warning, plain)] == [True, False]


def test_lines_of_several_pods_come_in_the_order_of_time() -> None:
    first = [Line("feed", "a", "2026-01-01T00:00:01Z", "1"), Line("feed", "a", "2026-01-01T00:00:03Z", "3")]
    second = [Line("post", "b", "2026-01-01T00:00:02Z", "2")]
    assert [line.text for line in merged([first, second])] == ["1", "2", "3"]


def test_durations_are_those_people_write() -> None:
    assert [seconds(text) for text in ("90s", "5m", "2h30m", "1d")] == [90, 300, 9000, 86400]


@pytest.mark.parametrize("text", ["", "5", "m", "0s", "5m ", "-5m", "5 minutes"])
def test_other_durations_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="write 90s"):
        seconds(text)


def test_a_line_holds_no_markup() -> None:
    line = read("feed", "a", "2026-01-02T03:04:05.678Z [bold]x[/bold]")
    assert render.line(line).plain == "a 03:04:05.678 [bold]x[/bold]"
