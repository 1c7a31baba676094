"""What a run says at its end to whoever started its pod: a summary in one JSON object of at most 4 KiB. Pure.

Kubernetes keeps it with the pod (the container's termination message) and cuts off what is longer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from fanfold_loadtest.recording import milliseconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fanfold_loadtest.recording import Recorder
    from fanfold_loadtest.results import Document

LIMIT_BYTES: Final = 4096
TEXT: Final = 400
"""Most characters of one reason or objective."""


class Objective(msgspec.Struct, frozen=True):
    """What was asked and found; `held` is null where nothing was measured."""

    text: str
    measured: str
    held: bool | None


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """What a run came to.

    Attributes:
        per_second: Requests answered a second, over the measured phases.
        p99_ms: Of all their requests, from the intended start; null where nothing was answered well.
        location: URL of the folder with the report; empty: it was not kept.
    """

    verdict: str
    reasons: list[str] = []
    interrupted: bool = False
    objectives: list[Objective] = []
    per_second: float = 0.0
    p99_ms: float | None = None
    location: str = ""


def broken(reason: str) -> Summary:
    """Of a run that could not be done."""
    return Summary(verdict="broken", reasons=[reason])


def summary(content: Document, recorder: Recorder, location: str, troubles: Sequence[str] = ()) -> Summary:
    """Of a run that was done. `troubles` say what went wrong after it; empty ones are none."""
    scenario = content.scenario
    total = recorder.total(scenario.measured, None)
    begun = {phase for phase, _ in recorder.cells}
    seconds = sum(phase.seconds for phase in scenario.phases if phase.measured and phase.name in begun)
    p99 = milliseconds(total.latencies, 99)
    return Summary(
        verdict=content.verdict,
        reasons=[*content.reasons, *filter(None, troubles)],
        interrupted=content.interrupted,
        objectives=[Objective(one.text, one.measured, one.held) for one in content.objectives],
        per_second=round(total.count / seconds, 2) if seconds else 0.0,
        p99_ms=round(p99, 2) if p99 == p99 else None,  # noqa: PLR0124 - NaN of nothing
        location=location,
    )


def encoded(said: Summary) -> bytes:
    """As JSON that fits: long sentences are cut, then objectives that held are left out, then the last of what is."""
    reasons = [_cut(one) for one in said.reasons]
    objectives = [Objective(_cut(one.text), _cut(one.measured), one.held) for one in said.objectives]
    while len(text := msgspec.json.encode(_with(said, reasons, objectives))) > LIMIT_BYTES:
        good = [one for one in objectives if one.held]
        if good:
            objectives.remove(good[-1])
        elif objectives and len(objectives) >= len(reasons) - 1:
            objectives.pop()
        else:
            reasons[-2:] = ["…"]
    return text


def _with(said: Summary, reasons: list[str], objectives: list[Objective]) -> Summary:
    return msgspec.structs.replace(said, reasons=reasons, objectives=objectives)


def _cut(text: str) -> str:
    return text if len(text) <= TEXT else text[: TEXT - 1] + "…"
