"""Keeps processes running: one that ends is started again, later each time it does so soon."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fanfold.dev.process import ChildProcess

FIRST_DELAY: Final = 0.5
LONGEST_DELAY: Final = 30.0
STEADY_SECONDS: Final = 60.0
"""A process that ran this long has recovered: its next end is the first again."""


class Startable(Protocol):
    """A component or a store."""

    @property
    def name(self) -> str:
        """For messages."""

    @property
    def process(self) -> ChildProcess:
        """What `start` started last."""

    def start(self) -> None:
        """Start it and do not wait."""


@dataclass
class Backoff:
    """Seconds until the next start: doubled at each end that comes soon after a start."""

    started: float
    ends: int = 0

    def delay(self, now: float) -> float:
        """Called once when the process has ended at ``now`` (seconds of the monotonic clock)."""
        if now - self.started >= STEADY_SECONDS:
            self.ends = 0
        self.ends += 1
        return min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** min(self.ends - 1, 10))


@dataclass
class Watched:
    """A process and what is known of its restarts."""

    item: Startable
    backoff: Backoff
    due: float | None = None
    """When it is to be started again; None while it runs."""


@dataclass
class Supervisor:
    """Looks after running processes. `say` tells the user; `clock` is monotonic seconds."""

    items: Sequence[Startable]
    say: Callable[[str], None]
    clock: Callable[[], float] = time.monotonic
    _watched: list[Watched] = field(init=False)

    def __post_init__(self) -> None:
        self._watched = [Watched(item, Backoff(self.clock())) for item in self.items]

    def look(self) -> None:
        """One round: notice ends, start what is due. Call it a few times a second."""
        now = self.clock()
        for watched in self._watched:
            if watched.due is None and not watched.item.process.running():
                delay = watched.backoff.delay(now)
                watched.due = now + delay
                code = watched.item.process.returncode
                self.say(f"{watched.item.name} ended with code {code}; starting it again in {delay:.1f} s")
            elif watched.due is not None and now >= watched.due:
                watched.due = None
                watched.backoff.started = now
                watched.item.start()
