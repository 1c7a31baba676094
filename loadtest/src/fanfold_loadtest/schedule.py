"""When requests begin, of which kind: drawn beforehand from a seed, so that a run can be repeated."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fanfold_loadtest.arrivals import constant, poisson
from fanfold_loadtest.scenario import CelebrityPost

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fanfold_loadtest.scenario import ClusterEvent, Event, Phase, Scenario


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request to come.

    Attributes:
        at: Its intended start in seconds from the beginning of the run.
        phase: The phase it belongs to.
        action: Its kind.
        number: Counts the requests of one process from 0.
    """

    at: float
    phase: str
    action: str
    number: int


def begins(scenario: Scenario) -> Iterator[tuple[Phase, float]]:
    """Each phase with its beginning in seconds."""
    at = 0.0
    for phase in scenario.phases:
        yield phase, at
        at += phase.seconds


def events(scenario: Scenario) -> list[tuple[float, Phase, Event]]:
    """Events with their times in seconds from the beginning, in order."""
    found = [(begin + event.at, phase, event) for phase, begin in begins(scenario) for event in phase.events]
    return sorted(found, key=lambda entry: entry[0])


def celebrity_posts(scenario: Scenario) -> list[tuple[float, Phase]]:
    """When the celebrity publishes."""
    return [(at, phase) for at, phase, event in events(scenario) if isinstance(event, CelebrityPost)]


def cluster_events(scenario: Scenario) -> list[tuple[float, ClusterEvent]]:
    """What is done to the platform, and when."""
    return [(at, event) for at, _, event in events(scenario) if not isinstance(event, CelebrityPost)]


def arrivals(scenario: Scenario, seed: int, index: int = 0, of: int = 1) -> list[Arrival]:
    """What process ``index`` of ``of`` sends.

    Independent Poisson processes add up to one of the whole rate; evenly spaced ones interleave.
    """
    chance = random.Random(f"{seed}/{index}/{of}")  # noqa: S311 - reproducible, not secret
    actions, weights = list(scenario.mix), list(scenario.mix.values())
    found: list[Arrival] = []
    for phase, begin in begins(scenario):
        if scenario.arrivals == "poisson":
            starts = poisson(phase.rate / of, phase.seconds, chance.getrandbits(32))
        else:
            starts = constant(phase.rate / of, phase.seconds, offset=index / phase.rate)
        kinds = chance.choices(actions, weights, k=len(starts))
        for start, kind in zip(starts, kinds, strict=True):
            found.append(Arrival(begin + start, phase.name, kind, len(found)))
    return found
