"""The verdict on a run: pure, from what was measured and what must hold.

A run in which the generator was the bottleneck says nothing about the platform: it is void, neither passed nor failed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Final

from fanfold_loadtest.arrivals import percentile
from fanfold_loadtest.recording import Recorder, Tally, milliseconds
from fanfold_loadtest.scenario import ANY, Errors, Freshness, Growth, Latency

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fanfold_loadtest.recording import Age, Share
    from fanfold_loadtest.scenario import Scenario, Slo

MAX_LATE_PERCENT: Final = 1.0
MAX_CPU_PERCENT: Final = 90.0
"""Of one core: a Locust process is one thread, and queues of its own grow above it."""


class Verdict(IntEnum):
    """What came of a run; the value is the exit code."""

    PASSED = 0
    FAILED = 1
    VOID = 2
    BROKEN = 3


@dataclass(frozen=True, slots=True)
class Judged:
    """One objective.

    Attributes:
        text: What was asked.
        measured: What was found, with its unit; empty where there was nothing to measure.
        held: Whether it held; None where nothing was measured.
    """

    text: str
    measured: str
    held: bool | None


@dataclass(frozen=True, slots=True)
class Judgement:
    """The verdict, its reasons in sentences, and each objective."""

    verdict: Verdict
    reasons: tuple[str, ...]
    objectives: tuple[Judged, ...]


def judge(  # noqa: PLR0913 - all that a verdict depends on
    scenario: Scenario,
    slos: Sequence[Slo],
    recorder: Recorder,
    shares: Sequence[Share],
    *,
    interrupted: bool = False,
    mishaps: Sequence[str] = (),
) -> Judgement:
    """Void before failed: what a bottleneck of the generator adds to latencies is not the platform's fault.

    Args:
        scenario: What was run.
        slos: What must hold.
        recorder: The sum of the shares.
        shares: What each process measured.
        interrupted: Somebody ended it early.
        mishaps: What was to be done to the platform meanwhile and could not be: nothing can be said of its effect.
    """
    ages = [age for share in shares for age in share.ages]
    objectives = tuple(_judge(slo, scenario, recorder, ages) for slo in slos)
    reasons = [*_why_void(shares, interrupted=interrupted), *mishaps]
    reasons += [f"nothing was measured for: {one.text}" for one in objectives if one.held is None]
    if reasons:
        return Judgement(Verdict.VOID, tuple(reasons), objectives)
    missed = tuple(f"{one.text}: {one.measured}" for one in objectives if not one.held)
    return Judgement(Verdict.FAILED if missed else Verdict.PASSED, missed, objectives)


def _why_void(shares: Sequence[Share], *, interrupted: bool) -> list[str]:
    arrivals = sum(share.arrivals for share in shares)
    late = sum(share.late + share.dropped for share in shares)
    busiest = max((share.cpu_percent for share in shares), default=0.0)
    reasons = []
    if interrupted:
        reasons.append("the run was interrupted")
    if arrivals == 0:
        reasons.append("no request was sent")
    elif 100 * late / arrivals > MAX_LATE_PERCENT:
        reasons.append(
            f"{100 * late / arrivals:.1f} % of the requests started late or never (at most {MAX_LATE_PERCENT:g} %): "
            "the generator was the bottleneck; give it more processes or cores, or lower the rate"
        )
    if busiest > MAX_CPU_PERCENT:
        reasons.append(
            f"a generator process used {busiest:.0f} % of a core (at most {MAX_CPU_PERCENT:g} %): "
            "give it more processes, or lower the rate"
        )
    return reasons


def _judge(slo: Slo, scenario: Scenario, recorder: Recorder, ages: Sequence[Age]) -> Judged:
    if isinstance(slo, Latency):
        return _latency(slo, _sum(slo, scenario, recorder))
    if isinstance(slo, Errors):
        return _errors(slo, _sum(slo, scenario, recorder))
    if isinstance(slo, Freshness):
        phases = scenario.measured if slo.phase == ANY else (slo.phase,)
        return _freshness(slo, [age.seconds for age in ages if age.phase in phases])
    return _growth(slo, recorder)


def _sum(slo: Latency | Errors, scenario: Scenario, recorder: Recorder) -> Tally:
    phases = scenario.measured if slo.phase == ANY else (slo.phase,)
    return recorder.total(phases, None if slo.request == ANY else slo.request)


def _where(request: str, phase: str) -> str:
    what = "all requests" if request == ANY else request
    return what if phase == ANY else f"{what} in {phase}"


def _latency(slo: Latency, tally: Tally) -> Judged:
    text = f"p{slo.percentile:g} of {_where(slo.request, slo.phase)} at most {slo.at_most_ms:g} ms"
    found = milliseconds(tally.latencies, slo.percentile)
    if math.isnan(found):
        # Answers there were, none of them good: the objective is missed, not unmeasured.
        return Judged(text, "no good answer" if tally.failed else "", False if tally.failed else None)
    return Judged(text, f"{found:.1f} ms", found <= slo.at_most_ms)


def _errors(slo: Errors, tally: Tally) -> Judged:
    text = f"failed of {_where(slo.request, slo.phase)} at most {slo.at_most_percent:g} %"
    if tally.count == 0:
        return Judged(text, "", None)
    found = 100 * tally.failed / tally.count
    return Judged(text, f"{found:.3g} % ({tally.failed} of {tally.count})", found <= slo.at_most_percent)


def _freshness(slo: Freshness, seconds: list[float | None]) -> Judged:
    where = "" if slo.phase == ANY else f" in {slo.phase}"
    text = f"p{slo.percentile:g} of the age at which followers see a post{where} at most {slo.at_most_ms:g} ms"
    if not seconds:
        return Judged(text, "", None)
    found = percentile([math.inf if one is None else one for one in seconds], slo.percentile) * 1000
    if math.isinf(found):
        unseen = sum(one is None for one in seconds)
        return Judged(text, f"{unseen} of {len(seconds)} followers never saw it", held=False)
    return Judged(text, f"{found:.0f} ms", found <= slo.at_most_ms)


def _growth(slo: Growth, recorder: Recorder) -> Judged:
    text = (
        f"p{slo.percentile:g} of {slo.request} grows from {slo.before} to {slo.phase} by at most "
        f"{slo.at_most_percent:g} %" + (f" or {slo.beyond_ms:g} ms" if slo.beyond_ms else "")
    )
    before, after = (
        milliseconds(recorder.total([phase], slo.request).latencies, slo.percentile)
        for phase in (slo.before, slo.phase)
    )
    if math.isnan(before) or math.isnan(after):
        return Judged(text, "", None)
    limit = max(before * (1 + slo.at_most_percent / 100), before + slo.beyond_ms)
    percent = 100 * (after / before - 1)
    return Judged(text, f"{before:.1f} ms to {after:.1f} ms ({percent:+.0f} %)", after <= limit)
