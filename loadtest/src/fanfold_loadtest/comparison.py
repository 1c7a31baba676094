"""Whether two runs differ by more than chance: a bootstrap over their histograms.

Each run's answers are drawn again with replacement (B. Efron, 1979), which for a histogram is one multinomial draw of
its bins; the 95 % interval of the difference of a percentile tells whether zero is a likely answer. Requests of one run
are not independent of each other, so the interval is somewhat too narrow: repeat runs where it matters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from fanfold_loadtest.recording import milliseconds

if TYPE_CHECKING:
    from hdrh.histogram import HdrHistogram
    from numpy.typing import NDArray

    from fanfold_loadtest.recording import Recorder

DRAWS: Final = 1_000
CONFIDENCE: Final = 0.95
MIN_ANSWERS: Final = 50
"""With fewer, a 99th percentile is one answer."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A percentile of one kind of request in one phase, in two runs. Milliseconds.

    Attributes:
        low: Lower end of the interval of ``second - first``.
        high: Its upper end.
    """

    phase: str
    request: str
    percentile: float
    first: float
    second: float
    low: float
    high: float

    @property
    def real(self) -> bool:
        """Whether it is more than chance."""
        return self.low > 0 or self.high < 0


def compare(first: Recorder, second: Recorder, percentiles: tuple[float, ...] = (50.0, 99.0)) -> list[Difference]:
    """Differences of what both runs have, in order of phases and requests."""
    found = []
    for phase, request in first.cells:
        if (phase, request) not in second.cells:
            continue
        one, other = first.cells[phase, request].latencies, second.cells[phase, request].latencies
        if min(one.get_total_count(), other.get_total_count()) < MIN_ANSWERS:
            continue
        for percentile in percentiles:
            draws = _draws(other, percentile, seed=2) - _draws(one, percentile, seed=1)
            low, high = np.quantile(draws, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
            values = milliseconds(one, percentile), milliseconds(other, percentile)
            found.append(Difference(phase, request, percentile, *values, float(low), float(high)))
    return found


def bins(of: HdrHistogram) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """(milliseconds, how many) of the bins that are not empty."""
    entries = [
        (item.value_iterated_to / 1000, item.count_added_in_this_iter_step) for item in of.get_recorded_iterator()
    ]
    values, counts = zip(*entries, strict=True) if entries else ((), ())
    return np.array(values, dtype=np.float64), np.array(counts, dtype=np.int64)


def _draws(of: HdrHistogram, percentile: float, seed: int) -> NDArray[np.float64]:
    values, counts = bins(of)
    total = int(counts.sum())
    chance = np.random.default_rng(seed)
    sums = chance.multinomial(total, counts / total, size=DRAWS).cumsum(axis=1)
    rank = np.ceil(total * percentile / 100)
    drawn: NDArray[np.float64] = values[(sums >= rank).argmax(axis=1)]
    return drawn
