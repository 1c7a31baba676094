"""How many replicas: the algorithm of the HorizontalPodAutoscaler, as a pure function.

Source: "Horizontal Pod Autoscaling" of the Kubernetes documentation (algorithm details, configurable scaling behavior).
In that order: each metric asks for a number of replicas; the largest counts; without all metrics nothing shrinks; the
bounds hold; the stabilization windows take the calmest of recent recommendations; the steps limit one period's change.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Final

TOLERANCE: Final = 0.1
"""Within 10 % of the target nothing changes (``--horizontal-pod-autoscaler-tolerance``)."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One thing to scale by.

    Attributes:
        name: With its unit, for people.
        value: None if it could not be had.
        target: Per replica if `shared`, else of the whole.
        shared: Replicas divide the value among them, like messages that wait; otherwise it is a level that more
            replicas lower, like their age, and the ratio to the target multiplies the replicas.
        at_most: More replicas than this cannot help; None: any number can.
    """

    name: str
    value: float | None
    target: float
    shared: bool = True
    at_most: int | None = None

    def __str__(self) -> str:
        per = " per replica" if self.shared else ""
        value = "unknown" if self.value is None else f"{self.value:g}"
        return f"{self.name} {value}, target {self.target:g}{per}"


@dataclass(frozen=True, slots=True)
class Step:
    """Most change within a period: replicas, or percent of those at its start."""

    value: int
    seconds: int
    percent: bool = False


@dataclass(frozen=True, slots=True)
class Direction:
    """How fast to go one way: `window` seconds of recommendations are weighed; of the steps the largest counts."""

    window: int
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Rules:
    """Bounds, both inclusive, and behaviour."""

    least: int
    most: int
    up: Direction
    down: Direction

    def clamp(self, replicas: int) -> int:
        """The nearest number within the bounds."""
        return max(self.least, min(self.most, replicas))


@dataclass(frozen=True, slots=True)
class Memory:
    """What earlier decisions leave: (seconds, recommended) and (seconds, change made), oldest first."""

    recommended: tuple[tuple[float, int], ...] = ()
    changed: tuple[tuple[float, int], ...] = ()

    def acted(self, now: float, change: int) -> Memory:
        """After replicas were changed by so many."""
        return replace(self, changed=(*self.changed, (now, change)))


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do.

    Attributes:
        replicas: How many there should be.
        missing: Metrics that could not be had; then nothing shrinks.
        why: For people.
        memory: For the next decision.
    """

    replicas: int
    missing: tuple[str, ...]
    why: str
    memory: Memory = field(compare=False)


def asked(metric: Metric, current: int, ready: int) -> int | None:
    """Replicas one metric asks for; None if it has no value."""
    if metric.value is None or not math.isfinite(metric.value):
        return None
    ratio = metric.value / (metric.target * (current if metric.shared else 1))
    if abs(ratio - 1) <= TOLERANCE:
        wanted = current
    elif metric.shared or ratio < 1:
        wanted = _ceil(ratio * current)
    else:
        # Replicas that are still starting have not lowered the level yet: they are not multiplied once more.
        wanted = max(current, _ceil(ratio * ready))
    return wanted if metric.at_most is None else min(wanted, metric.at_most)


def decide(  # noqa: PLR0913, PLR0917 - the whole state that a decision depends on
    current: int, ready: int, metrics: tuple[Metric, ...], rules: Rules, memory: Memory, now: float
) -> Decision:
    """The next number of replicas.

    Args:
        current: Replicas wanted so far; not 0, which switches scaling off.
        ready: Those that work already.
        metrics: What to scale by; at least one.
        rules: Bounds and behaviour.
        memory: Of the decision before; empty at the start, which counts as having recommended what is there.
        now: Seconds of any steady clock.
    """
    wants = {metric: asked(metric, current, ready) for metric in metrics}
    missing = tuple(metric.name for metric, want in wants.items() if want is None)
    known = {metric: want for metric, want in wants.items() if want is not None}
    leading = max(known, key=lambda metric: known[metric], default=None)
    wanted = current if leading is None else known[leading]
    if missing:
        wanted = max(wanted, current)
    recommended = rules.clamp(wanted)
    history = (*(memory.recommended or ((now, current),)), (now, recommended))
    stable = _stabilized(current, recommended, history, rules, now)
    replicas = rules.clamp(_limited(current, stable, memory.changed, rules, now))
    why = _why(leading, missing, wanted=wanted, recommended=recommended, stable=stable, replicas=replicas)
    return Decision(replicas, missing, why, _trimmed(Memory(history, memory.changed), rules, now))


def _ceil(number: float) -> int:
    return math.ceil(number - 1e-9)  # 3.0000000000000004 is 3


def _stabilized(
    current: int, recommended: int, history: tuple[tuple[float, int], ...], rules: Rules, now: float
) -> int:
    """Grow to the least, shrink to the most that was recommended within the direction's window."""
    least = min([recommended, *(count for at, count in history if at > now - rules.up.window)])
    most = max([recommended, *(count for at, count in history if at > now - rules.down.window)])
    return min(max(current, least), most)


def _limited(current: int, wanted: int, changed: tuple[tuple[float, int], ...], rules: Rules, now: float) -> int:
    """As far towards `wanted` as the steps of its direction allow, given the changes of their periods."""
    growing = wanted > current
    reached = []
    for step in (rules.up if growing else rules.down).steps:
        start = current - sum(change for at, change in changed if at > now - step.seconds)
        change = start * step.value / 100 if step.percent else step.value
        reached.append(_ceil(start + change) if growing else math.floor(start - change + 1e-9))
    if growing:
        return min(wanted, max(current, *reached))
    return max(wanted, min(current, *reached))


def _trimmed(memory: Memory, rules: Rules, now: float) -> Memory:
    windows = max(rules.up.window, rules.down.window)
    periods = max(step.seconds for step in (*rules.up.steps, *rules.down.steps))
    return Memory(
        tuple(one for one in memory.recommended if one[0] > now - windows) or memory.recommended[-1:],
        tuple(one for one in memory.changed if one[0] > now - periods),
    )


def _why(  # noqa: PLR0913 - one sentence of all numbers, by keyword
    leading: Metric | None, missing: tuple[str, ...], *, wanted: int, recommended: int, stable: int, replicas: int
) -> str:
    parts = [f"{leading}: asks for {wanted}"] if leading else []
    if missing:
        parts.append(f"not known: {', '.join(missing)}, so nothing shrinks")
    if recommended != wanted:
        parts.append(f"bounds make it {recommended}")
    if stable != recommended:
        parts.append(f"the stabilization window holds {stable}")
    if replicas != stable:
        parts.append(f"one step leads to {replicas}")
    return "; ".join(parts)
