"""Histograms over processes, and the verdict on them."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from fanfold_loadtest.comparison import compare
from fanfold_loadtest.documents import parse
from fanfold_loadtest.recording import Age, Recorder, Share, histogram, milliseconds, record
from fanfold_loadtest.scenario import Errors, Freshness, Growth, Latency, Scenario, Slo
from fanfold_loadtest.verdict import Judgement, Verdict, judge

SCENARIO = parse(
    """\
name: shaped
description: Two phases that are measured, one that is not.
mix: {feed: 1, post: 1}
phases:
  - {name: warm-up, seconds: 10, rate: 5, measured: false}
  - {name: before, seconds: 10, rate: 5}
  - {name: during, seconds: 10, rate: 5}
""",
    Scenario,
    "x",
)


def recorded(**phases: list[float]) -> Recorder:
    recorder = Recorder(SCENARIO.seconds)
    for phase, latencies in phases.items():
        for seconds in latencies:
            recorder.add(phase.replace("_", "-"), "feed", 0.0, seconds, None)
    return recorder


def verdict(slos: list[Slo], recorder: Recorder, **facts: object) -> Judgement:
    share = Share(arrivals=1_000, **facts)  # type: ignore[arg-type]
    return judge(SCENARIO, slos, recorder, [share])


@pytest.mark.parametrize("percentile", [50, 90, 99, 99.9])
def test_percentiles_of_a_known_distribution_are_within_two_percent(percentile: float) -> None:
    drawn = np.random.default_rng(1).lognormal(mean=-5, sigma=1, size=100_000)
    filled = histogram()
    for seconds in drawn:
        record(filled, float(seconds))
    exact = float(np.percentile(drawn, percentile)) * 1000
    assert milliseconds(filled, percentile) == pytest.approx(exact, rel=0.02)


def test_shares_add_up_to_what_one_process_would_have_measured() -> None:
    whole, parts = Recorder(30), [Recorder(30) for _ in range(3)]
    for number in range(3_000):
        failure = "503" if number % 100 == 0 else None
        for recorder in (whole, parts[number % 3]):
            recorder.add("before", "feed", number / 100, number / 1e5, failure)
    shares = []
    for part in parts:
        share = Share()
        part.put_into(share)
        shares.append(msgspec.json.decode(msgspec.json.encode(share), type=Share))
    total = Recorder.of(30, shares)
    for percentile in (1, 50, 99, 100):
        one, other = (r.total(["before"], "feed").latencies for r in (whole, total))
        assert milliseconds(one, percentile) == milliseconds(other, percentile)
    assert total.total(["before"], None).failed == 30
    assert {key: tally.count for key, tally in total.timeline.items()} == {
        key: tally.count for key, tally in whole.timeline.items()
    }


def test_a_long_run_has_a_timeline_of_bounded_length() -> None:
    recorder = Recorder(36_000)
    for at in range(0, 36_000, 60):
        recorder.add("p", "feed", at, 0.001, None)
    assert len(recorder.timeline) <= 300


def test_longer_than_a_minute_counts_as_a_minute() -> None:
    filled = histogram()
    record(filled, 300)
    assert milliseconds(filled, 100) == pytest.approx(60_000, rel=0.001)


def test_a_kept_objective_passes_and_a_missed_one_fails_with_its_figure() -> None:
    recorder = recorded(before=[0.010] * 99 + [0.200])
    kept = verdict([Latency(request="feed", percentile=99, at_most_ms=11)], recorder)
    assert kept.verdict is Verdict.PASSED
    missed = verdict([Latency(request="feed", percentile=100, at_most_ms=100)], recorder)
    assert missed.verdict is Verdict.FAILED
    assert missed.reasons[0].startswith("p100 of feed at most 100 ms: 200.")


def test_a_warm_up_counts_for_nothing() -> None:
    recorder = recorded(warm_up=[9.0] * 50, before=[0.01] * 50)
    assert verdict([Latency(percentile=99, at_most_ms=20)], recorder).verdict is Verdict.PASSED


def test_failures_count_against_the_objective_and_all_failing_misses_latency_too() -> None:
    recorder = recorded(before=[0.01] * 98)
    for _ in range(2):
        recorder.add("before", "feed", 0, 0.01, "500")
    assert verdict([Errors(at_most_percent=2)], recorder).verdict is Verdict.PASSED
    missed = verdict([Errors(at_most_percent=1.9)], recorder)
    assert missed.reasons == ("failed of all requests at most 1.9 %: 2 % (2 of 100)",)
    failing = Recorder(30)
    failing.add("before", "feed", 0, 0.01, "500")
    assert verdict([Latency(percentile=50, at_most_ms=1_000)], failing).verdict is Verdict.FAILED


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"late": 11}, "1.1 % of the requests started late"),
        ({"late": 5, "dropped": 6}, "1.1 % of the requests started late or never"),
        ({"cpu_percent": 91.0}, "a generator process used 91 % of a core"),
    ],
)
def test_a_run_whose_generator_was_the_bottleneck_is_void_not_failed(facts: dict[str, object], reason: str) -> None:
    judgement = verdict([Latency(percentile=99, at_most_ms=1)], recorded(before=[5.0] * 10), **facts)
    assert judgement.verdict is Verdict.VOID
    assert judgement.reasons[0].startswith(reason)


def test_a_generator_within_its_limits_is_no_excuse() -> None:
    judgement = verdict([Latency(percentile=99, at_most_ms=1)], recorded(before=[5.0] * 10), late=10, cpu_percent=90.0)
    assert judgement.verdict is Verdict.FAILED


def test_a_run_that_was_interrupted_or_measured_nothing_is_void() -> None:
    recorder = recorded(before=[0.01])
    assert judge(SCENARIO, [], recorder, [Share(arrivals=1)], interrupted=True).verdict is Verdict.VOID
    assert judge(SCENARIO, [], recorder, [Share()]).reasons == ("no request was sent",)
    unmeasured = verdict([Latency(request="post", percentile=50, at_most_ms=1)], recorder)
    assert unmeasured.verdict is Verdict.VOID
    assert unmeasured.reasons == ("nothing was measured for: p50 of post at most 1 ms",)


def test_freshness_counts_those_who_never_saw_the_post() -> None:
    ages = [Age("during", 0.1)] * 9 + [Age("during", None)]
    recorder = recorded(before=[0.01])
    assert verdict([Freshness(percentile=90, at_most_ms=100)], recorder, ages=ages).verdict is Verdict.PASSED
    missed = verdict([Freshness(percentile=91, at_most_ms=60_000)], recorder, ages=ages)
    assert missed.verdict is Verdict.FAILED
    assert "1 of 10 followers never saw it" in missed.reasons[0]


def test_growth_is_measured_from_phase_to_phase_beyond_what_is_too_little_to_tell() -> None:
    recorder = recorded(before=[0.010] * 100, during=[0.015] * 100)
    grown = Growth(request="feed", before="before", phase="during", percentile=99, at_most_percent=10)
    judgement = verdict([grown], recorder)
    assert judgement.verdict is Verdict.FAILED
    assert "10.0 ms to 15.0 ms (+50 %)" in judgement.reasons[0]
    assert verdict([msgspec.structs.replace(grown, beyond_ms=6)], recorder).verdict is Verdict.PASSED


def test_two_runs_of_one_thing_do_not_differ_and_of_two_do() -> None:
    chance = np.random.default_rng(3)
    one, same, slower = (recorded(before=list(chance.lognormal(mean, 0.5, size=3_000))) for mean in (-4.0, -4.0, -3.9))
    assert [d.real for d in compare(one, same)] == [False, False]
    assert [d.real for d in compare(one, slower)] == [True, True]
    assert all(d.low > 0 for d in compare(one, slower))


def test_too_few_answers_are_not_compared() -> None:
    few = recorded(before=[0.01] * 49)
    assert compare(few, few) == []
