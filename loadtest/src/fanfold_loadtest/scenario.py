"""What a load scenario is: who, how much, in which phases, what happens meanwhile, and what must hold."""

from __future__ import annotations

from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct

from fanfold_loadtest.documents import DocumentError, parse

Seconds = Annotated[float, Meta(gt=0, le=86_400)]
Rate = Annotated[float, Meta(gt=0, le=100_000)]
Weight = Annotated[float, Meta(gt=0, le=1_000_000)]
Percent = Annotated[float, Meta(ge=0, le=100)]
Percentile = Annotated[float, Meta(gt=0, le=100)]
Milliseconds = Annotated[float, Meta(gt=0)]
Name = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9-]{0,62}$")]
Action = Literal["feed", "timeline", "post", "like", "follow", "upload", "notify"]
At = Annotated[float, Meta(ge=0, le=86_400)]
Usage = Literal["memory", "open-files"]
Service = Annotated[str, Meta(pattern=r"^[a-z][a-z-]{0,30}$")]

CONSEQUENCES: Final[dict[str, str]] = {"post": "photo", "notify": "notification"}
"""What is recorded besides: a post's photo; that a comment reached the author's socket, from its acceptance on."""
ANY: Final = "*"
"""All phases that are measured, or all kinds of request."""


class CelebrityPost(Struct, frozen=True, forbid_unknown_fields=True, tag="celebrity-post", tag_field="does"):
    """The most followed publishes a photo, and followers look out for it. `at`: seconds from the phase's beginning."""

    at: At


class Scale(Struct, frozen=True, forbid_unknown_fields=True, tag="scale", tag_field="does"):
    """A service gets so many replicas more, or less if negative; at the end it has again what it had."""

    at: At
    service: Service
    by: Annotated[int, Meta(ge=-100, le=100)]


class RestartPod(Struct, frozen=True, forbid_unknown_fields=True, tag="restart-pod", tag_field="does"):
    """One pod of a service is deleted; Kubernetes makes another."""

    at: At
    service: Service


class Upgrade(Struct, frozen=True, forbid_unknown_fields=True, tag="upgrade", tag_field="does"):
    """The Platform goes to another version, or its services are restarted one after the other."""

    at: At


ClusterEvent = Scale | RestartPod | Upgrade
Event = CelebrityPost | Scale | RestartPod | Upgrade


class Phase(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A stretch of time with one rate.

    Attributes:
        name: Unique in its scenario; results are kept apart by it.
        seconds: How long it lasts.
        rate: Arrivals a second (open model); users at work (closed model).
        measured: Whether its results count; no for a warm-up.
        events: What happens meanwhile.
    """

    name: Name
    seconds: Seconds
    rate: Rate
    measured: bool = True
    events: list[Event] = []


class Latency(Struct, frozen=True, forbid_unknown_fields=True, tag="latency", tag_field="kind", kw_only=True):
    """A percentile of the time from intended start to good answer is at most so much."""

    request: str = ANY
    phase: str = ANY
    percentile: Percentile
    at_most_ms: Milliseconds


class Errors(Struct, frozen=True, forbid_unknown_fields=True, tag="errors", tag_field="kind", kw_only=True):
    """At most so many of the requests fail."""

    request: str = ANY
    phase: str = ANY
    at_most_percent: Percent


class Freshness(Struct, frozen=True, forbid_unknown_fields=True, tag="freshness", tag_field="kind", kw_only=True):
    """A percentile of the age at which followers see a post is at most so much."""

    phase: str = ANY
    percentile: Percentile
    at_most_ms: Milliseconds


class Growth(Struct, frozen=True, forbid_unknown_fields=True, tag="growth", tag_field="kind", kw_only=True):
    """A percentile grows from one phase to another by at most so much, above what is too little to tell."""

    request: str
    before: str
    phase: str
    percentile: Percentile
    at_most_percent: Annotated[float, Meta(gt=0)]
    beyond_ms: Annotated[float, Meta(ge=0)] = 0.0


class Capacity(Struct, frozen=True, forbid_unknown_fields=True, tag="capacity", tag_field="kind", kw_only=True):
    """The highest rate at which all of some objectives hold is at least so much.

    Each measured phase is a step that is judged alone when it is over; the first that misses one ends the run.

    Attributes:
        at_least: Requests a second.
        holding: What must hold in each step.
    """

    at_least: Rate
    holding: Annotated[list[Latency | Errors], Meta(min_length=1)]


class Leak(Struct, frozen=True, forbid_unknown_fields=True, tag="leak", tag_field="kind", kw_only=True):
    """What a component of the platform uses grows from one phase to another by at most so much, as Prometheus tells.

    Attributes:
        of: `memory`: resident memory, in MiB. `open-files`: file descriptors, connections among them.
        before: The phase whose average is what it used at first.
        phase: The phase whose average it uses in the end.
        at_most_percent: Of what it used at first.
        beyond: What is too little to tell, in MiB or files.
    """

    of: Usage
    before: str
    phase: str
    at_most_percent: Annotated[float, Meta(gt=0)]
    beyond: Annotated[float, Meta(ge=0)] = 0.0


Slo = Latency | Errors | Freshness | Growth | Capacity | Leak


class Scenario(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One scenario.

    Attributes:
        name: What it is called.
        description: What it shows, in one or two sentences.
        model: `open`: requests begin at their time whatever became of earlier ones. `closed`: each of a number of
            users sends its next request after the last was answered; latencies of a stalling server are then too good.
        arrivals: Of the open model: a Poisson process, or evenly spaced.
        people: How many join before the load.
        readers: `shared`: readers are drawn anew for each request. `once`: each reads once, so that every feed is cold;
            the load ends when all have.
        mix: Weight of each kind of request.
        phases: One after the other.
        slos: What must hold.
    """

    name: Name
    description: Annotated[str, Meta(min_length=10, max_length=500)]
    model: Literal["open", "closed"] = "open"
    arrivals: Literal["poisson", "constant"] = "poisson"
    people: Annotated[int, Meta(ge=5, le=20_000)] = 40
    readers: Literal["shared", "once"] = "shared"
    mix: Annotated[dict[Action, Weight], Meta(min_length=1)]
    phases: Annotated[list[Phase], Meta(min_length=1, max_length=50)]
    slos: list[Slo] = []

    @property
    def capacity(self) -> Capacity | None:
        """What is asked of the highest rate; None: all phases are run."""
        return next((slo for slo in self.slos if isinstance(slo, Capacity)), None)

    @property
    def leaks(self) -> list[Leak]:
        """What is asked of the platform's processes: a Prometheus must tell."""
        return [slo for slo in self.slos if isinstance(slo, Leak)]

    @property
    def seconds(self) -> float:
        """How long the load lasts."""
        return sum(phase.seconds for phase in self.phases)

    @property
    def measured(self) -> tuple[str, ...]:
        """Names of the phases that count."""
        return tuple(phase.name for phase in self.phases if phase.measured)


def scaled(scenario: Scenario, rate: float, time: float, people: float) -> Scenario:
    """The same scenario in another size; objectives stay as they are.

    Raises:
        DocumentError: It becomes larger than scenarios may be.
    """
    phases = [
        msgspec.structs.replace(
            phase,
            rate=phase.rate * rate,
            seconds=phase.seconds * time,
            events=[msgspec.structs.replace(event, at=event.at * time) for event in phase.events],
        )
        for phase in scenario.phases
    ]
    result = msgspec.structs.replace(scenario, phases=phases, people=max(5, round(scenario.people * people)))
    try:
        return msgspec.convert(msgspec.to_builtins(result), Scenario)
    except msgspec.ValidationError as error:
        raise DocumentError(f"{scenario.name}: too large or too small by these factors: {error}") from error


class SloFile(Struct, frozen=True, forbid_unknown_fields=True):
    """Objectives that take the place of a scenario's own."""

    slos: Annotated[list[Slo], Meta(min_length=1)]


def built_in() -> dict[str, Path]:
    """File of each scenario that comes with the package, by name."""
    folder = Path(str(resources.files("fanfold_loadtest"))) / "scenarios"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def load(name_or_path: str) -> Scenario:
    """A scenario that comes with the package, by name, or one from a file (a path with a slash, or ``*.yaml``).

    Raises:
        DocumentError: There is none of that name, or the file cannot be used.
    """
    if "/" in name_or_path or name_or_path.endswith((".yaml", ".yml")):
        path = Path(name_or_path)
    else:
        known = built_in()
        if name_or_path not in known:
            raise DocumentError(f"there is no scenario {name_or_path!r}; there are: {', '.join(known)}, or give a file")
        path = known[name_or_path]
    scenario = parse(_read(path), Scenario, path.name)
    if problem := _contradiction(scenario):
        raise DocumentError(f"{path.name}: {problem}")
    return scenario


def judged_by(scenario: Scenario, path: Path | None) -> Scenario:
    """The same scenario with the objectives of a file, if there is one, in place of its own.

    Raises:
        DocumentError: The file cannot be used, or speaks of what the scenario does not have.
    """
    if path is None:
        return scenario
    wanted = msgspec.structs.replace(scenario, slos=parse(_read(path), SloFile, path.name).slos)
    if problem := _contradiction(wanted):
        raise DocumentError(f"{path.name}: {problem}")
    return wanted


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DocumentError(f"{path}: cannot be read: {error}") from error


def _contradiction(scenario: Scenario) -> str | None:
    """What a schema cannot say."""
    names = [phase.name for phase in scenario.phases]
    if twice := {name for name in names if names.count(name) > 1}:
        return f"phases: {', '.join(sorted(twice))} is there twice; give each phase a name of its own"
    if not scenario.measured:
        return "phases: none is measured; set measured on one"
    for phase in scenario.phases:
        if late := [event for event in phase.events if event.at >= phase.seconds]:
            return f"phases: {phase.name}: an event at {late[0].at:g} s, but the phase lasts {phase.seconds:g} s"
    if scenario.capacity and (problem := _no_steps(scenario)):
        return f"slos: capacity: {problem}"
    return next((problem for slo in scenario.slos if (problem := _unknown_in(slo, scenario))), None)


def _no_steps(scenario: Scenario) -> str | None:
    """Why the measured phases are no steps on the way to the highest rate."""
    rates = [phase.rate for phase in scenario.phases if phase.measured]
    if any(later <= earlier for earlier, later in pairwise(rates)):
        return "the rates of measured phases must rise"
    if scenario.model == "closed":
        return "a closed model has users, not rates; let the model be open"
    if sum(isinstance(slo, Capacity) for slo in scenario.slos) > 1:
        return "is there twice; put all that must hold into one"
    if any(one.phase != ANY for slo in scenario.slos if isinstance(slo, Capacity) for one in slo.holding):
        return "what must hold is asked of every step: leave phase out"
    return None


def _unknown_in(slo: Slo, scenario: Scenario) -> str | None:
    if isinstance(slo, Capacity):
        return next((problem for one in slo.holding if (problem := _unknown_in(one, scenario))), None)
    kind = slo.__struct_config__.tag
    phases = {slo.phase, slo.before} if isinstance(slo, Growth | Leak) else {slo.phase}
    known = {ANY, *scenario.measured}
    if strange := phases - known:
        return (
            f"slos: {kind}: no measured phase {', '.join(sorted(strange))}; there are: {', '.join(scenario.measured)}"
        )
    requests = {ANY, *scenario.mix, *(also for action, also in CONSEQUENCES.items() if action in scenario.mix)}
    if not isinstance(slo, Freshness | Leak) and slo.request not in requests:
        return f"slos: {kind}: no request {slo.request}; there are: {', '.join(sorted(requests))}"
    events = [event for phase in scenario.phases for event in phase.events]
    if isinstance(slo, Freshness) and not any(isinstance(event, CelebrityPost) for event in events):
        return "slos: freshness: nothing is published: give a phase an event celebrity-post"
    return None
