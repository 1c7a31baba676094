"""How load tests go while they last: the figures of their masters' admin ports, every few seconds."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fanfold_operator.keeper import Keeper
from fanfold_operator.planning.outcome import METRICS, Live, live

if TYPE_CHECKING:
    from collections.abc import Callable

    from fanfold_operator.autoscale.scaler import Measure
    from fanfold_operator.kinds import Key

LOOK_SECONDS: Final = 3.0


@dataclass(slots=True)
class _Watched:
    target: str = ""
    live: Live | None = None


class LoadRuns:
    """Watches each run that lasts; calls `changed(key)` when there is something new to tell."""

    def __init__(self, measure: Measure, changed: Callable[[Key], None]) -> None:
        self._measure = measure
        self._changed = changed
        self._keeper = Keeper(self._look, _Watched, name="watch load tests", retry_seconds=LOOK_SECONDS)
        self.forget = self._keeper.forget
        self.close = self._keeper.close

    def follow(self, key: Key, target: str) -> Live | None:
        """Ask this admin port (``host:port``) from now on; None before it has answered."""
        watched = self._keeper.keep(key)
        if watched.target != target:
            watched.target, watched.live = target, None
        return watched.live

    async def _look(self, key: Key, watched: _Watched) -> float:
        for scrape in await self._measure([watched.target], METRICS):
            before, watched.live = watched.live, live(scrape, time.monotonic(), watched.live)
            if watched.live != before:
                self._changed(key)
        return LOOK_SECONDS
