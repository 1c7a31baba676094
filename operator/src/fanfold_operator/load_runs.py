"""How load tests go while they last: the figures of their masters' admin ports, every few seconds."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog

from fanfold_operator.planning.outcome import METRICS, Live, live

if TYPE_CHECKING:
    from collections.abc import Callable

    from fanfold_operator.autoscale.scaler import Measure
    from fanfold_operator.kinds import Key

log = structlog.stdlib.get_logger(__name__)

LOOK_SECONDS: Final = 3.0


@dataclass(slots=True)
class _Followed:
    target: str
    task: asyncio.Task[None] | None = None
    live: Live | None = None


class LoadRuns:
    """One task per run; calls `changed(key)` when there is something new to tell."""

    def __init__(self, measure: Measure, changed: Callable[[Key], None]) -> None:
        self._measure = measure
        self._changed = changed
        self._followed: dict[Key, _Followed] = {}

    def follow(self, key: Key, target: str) -> Live | None:
        """Ask this admin port (``host:port``) from now on; None before it has answered."""
        known = self._followed.get(key)
        if known is None or known.target != target:
            self.forget(key)
            known = self._followed[key] = _Followed(target)
            known.task = asyncio.create_task(self._run(key, known), name=f"figures of {key}")
        return known.live

    def forget(self, key: Key) -> None:
        """Ask no longer."""
        if (followed := self._followed.pop(key, None)) and followed.task:
            followed.task.cancel()

    async def close(self) -> None:
        """Ask none."""
        tasks = [followed.task for followed in self._followed.values()]
        for key in list(self._followed):
            self.forget(key)
        for task in tasks:
            if task is not None:
                with suppress(asyncio.CancelledError):
                    await task

    async def _run(self, key: Key, followed: _Followed) -> None:
        while True:
            try:
                (scrape,) = await self._measure([followed.target], METRICS)
                before, followed.live = followed.live, live(scrape, time.monotonic(), followed.live)
                if followed.live != before:
                    self._changed(key)
            except Exception:
                log.exception("load_test_not_followed", key=str(key))
            await asyncio.sleep(LOOK_SECONDS)
