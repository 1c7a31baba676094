"""What is told of a LoadTest: how far it is, its figures, and its end as conditions. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from fanfold_operator.conditions import Condition, merge, timestamp
from fanfold_operator.planning.loadtest import ENDS, Phase, ended
from fanfold_operator.resources import loadtest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fanfold_operator.planning.loadtest import Run, State


def status(run: Run) -> dict[str, Any]:
    """The status as it should read now."""
    state, before = run.state, run.before
    generation = run.resource["metadata"]["generation"]
    if ended(run.resource):
        return before | {"observedGeneration": generation}
    new: dict[str, Any] = {"observedGeneration": generation, "phase": state.phase.value}
    if state.message:
        new["message"] = state.message
    if run.job is None and state.phase is Phase.PENDING:
        new["waitsSince"] = before.get("waitsSince") or timestamp(run.now)
    if run.job is not None:
        new["startTime"] = before.get("startTime") or timestamp(run.now)
    if run.spec.cancel:
        new["cancelTime"] = before.get("cancelTime") or timestamp(run.now)
    if run.acts:
        new["acts"] = msgspec.to_builtins(run.acts)
    if state.phase in ENDS:
        new |= _result(run)
    elif state.phase is Phase.RUNNING and run.live is not None:
        new |= _figures(run.live.rps, None if run.live.p99_seconds is None else 1000 * run.live.p99_seconds)
        new["progress"] = f"{run.live.progress or 0:.0%}"
    new["conditions"] = merge(before.get("conditions", ()), _conditions(state, new), generation, run.now)
    return new


def _figures(per_second: float | None, p99_ms: float | None) -> dict[str, str]:
    figures = {}
    if per_second is not None:
        figures["rps"] = f"{per_second:.1f}"
    if p99_ms is not None:
        figures["p99"] = f"{p99_ms:.1f}ms"
    return figures


def _result(run: Run) -> dict[str, Any]:
    """What is kept of a run that is over."""
    state, found = run.state, run.state.summary
    result: dict[str, Any] = {"finishTime": timestamp(run.now)}
    if found is None:
        return result | ({"verdict": "broken"} if state.phase is Phase.FAILED else {})
    held = {True: "yes", False: "no", None: "unknown"}
    if found.verdict != "broken":
        result |= _figures(found.per_second, found.p99_ms)
    result |= {
        "verdict": found.verdict,
        "interrupted": found.interrupted,
        "objectives": [
            {"text": one.text, "measured": one.measured, "held": held[one.held]} for one in found.objectives
        ],
        "report": {"configMap": loadtest.report_name(run.name)},
    }
    if found.location:
        result["report"]["location"] = found.location
    return result


def _conditions(state: State, new: Mapping[str, Any]) -> list[Condition]:
    """Whether it is over, and whether it passed: what `kubectl wait` can wait for."""
    verdict, message = new.get("verdict"), state.message
    if state.phase not in ENDS:
        return [
            Condition(
                "Finished",
                status=False,
                reason="Suspended"
                if state.phase is Phase.SUSPENDED
                else "ImageMissing"
                if state.lacks_image
                else "Waiting"
                if state.phase is Phase.PENDING
                else "Seeding"
                if state.phase is Phase.SEEDING
                else "Running",
                message=message,
            ),
            Condition("Passed", status=None, reason="NotFinished", message=message),
        ]
    if state.phase is Phase.CANCELLED:
        return [
            Condition("Finished", status=True, reason="Cancelled", message=message),
            Condition("Passed", status=False, reason="Cancelled", message=message),
        ]
    over = Condition("Finished", status=True, reason="Broken" if verdict == "broken" else "Judged", message=message)
    if verdict == "passed":
        return [over, Condition("Passed", status=True, reason="ObjectivesHeld", message="every objective held")]
    return [
        over,
        Condition(
            "Passed",
            status=False,
            reason="ObjectivesMissed" if verdict == "failed" else "Void" if verdict == "void" else "Broken",
            message=message,
        ),
    ]
