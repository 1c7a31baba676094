"""The open arrival model: requests begin when their time has come, whether or not the ones before have been answered.

Latency counts from the intended start, so that a stalled server, or a stalled generator, cannot hide behind requests
that were never sent (coordinated omission).
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

LATE_SECONDS: Final = 0.01
"""A start this long after its intended time counts as late: many of them blame the generator, not the server."""
DRAIN_SECONDS: Final = 15.0
"""For requests under way after the last start; those that need longer count as failed."""


def poisson(rate: float, seconds: float, seed: int) -> list[float]:
    """Intended starts in seconds from the beginning: a Poisson process of ``rate`` a second, the same for a seed.

    Raises:
        ValueError: A rate or time that is not positive.
    """
    if not (rate > 0 and seconds > 0 and math.isfinite(rate * seconds)):
        raise ValueError("rate and seconds must be positive")
    chance = random.Random(seed)  # noqa: S311 - reproducible, not secret
    starts: list[float] = []
    at = chance.expovariate(rate)
    while at < seconds:
        starts.append(at)
        at += chance.expovariate(rate)
    return starts


def constant(rate: float, seconds: float, offset: float = 0.0) -> list[float]:
    """Intended starts in seconds from the beginning, evenly spaced, the first at ``offset``.

    Raises:
        ValueError: A rate or time that is not positive, or an offset beyond the first gap.
    """
    if not (rate > 0 and seconds > 0 and math.isfinite(rate * seconds) and 0 <= offset < 1 / rate + 1e-9):
        raise ValueError("rate and seconds must be positive, the offset less than a gap")
    count = math.ceil((seconds - offset) * rate - 1e-9)
    return [offset + number / rate for number in range(max(0, count))]


@dataclass(slots=True)
class Measurement:
    """What came of a schedule.

    Attributes:
        latencies: Seconds from each intended start to its good answer.
        failures: Message of each failed request.
        late: Starts more than `LATE_SECONDS` after their intended time.
    """

    latencies: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    late: int = 0

    @property
    def requests(self) -> int:
        """All that were to be sent."""
        return len(self.latencies) + len(self.failures)

    def percentile(self, percent: float) -> float:
        """Seconds that ``percent`` of the good answers needed at most."""
        return percentile(self.latencies, percent)


def percentile(values: Sequence[float], percent: float) -> float:
    """Nearest-rank percentile (the smallest value with at least ``percent`` % at or below it); NaN for no values.

    Raises:
        ValueError: Not a percentage.
    """
    if not 0 < percent <= 100:
        raise ValueError("a percentile lies above 0 and at most at 100")
    if not values:
        return math.nan
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


async def run_open(starts: Sequence[float], request: Callable[[int], Awaitable[None]]) -> Measurement:
    """Call ``request(n)`` for the n-th start of a schedule, each at its time. An exception is a failed request."""
    measured = Measurement()
    begin = time.perf_counter()

    async def one(number: int, intended: float) -> None:
        if time.perf_counter() - begin - intended > LATE_SECONDS:
            measured.late += 1
        try:
            await request(number)
        except Exception as error:  # noqa: BLE001 - whatever went wrong is this request's failure
            measured.failures.append(f"{type(error).__name__}: {error}")
        else:
            measured.latencies.append(time.perf_counter() - begin - intended)

    tasks = []
    for number, intended in enumerate(starts):
        await asyncio.sleep(max(0.0, begin + intended - time.perf_counter()))
        tasks.append(asyncio.create_task(one(number, intended)))
    if tasks:
        _, unanswered = await asyncio.wait(tasks, timeout=DRAIN_SECONDS)
        for task in unanswered:
            task.cancel()
            measured.failures.append(f"no answer within {DRAIN_SECONDS:g} s after the last start")
    return measured
