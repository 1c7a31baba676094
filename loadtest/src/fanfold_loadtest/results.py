"""A run as documents: JSON, which is kept and compared, and JUnit XML, which CI systems show."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final
from xml.etree import ElementTree as ET

import msgspec

from fanfold_loadtest.facts import Chart
from fanfold_loadtest.population import Degrees
from fanfold_loadtest.recording import Age, Mark, Recorder, Share, milliseconds
from fanfold_loadtest.scenario import Scenario
from fanfold_loadtest.schedule import begins

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from fanfold_loadtest.recording import Tally
    from fanfold_loadtest.runner import Run
    from fanfold_loadtest.verdict import Judgement

FORMAT: Final = 1
PERCENTILES: Final = (50.0, 90.0, 99.0, 99.9)


class ResultError(Exception):
    """A file is no result of a run; the message says why, in one line."""


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of request in one phase. Milliseconds from the intended start; null where nothing was answered well."""

    phase: str
    request: str
    requests: int
    failed: int
    per_second: float
    p50_ms: float | None
    p90_ms: float | None
    p99_ms: float | None
    p99_9_ms: float | None
    max_ms: float | None


class Objective(msgspec.Struct, frozen=True):
    """What was asked and found; `held` is null where nothing was measured."""

    text: str
    measured: str
    held: bool | None


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """All of a run.

    Attributes:
        verdict: ``passed``, ``failed`` or ``void``.
        reasons: Why not passed.
        seed: Repeats the run.
        share: The sum of what the processes measured, with its histograms.
        cpu_percent: Of one core, each generator process.
        degrees: Of the seeded graph, where there was one.
        server: What the platform said of itself meanwhile, if Prometheus was asked.
    """

    format: int = FORMAT
    verdict: str
    reasons: list[str]
    scenario: Scenario
    url: str
    seed: int
    started: str
    interrupted: bool
    objectives: list[Objective]
    figures: list[Figures]
    cpu_percent: list[float]
    share: Share
    degrees: Degrees | None = None
    server: list[Chart] = []


def document(run: Run, recorder: Recorder, judgement: Judgement, server: Sequence[Chart] = ()) -> Document:
    """All that is kept of a run."""
    total = Share(
        ages=[age for share in run.shares for age in share.ages],
        marks=[mark for share in run.shares for mark in share.marks],
        arrivals=sum(share.arrivals for share in run.shares),
        late=sum(share.late for share in run.shares),
        dropped=sum(share.dropped for share in run.shares),
        cpu_percent=max((share.cpu_percent for share in run.shares), default=0.0),
    )
    recorder.put_into(total)
    return Document(
        verdict=judgement.verdict.name.lower(),
        reasons=list(judgement.reasons),
        scenario=run.scenario,
        url=run.url,
        seed=run.seed,
        started=run.started.isoformat(timespec="seconds"),
        interrupted=run.interrupted,
        objectives=[Objective(one.text, one.measured, one.held) for one in judgement.objectives],
        figures=figures(run.scenario, recorder),
        cpu_percent=[round(share.cpu_percent, 1) for share in run.shares],
        share=total,
        degrees=run.degrees,
        server=list(server),
    )


def figures(scenario: Scenario, recorder: Recorder) -> list[Figures]:
    """A row for each phase and kind of request, in the order of the phases."""
    rows = []
    for phase, _ in begins(scenario):
        for request in recorder.requests():
            tally = recorder.cells.get((phase.name, request))
            if tally is not None:
                rows.append(_row(phase.name, request, phase.seconds, tally))
    return rows


def _row(phase: str, request: str, seconds: float, tally: Tally) -> Figures:
    p50, p90, p99, p99_9 = (_rounded(milliseconds(tally.latencies, percentile)) for percentile in PERCENTILES)
    return Figures(
        phase=phase,
        request=request,
        requests=tally.count,
        failed=tally.failed,
        per_second=round(tally.count / seconds, 2),
        p50_ms=p50,
        p90_ms=p90,
        p99_ms=p99,
        p99_9_ms=p99_9,
        max_ms=_rounded(milliseconds(tally.latencies, 100)),
    )


def _rounded(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 2)


def to_json(content: Document) -> bytes:
    """As it is kept."""
    return msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n"


def read(path: Path) -> Document:
    """A kept run.

    Raises:
        ResultError: No such file, or it is none.
    """
    try:
        content = msgspec.json.decode(path.read_bytes(), type=Document)
    except OSError as error:
        raise ResultError(f"{path}: cannot be read: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise ResultError(f"{path}: is no result of a run: {error}") from error
    if content.format != FORMAT:
        raise ResultError(f"{path}: format {content.format}, this version reads {FORMAT}: run the scenario again")
    return content


def to_junit(content: Document) -> bytes:
    """One test case an objective; a void run is an error, not a failure."""
    cases: list[tuple[str, str | None, str]] = []
    for objective in content.objectives:
        kind = None if objective.held else "failure" if objective.held is False else "error"
        cases.append((objective.text, kind, objective.measured or "nothing was measured"))
    if content.verdict == "void":
        cases += [("the run is valid", "error", reason) for reason in content.reasons]
    attributes: dict[str, Any] = {
        "name": f"loadtest.{content.scenario.name}",
        "tests": str(len(cases)),
        "failures": str(sum(kind == "failure" for _, kind, _ in cases)),
        "errors": str(sum(kind == "error" for _, kind, _ in cases)),
        "timestamp": content.started,
        "time": f"{content.scenario.seconds:g}",
    }
    suite = ET.Element("testsuite", attributes)
    for name, kind, text in cases:
        case = ET.SubElement(suite, "testcase", {"classname": suite.get("name", ""), "name": name})
        if kind:
            ET.SubElement(case, kind, {"message": text})
        else:
            ET.SubElement(case, "system-out").text = text
    ET.indent(suite)
    data: bytes = ET.tostring(suite, encoding="utf-8", xml_declaration=True)
    return data + b"\n"


def recorder_of(content: Document) -> Recorder:
    """The histograms of a kept run."""
    return Recorder.of(content.scenario.seconds, [content.share])


__all__ = [
    "Age",
    "Document",
    "Figures",
    "Mark",
    "ResultError",
    "document",
    "read",
    "recorder_of",
    "to_json",
    "to_junit",
]
