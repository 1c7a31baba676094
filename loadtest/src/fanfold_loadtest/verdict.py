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
from fanfold_loadtest.scenario import ANY, Capacity, Errors, Freshness, Latency, Leak

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fanfold_loadtest.recording import Age, Share
    from fanfold_loadtest.scenario import Growth, Phase, Scenario, Slo

    Used = Mapping[tuple[str, str], Mapping[str, float]]
    """By what is used (`scenario.Usage`) and phase: of each component. MiB of memory; files."""

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
    used: Used | None = None,
) -> Judgement:
    """Void before failed: what a bottleneck of the generator adds to latencies is not the platform's fault.

    Args:
        scenario: What was run.
        slos: What must hold.
        recorder: The sum of the shares.
        shares: What each process measured.
        interrupted: Somebody ended it early.
        mishaps: What was to be done to the platform meanwhile and could not be: nothing can be said of its effect.
        used: What the platform's processes used in each phase, where Prometheus told.
    """
    ages = [age for share in shares for age in share.ages]

    def judged(slo: Slo) -> Judged:
        if isinstance(slo, Capacity):
            return _capacity(slo, scenario, shares)
        return _leak(slo, used or {}) if isinstance(slo, Leak) else _judge(slo, scenario, recorder, ages)

    objectives = tuple(judged(slo) for slo in slos)
    reasons = ["the run was interrupted"] if interrupted else []
    # On the way to the capacity the generator may find its own limit: what was shown below that stands.
    reasons += [] if any(isinstance(slo, Capacity) for slo in slos) else overtaxed(shares)
    reasons += mishaps
    reasons += [_unmeasured(one) for one in objectives if one.held is None]
    if reasons:
        return Judgement(Verdict.VOID, tuple(reasons), objectives)
    missed = tuple(f"{one.text}: {one.measured}" for one in objectives if not one.held)
    return Judgement(Verdict.FAILED if missed else Verdict.PASSED, missed, objectives)


def _unmeasured(one: Judged) -> str:
    return f"{one.text}: {one.measured}" if one.measured else f"nothing was measured for: {one.text}"


def overtaxed(shares: Sequence[Share]) -> list[str]:
    """Why these shares tell of the generator, not of the platform; empty if they do not."""
    arrivals = sum(share.arrivals for share in shares)
    late = sum(share.late + share.dropped for share in shares)
    busiest = max((share.cpu_percent for share in shares), default=0.0)
    reasons = []
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


def _judge(
    slo: Latency | Errors | Freshness | Growth, scenario: Scenario, recorder: Recorder, ages: Sequence[Age]
) -> Judged:
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


@dataclass(frozen=True, slots=True)
class Climb:
    """How far a run came on the way to the capacity.

    Attributes:
        held: The last step in which everything held.
        end: The step that is the last for a reason; None: there was none, or it is yet to come.
        missed: What it missed.
        void: Why it says nothing of the platform.
    """

    held: Phase | None
    end: Phase | None = None
    missed: tuple[Judged, ...] = ()
    void: tuple[str, ...] = ()

    @property
    def why(self) -> str:
        """What ended it."""
        return "; ".join([*self.void, *(f"{one.text}: {one.measured}" for one in self.missed)])


def climb(slo: Capacity, scenario: Scenario, steps: Sequence[Mapping[str, Share]]) -> Climb:
    """Judge the steps that are over, in their order, up to the one that misses something.

    Args:
        slo: What must hold in each.
        scenario: What is run.
        steps: Of each process, those that are over for it.
    """
    held = None
    for phase in scenario.phases:
        shares = [of[phase.name] for of in steps if phase.name in of]
        if not phase.measured:
            continue
        if not shares or len(shares) < len(steps):
            break
        if reasons := overtaxed(shares):
            return Climb(held, phase, void=tuple(reasons))
        recorder = Recorder.of(scenario.seconds, shares)
        judged = [_judge(one, scenario, recorder, ()) for one in slo.holding]
        if unmeasured := tuple(_unmeasured(one) for one in judged if one.held is None):
            return Climb(held, phase, void=unmeasured)
        if missed := tuple(one for one in judged if not one.held):
            return Climb(held, phase, missed)
        held = phase
    return Climb(held)


def _capacity(slo: Capacity, scenario: Scenario, shares: Sequence[Share]) -> Judged:
    asked = " and ".join(_judge(one, scenario, Recorder(1), ()).text for one in slo.holding)
    text = f"capacity, with {asked}, at least {slo.at_least:g} requests a second"
    found = climb(slo, scenario, [share.steps for share in shares])
    if found.held is None and found.end is None:
        return Judged(text, "", None)
    reached = f"{found.held.rate:g}/s held" if found.held else "no rate held"
    if found.end is None:
        measured = f"{reached}, the end was not found"
    else:
        measured = f"{reached}; at {found.end.rate:g}/s {found.why}"
    if found.held and found.held.rate >= slo.at_least:
        return Judged(text, measured, held=True)
    return Judged(text, measured, held=False if found.missed else None)


def _leak(slo: Leak, used: Used) -> Judged:
    what, unit = ("memory", "MiB") if slo.of == "memory" else ("open files", "files")
    text = f"{what} of each component grows from {slo.before} to {slo.phase} by at most {slo.at_most_percent:g} %"
    text += f" or {slo.beyond:g} {unit}" if slo.beyond else ""
    first, last = used.get((slo.of, slo.before), {}), used.get((slo.of, slo.phase), {})
    both = sorted(first.keys() & last.keys())
    if not both:
        return Judged(text, "", None)
    leaking = [
        name
        for name in both
        if last[name] > max(first[name] * (1 + slo.at_most_percent / 100), first[name] + slo.beyond)
    ]
    shown = leaking or [max(both, key=lambda name: last[name] - first[name])]
    measured = ", ".join(f"{name} {first[name]:.0f} to {last[name]:.0f} {unit}" for name in shown)
    return Judged(text, measured if leaking else f"most: {measured}", held=not leaking)
