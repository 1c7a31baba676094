"""Keys to reconcile: each at most once at a time, at once or after a delay, failed ones with growing delays.

The semantics of client-go's work queue: a key added while it is being worked on is worked on again afterwards, and any
number of additions before that are one.
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Final

import structlog
from structlog.contextvars import bound_contextvars

from fanfold_operator import metrics

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fanfold_operator.kinds import Key

    Work = Callable[[Key], Awaitable[float | None]]

log = structlog.stdlib.get_logger(__name__)

FIRST_BACKOFF_SECONDS: Final = 0.25
MAX_BACKOFF_SECONDS: Final = 60.0


class WorkQueue:
    """Calls a function for each key added, see `run`."""

    def __init__(self) -> None:
        self._due: dict[Key, float] = {}
        self._ready: asyncio.Queue[Key] = asyncio.Queue()
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        self._active: set[Key] = set()
        self._again: set[Key] = set()
        self._failures: dict[Key, int] = {}

    def add(self, key: Key, after: float = 0.0) -> None:
        """Ask for a call, `after` seconds from now at the latest."""
        loop = asyncio.get_running_loop()
        due = loop.time() + after
        timer = self._timers.get(key)
        if timer is not None:
            if timer.when() <= due:
                return
            timer.cancel()
            del self._timers[key]
        if after > 0:
            self._timers[key] = loop.call_later(after, self._release, key)
        else:
            self._release(key)

    async def run(self, work: Work, workers: int) -> None:
        """Call `work(key)` for due keys, with at most `workers` at a time, until cancelled. Then forget all keys.

        `work` returns seconds after which to be called again at the latest, or None. An exception is logged, counted
        and followed by another call after 0.25 s, doubled each time up to a minute, with jitter.
        """
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(workers):
                    group.create_task(self._worker(work))
        finally:
            self._forget()

    def idle(self) -> bool:
        """Whether nothing is due or being worked on; delayed keys may wait."""
        return not self._due and not self._active

    def oldest_seconds(self) -> float:
        """How long the oldest due key has waited for a worker."""
        return asyncio.get_running_loop().time() - min(self._due.values()) if self._due else 0.0

    def _forget(self) -> None:
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._due.clear()
        self._again.clear()
        metrics.queue_depth.set(0)

    def _release(self, key: Key) -> None:
        self._timers.pop(key, None)
        if key in self._active:
            self._again.add(key)
        elif key not in self._due:
            self._due[key] = asyncio.get_running_loop().time()
            self._ready.put_nowait(key)
            metrics.queue_depth.set(len(self._due))

    async def _worker(self, work: Work) -> None:
        while True:
            key = await self._ready.get()
            loop = asyncio.get_running_loop()
            started = loop.time()
            metrics.queue_seconds.observe(started - self._due.pop(key))
            metrics.queue_depth.set(len(self._due))
            self._active.add(key)
            try:
                with bound_contextvars(kind=key.kind, namespace=key.namespace, name=key.name):
                    after = await self._attempt(work, key)
            finally:
                self._active.discard(key)
                metrics.reconcile_seconds.labels(key.kind).observe(loop.time() - started)
            if key in self._again:
                self._again.discard(key)
                self.add(key)
            elif after is not None:
                self.add(key, after)

    async def _attempt(self, work: Work, key: Key) -> float | None:
        try:
            after = await work(key)
        except Exception as error:
            count = self._failures[key] = self._failures.get(key, 0) + 1
            delay = min(FIRST_BACKOFF_SECONDS * 2.0 ** min(count - 1, 16), MAX_BACKOFF_SECONDS)
            metrics.reconciles.labels(key.kind, "error").inc()
            expected = getattr(error, "status", None) is not None
            log.warning("reconcile_failed", attempt=count, error=str(error), exc_info=not expected)
            wanted = getattr(error, "retry_after", 0.0)
            return max(wanted, delay * random.uniform(0.8, 1.2))  # noqa: S311 - jitter, no secret
        self._failures.pop(key, None)
        metrics.reconciles.labels(key.kind, "ok").inc()
        return after
