"""How clients fare while a new version is rolled out: the gateways' own counters, over the last half minute."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from fanfold_operator.keeper import Keeper
from fanfold_operator.kinds import ENDPOINT_SLICE
from fanfold_operator.planning.upgrade import ErrorRate
from fanfold_operator.ring.endpoints import admin_ports, by_service

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fanfold_operator.autoscale.scaler import Measure
    from fanfold_operator.kinds import Key
    from fanfold_operator.scrape import Scrape
    from fanfold_operator.store import Store

REQUESTS: Final = "fanfold_gateway_requests_total"
GATEWAY: Final = "gateway"
LOOK_SECONDS: Final = 2.0
WINDOW_SECONDS: Final = 30.0


class Window:
    """What counters grew by within the last half minute. Pure.

    A counter seen for the first time is where counting begins; one that went back began anew with its process.
    """

    def __init__(self) -> None:
        self._last: dict[str, tuple[float, float]] = {}
        self._grown: deque[tuple[float, float, float]] = deque()

    def add(self, now: float, scrapes: Iterable[Scrape]) -> ErrorRate:
        """Take what all ready gateways told at `now`, in seconds; the rate as of then."""
        told = tuple(scrapes)
        answered = [one for one in told if one.error is None]
        for one in answered:
            statuses = one.by("status", REQUESTS)
            total = sum(statuses.values())
            failed = sum(count for status, count in statuses.items() if status.startswith("5"))
            before = self._last.get(one.target, (total, failed))
            anew = total < before[0]
            self._grown.append((now, total - before[0] * (not anew), max(0.0, failed - before[1] * (not anew))))
            self._last[one.target] = (total, failed)
        while self._grown and self._grown[0][0] <= now - WINDOW_SECONDS:
            self._grown.popleft()
        requests, errors = (sum(one[index] for one in self._grown) for index in (1, 2))
        return ErrorRate(requests, errors, known=bool(answered) or not told)


@dataclass(slots=True)
class _Watched:
    window: Window = field(default_factory=Window)
    rate: ErrorRate | None = None


class ErrorWatch:
    """Watches each Platform that is being upgraded; calls `changed(key)` when there is something new to judge."""

    def __init__(self, store: Store, measure: Measure, changed: Callable[[Key], None]) -> None:
        self._store = store
        self._measure = measure
        self._changed = changed
        self._keeper = Keeper(self._look, _Watched, name="watch errors", retry_seconds=LOOK_SECONDS)
        self.forget = self._keeper.forget
        self.close = self._keeper.close

    def follow(self, key: Key) -> ErrorRate | None:
        """Watch the gateways of this Platform from now on; None before they were asked."""
        return self._keeper.keep(key).rate

    async def _look(self, key: Key, watched: _Watched) -> float:
        slices = self._store.of_platform(ENDPOINT_SLICE, key.namespace, key.name)
        targets = admin_ports(one for one in by_service(slices).get(GATEWAY, ()) if one.usable)
        scrapes = await self._measure(targets, (REQUESTS,))
        before, watched.rate = watched.rate, watched.window.add(time.monotonic(), scrapes)
        if before is None or (before.known, before.errors) != (watched.rate.known, watched.rate.errors):
            self._changed(key)
        return LOOK_SECONDS
