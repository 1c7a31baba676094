"""Restarts: soon the first time, later each time after, from the start again once steady."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

from fanfold.dev.process import ChildProcess
from fanfold.dev.supervisor import LONGEST_DELAY, STEADY_SECONDS, Supervisor


@dataclass
class Fragile:
    """Ends when told to."""

    name: str = "feed"
    starts: int = 0
    alive: bool = True
    returncode: int = -9

    @property
    def process(self) -> ChildProcess:
        return cast("ChildProcess", self)

    def running(self) -> bool:
        return self.alive

    def start(self) -> None:
        self.starts += 1
        self.alive = True


@dataclass
class Scene:
    item: Fragile = field(default_factory=Fragile)
    now: float = 0.0
    said: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.supervisor = Supervisor(cast("Any", [self.item]), self.said.append, lambda: self.now)

    def restart_delay(self) -> float:
        """Seconds from an end to the next start, looking ten times a second."""
        self.item.alive = False
        began, starts = self.now, self.item.starts
        while self.item.starts == starts:
            self.supervisor.look()
            self.now += 0.1
            assert self.now - began < 2 * LONGEST_DELAY
        return round(self.now - began, 1)


def test_a_process_that_runs_is_left_alone() -> None:
    scene = Scene()
    scene.supervisor.look()
    assert scene.item.starts == 0
    assert not scene.said


def test_one_that_ended_is_started_again_and_the_user_told() -> None:
    scene = Scene()
    assert scene.restart_delay() < 1
    assert scene.said == ["feed ended with code -9; starting it again in 0.5 s"]


def test_one_that_keeps_ending_is_started_ever_later_but_never_given_up() -> None:
    scene = Scene()
    delays = [scene.restart_delay() for _ in range(12)]
    assert delays == sorted(delays)
    assert 1.5 < delays[2] < 2.5
    assert LONGEST_DELAY <= delays[-1] < LONGEST_DELAY + 1


def test_one_that_ran_steadily_begins_anew() -> None:
    scene = Scene()
    for _ in range(8):
        scene.restart_delay()
    scene.now += STEADY_SECONDS
    assert scene.restart_delay() < 1
