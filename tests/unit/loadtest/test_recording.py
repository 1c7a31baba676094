"""Histograms over processes, and the verdict on them."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from fanfold_loadtest.comparison import compare
from fanfold_loadtest.documents import parse
from fanfold_loadtest.recording import Age, Recorder, Share, histogram, milliseconds, record
from fanfold_loadtest.scenario import Capacity, Errors, Freshness, Growth, Latency, Leak, Scenario, Slo
from fanfold_loadtest.verdict import Judged, Judgement, Verdict, climb, judge

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


CLIMB = parse(
    """\
name: climbing
description: Three rates, and what must hold at each.
mix: {feed: 1}
phases:
  - {name: warm-up, seconds: 10, rate: 1, measured: false}
  - {name: r5, seconds: 10, rate: 5}
  - {name: r10, seconds: 10, rate: 10}
  - {name: r20, seconds: 10, rate: 20}
""",
    Scenario,
    "x",
)


def step(phase: str, seconds: float = 0.01, failed: int = 0, **facts: object) -> Share:
    """What one process has of a step: a hundred answers."""
    recorder = Recorder(1)
    for number in range(100):
        recorder.add(phase, "feed", 0, seconds, "500" if number < failed else None)
    share = Share(**{"arrivals": 100, **facts})  # type: ignore[arg-type]
    recorder.put_into(share)
    return share


def steps(*of: Share) -> dict[str, Share]:
    return {next(iter(share.cells)): share for share in of}


def capacity(at_least: float, *processes: dict[str, Share]) -> tuple[Verdict, Judged]:
    holding: list[Latency | Errors] = [
        Latency(request="feed", percentile=99, at_most_ms=100),
        Errors(at_most_percent=1),
    ]
    slo = Capacity(at_least=at_least, holding=holding)
    # That the generator was overtaxed at its last step takes nothing from what was shown before.
    shares = [Share(arrivals=100, late=100, steps=one) for one in processes]
    judgement = judge(CLIMB, [slo], Recorder(40), shares)
    return judgement.verdict, judgement.objectives[0]


def test_the_capacity_is_the_step_before_the_first_that_misses_something() -> None:
    broke = steps(step("r5"), step("r10", failed=1), step("r20", seconds=0.2))
    verdict, found = capacity(10, broke)
    assert (verdict, found.held) == (Verdict.PASSED, True)
    assert found.text == (
        "capacity, with p99 of feed at most 100 ms and failed of all requests at most 1 %, "
        "at least 10 requests a second"
    )
    assert found.measured.startswith("10/s held; at 20/s p99 of feed at most 100 ms: 200.")
    assert capacity(11, broke)[0] is Verdict.FAILED
    verdict, found = capacity(5, steps(step("r5", failed=2)))
    assert verdict is Verdict.FAILED
    assert found.measured == "no rate held; at 5/s failed of all requests at most 1 %: 2 % (2 of 100)"


def test_a_run_that_did_not_find_the_end_or_only_the_generators_shows_no_more_than_it_did() -> None:
    assert capacity(10, steps(step("r5"), step("r10")))[0] is Verdict.PASSED
    verdict, found = capacity(20, steps(step("r5"), step("r10")))
    assert (verdict, found.measured) == (Verdict.VOID, "10/s held, the end was not found")
    tired = steps(step("r5"), step("r10"), step("r20", seconds=5, cpu_percent=95.0))
    assert capacity(10, tired)[0] is Verdict.PASSED
    verdict, found = capacity(20, tired)
    assert (verdict, found.measured.partition(":")[0]) == (
        Verdict.VOID,
        "10/s held; at 20/s a generator process used 95 % of a core (at most 90 %)",
    )
    assert capacity(5, {})[0] is Verdict.VOID


def test_a_step_is_judged_when_it_is_over_for_every_process() -> None:
    slo = Capacity(at_least=5, holding=[Errors(at_most_percent=1)])
    good, bad = steps(step("r5")), steps(step("r5"), step("r10", failed=100))
    waiting = climb(slo, CLIMB, [good, bad])
    assert (waiting.held, waiting.end) == (CLIMB.phases[1], None)
    over = climb(slo, CLIMB, [good | steps(step("r10")), bad])
    assert over.end == CLIMB.phases[2]
    assert over.why == "failed of all requests at most 1 %: 50 % (100 of 200)"
    mute = climb(Capacity(at_least=5, holding=[Latency(request="x", percentile=9, at_most_ms=1)]), CLIMB, [good])
    assert (mute.end, mute.why) == (CLIMB.phases[1], "nothing was measured for: p9 of x at most 1 ms")


def test_a_leak_is_told_by_component_beyond_what_is_too_little_to_tell() -> None:
    slo = Leak(of="memory", before="before", phase="during", at_most_percent=10, beyond=32)
    recorder = recorded(before=[0.01])

    def found(before: dict[str, float], during: dict[str, float]) -> tuple[Verdict, str]:
        used = {("memory", "before"): before, ("memory", "during"): during, ("open-files", "during"): {"feed": 9e9}}
        judgement = judge(SCENARIO, [slo], recorder, [Share(arrivals=1)], used=used)
        return judgement.verdict, judgement.objectives[0].measured

    at_first = {"feed": 100.0, "post": 1000.0, "gone": 5.0}
    assert found(at_first, {"feed": 132.0, "post": 1099.0}) == (Verdict.PASSED, "most: post 1000 to 1099 MiB")
    assert found(at_first, {"feed": 133.0, "post": 1101.0}) == (
        Verdict.FAILED,
        "feed 100 to 133 MiB, post 1000 to 1101 MiB",
    )
    assert found({}, at_first) == (Verdict.VOID, "")
    assert verdict([slo], recorder).reasons == (
        "nothing was measured for: memory of each component grows from before to during by at most 10 % or 32 MiB",
    )


def test_two_runs_of_one_thing_do_not_differ_and_of_two_do() -> None:
    chance = np.random.default_rng(3)
    one, same, slower = (recorded(before=list(chance.lognormal(mean, 0.5, size=3_000))) for mean in (-4.0, -4.0, -3.9))
    assert [d.real for d in compare(one, same)] == [False, False]
    assert [d.real for d in compare(one, slower)] == [True, True]
    assert all(d.low > 0 for d in compare(one, slower))


def test_too_few_answers_are_not_compared() -> None:
    few = recorded(before=[0.01] * 49)
    assert compare(few, few) == []
