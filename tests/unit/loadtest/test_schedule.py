"""When requests begin: the processes' shares add up to one process of the whole rate."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from fanfold_loadtest.arrivals import constant
from fanfold_loadtest.documents import parse
from fanfold_loadtest.scenario import Scenario
from fanfold_loadtest.schedule import arrivals, begins, events

SCENARIO = """\
name: two-steps
description: First slow, then fast.
arrivals: ARRIVALS
mix: {feed: 3, post: 1}
phases:
  - {name: slow, seconds: 40, rate: 20, events: [{at: 39, does: celebrity-post}]}
  - {name: fast, seconds: 20, rate: 100, events: [{at: 1, does: celebrity-post}]}
"""
POISSON = parse(SCENARIO.replace("ARRIVALS", "poisson"), Scenario, "x")
CONSTANT = parse(SCENARIO.replace("ARRIVALS", "constant"), Scenario, "x")


def test_gaps_of_each_phase_are_exponential_however_many_processes_share_the_rate() -> None:
    for of in (1, 3):
        merged = sorted(one.at for index in range(of) for one in arrivals(POISSON, 7, index, of))
        for phase, begin in begins(POISSON):
            gaps = np.diff([at for at in merged if begin <= at < begin + phase.seconds])
            assert stats.kstest(gaps, "expon", args=(0, 1 / phase.rate)).pvalue > 0.01
            expected = phase.rate * phase.seconds
            assert abs(len(gaps) - expected) < 4 * expected**0.5


def test_the_same_seed_draws_the_same_and_another_something_else() -> None:
    assert arrivals(POISSON, 7) == arrivals(POISSON, 7)
    assert arrivals(POISSON, 7) != arrivals(POISSON, 8)
    assert {one.at for one in arrivals(POISSON, 7, 0, 2)}.isdisjoint(one.at for one in arrivals(POISSON, 7, 1, 2))


def test_even_arrivals_of_several_processes_interleave_evenly() -> None:
    merged = sorted(one.at for index in range(4) for one in arrivals(CONSTANT, 1, index, 4) if one.phase == "fast")
    assert len(merged) == 2_000
    assert np.allclose(np.diff(merged), 0.01)


def test_kinds_come_in_their_proportion() -> None:
    drawn = [one.action for one in arrivals(POISSON, 7)]
    assert drawn.count("feed") / len(drawn) == pytest.approx(0.75, abs=0.03)


def test_arrivals_are_in_order_and_numbered() -> None:
    drawn = arrivals(POISSON, 7)
    assert [one.at for one in drawn] == sorted(one.at for one in drawn)
    assert [one.number for one in drawn] == list(range(len(drawn)))


def test_events_count_from_the_beginning_of_the_run() -> None:
    assert [(at, phase.name) for at, phase, _ in events(POISSON)] == [(39.0, "slow"), (41.0, "fast")]


def test_even_starts_refuse_nonsense() -> None:
    with pytest.raises(ValueError, match="positive"):
        constant(0, 1)
    with pytest.raises(ValueError, match="offset"):
        constant(10, 1, offset=0.2)
