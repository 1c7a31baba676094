"""The decision holds what the HorizontalPodAutoscaler promises, whatever the load does."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanfold_operator.autoscale.decision import TOLERANCE, Direction, Memory, Metric, Rules, Step, asked, decide

UP = Direction(0, (Step(100, 15, percent=True), Step(4, 15)))
DOWN = Direction(300, (Step(25, 60, percent=True), Step(1, 60)))
RULES = Rules(1, 10, UP, DOWN)
NOW = 10_000.0

counts = st.integers(1, 200)
values = st.floats(0, 1e7, allow_nan=False)
targets = st.floats(0.1, 1e4)
steps = st.builds(Step, st.integers(1, 400), st.integers(1, 1800), st.booleans())
directions = st.builds(Direction, st.integers(0, 3600), st.lists(steps, min_size=1, max_size=3).map(tuple))
moments = st.floats(NOW - 4000, NOW)


def in_order(pairs: list[tuple[float, int]]) -> tuple[tuple[float, int], ...]:
    return tuple(sorted(pairs))


memories = st.builds(
    Memory,
    st.lists(st.tuples(moments, counts), max_size=8).map(in_order),
    st.lists(st.tuples(moments, st.integers(-50, 50)), max_size=8).map(in_order),
)
metrics = st.builds(
    Metric, st.sampled_from("abc"), st.none() | values, targets, st.booleans(), st.none() | st.integers(0, 500)
)
several = st.lists(metrics, min_size=1, max_size=3).map(tuple)


@st.composite
def rules(draw: st.DrawFn) -> Rules:
    least = draw(counts)
    return Rules(least, draw(st.integers(least, 300)), draw(directions), draw(directions))


@given(counts, st.integers(0, 200), several, rules(), memories)
def test_the_bounds_always_hold(current: int, ready: int, given: tuple[Metric, ...], law: Rules, past: Memory) -> None:
    replicas = decide(current, ready, given, law, past, NOW).replicas
    assert law.least <= replicas <= law.most


@given(counts, st.integers(0, 200), several, rules(), memories)
def test_nothing_shrinks_while_a_metric_is_missing(
    current: int, ready: int, given: tuple[Metric, ...], law: Rules, past: Memory
) -> None:
    unknown = (*given, Metric("gone", None, 1))
    decision = decide(current, ready, unknown, law, past, NOW)
    assert "gone" in decision.missing
    assert decision.replicas >= min(current, law.most)


@given(counts, st.integers(0, 200), metrics, values, values, rules(), memories)
def test_more_load_never_means_fewer_replicas(
    current: int, ready: int, metric: Metric, one: float, other: float, law: Rules, past: Memory
) -> None:
    less, more = sorted([one, other])
    counts = [decide(current, ready, (replace(metric, value=v),), law, past, NOW).replicas for v in (less, more)]
    assert counts == sorted(counts)


@given(st.integers(1, 300), targets, st.floats(-TOLERANCE * 0.99, TOLERANCE * 0.99), st.booleans())
def test_within_tolerance_nothing_changes(current: int, target: float, off: float, shared: bool) -> None:
    value = target * (1 + off) * (current if shared else 1)
    law = Rules(1, 300, UP, DOWN)
    decision = decide(current, current, (Metric("m", value, target, shared),), law, Memory(), NOW)
    assert decision.replicas == current


@given(counts, several, rules(), memories)
def test_shrinking_stops_at_the_most_that_was_recommended_in_the_window(
    current: int, given: tuple[Metric, ...], law: Rules, past: Memory
) -> None:
    replicas = decide(current, current, given, law, past, NOW).replicas
    recent = [count for at, count in past.recommended if at > NOW - law.down.window]
    if replicas < min(current, law.most):
        assert replicas >= min(max(recent, default=0), current)


@given(counts, several, rules(), memories)
def test_growing_stops_at_the_least_that_was_recommended_in_the_window(
    current: int, given: tuple[Metric, ...], law: Rules, past: Memory
) -> None:
    replicas = decide(current, current, given, law, past, NOW).replicas
    recent = [count for at, count in past.recommended if at > NOW - law.up.window]
    if replicas > max(current, law.least):
        assert replicas <= max(min(recent, default=10**9), current)


@given(st.lists(values, min_size=1, max_size=60), st.integers(1, 30))
def test_no_period_sees_a_larger_change_than_its_largest_step(loads: list[float], start: int) -> None:
    """Played over a quarter of an hour of decisions, 15 s apart, that are all carried out."""
    law = Rules(1, 300, Direction(0, (Step(50, 60, percent=True), Step(4, 60))), Direction(0, (Step(2, 60),)))
    current, memory, trace = start, Memory(), [(0.0, start)]
    for number, load in enumerate(loads, 1):
        now = number * 15.0
        decision = decide(current, current, (Metric("lag", load, 100),), law, memory, now)
        memory = decision.memory
        if decision.replicas != current:
            memory = memory.acted(now, decision.replicas - current)
        current = decision.replicas
        trace.append((now, current))
    for (_, before), (at, after) in pairwise(trace):
        start = max((one for one in trace if one[0] <= at - 60), default=trace[0])[1]
        assert after <= max(before, math.ceil(start * 1.5), start + 4)
        assert after >= min(before, max(1, start - 2))


def test_a_burst_doubles_every_quarter_minute_and_calm_takes_the_window() -> None:
    current, memory, seen = 2, Memory(), []
    for number in range(4):
        now = number * 15.0
        decision = decide(current, current, (Metric("lag", 1e6, 100),), RULES, memory, now)
        memory = decision.memory.acted(now, decision.replicas - current)
        current = decision.replicas
        seen.append(current)
    assert seen == [6, 10, 10, 10]
    shrunk = {}
    for number in range(4, 60):
        now = number * 15.0
        decision = decide(current, current, (Metric("lag", 0, 100),), RULES, memory, now)
        memory = decision.memory
        if decision.replicas != current:
            memory = memory.acted(now, decision.replicas - current)
            shrunk[now] = decision.replicas
        current = decision.replicas
    first = min(shrunk)
    assert first == 45 + 300, "the last recommendation of 10 leaves the window after 300 s"
    assert list(shrunk.values()) == [7, 5, 3, 2, 1]
    assert [b - a for a, b in zip(shrunk, list(shrunk)[1:], strict=False)] == [60] * 4


def test_the_start_counts_as_a_recommendation_of_what_is_there() -> None:
    decision = decide(8, 8, (Metric("lag", 0, 100),), RULES, Memory(), NOW)
    assert decision.replicas == 8
    assert "the stabilization window holds 8" in decision.why


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        (Metric("lag", 950, 100), 10),
        (Metric("lag", 430, 100), 4),
        (Metric("lag", 441, 100), 5),
        (Metric("lag", 0, 100), 0),
        (Metric("age", 10, 5, shared=False), 4),
        (Metric("age", 10, 5, shared=False, at_most=3), 3),
        (Metric("age", 600, 5, shared=False, at_most=1), 1),
        (Metric("age", 1, 5, shared=False), 1),
        (Metric("age", float("nan"), 5), None),
    ],
)
def test_what_a_metric_asks_of_four_replicas_of_which_two_are_ready(metric: Metric, expected: int | None) -> None:
    assert asked(metric, 4, 2) == expected


def test_the_reason_names_the_metric_and_what_held_it_back() -> None:
    decision = decide(2, 2, (Metric("messages", 5000, 100), Metric("age", None, 5)), RULES, Memory(), NOW)
    assert decision.why == (
        "messages 5000, target 100 per replica: asks for 50; not known: age, so nothing shrinks; "
        "bounds make it 10; one step leads to 6"
    )
