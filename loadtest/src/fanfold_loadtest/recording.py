"""What a run measured: histograms that can be added up over processes, never percentiles that cannot.

Latencies are kept in HdrHistograms (G. Tene) from 1 µs to 60 s with three significant digits for each phase and kind of
request, and with two digits for each interval of the timeline.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import msgspec
from hdrh.histogram import HdrHistogram

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_MICROSECONDS: Final = 60_000_000
"""Longer latencies are recorded as this."""
DIGITS: Final = 3
TIMELINE_DIGITS: Final = 2
INTERVALS: Final = 300
"""Most points of the timeline."""
SAMPLE_FAILURES: Final = 20


def histogram(digits: int = DIGITS) -> HdrHistogram:
    """An empty histogram of microseconds."""
    return HdrHistogram(1, MAX_MICROSECONDS, digits)


def record(into: HdrHistogram, seconds: float) -> None:
    """Add one latency."""
    into.record_value(min(MAX_MICROSECONDS, max(1, round(seconds * 1e6))))


def milliseconds(of: HdrHistogram, percentile: float) -> float:
    """A percentile in milliseconds; NaN of nothing."""
    if of.get_total_count() == 0:
        return math.nan
    return float(of.get_value_at_percentile(percentile)) / 1000


class Cell(msgspec.Struct):
    """One kind of request in one phase, or in one interval of the timeline.

    Attributes:
        latencies: Of good answers, an encoded HdrHistogram of microseconds.
        failed: Requests without a good answer.
    """

    latencies: str
    failed: int = 0


class Age(msgspec.Struct, frozen=True):
    """How old a post was when one follower first saw it; null seconds: not seen before the run ended."""

    phase: str
    seconds: float | None


class Mark(msgspec.Struct, frozen=True):
    """Something that happened, in seconds from the beginning."""

    at: float
    what: str


class Share(msgspec.Struct, kw_only=True):
    """What one process measured. `cells` by phase and request, `timeline` by request and interval.

    Attributes:
        arrivals: Requests that were to begin.
        late: Of these, begun more than `arrivals.LATE_SECONDS` late.
        dropped: Of these, not begun, for too many were under way.
        cpu_percent: Of one core, the generator's process, over the measured phases.
        sample: Messages of some failed requests.
        steps: The share of each measured phase that is over, by name, where the scenario looks for the capacity.
    """

    cells: dict[str, dict[str, Cell]] = {}
    timeline: dict[str, dict[int, Cell]] = {}
    ages: list[Age] = []
    marks: list[Mark] = []
    arrivals: int = 0
    late: int = 0
    dropped: int = 0
    cpu_percent: float = 0.0
    sample: list[str] = []
    steps: dict[str, Share] = {}


@dataclass(slots=True)
class Tally:
    """A cell that is being filled."""

    digits: int = DIGITS
    failed: int = 0
    latencies: HdrHistogram = field(init=False)

    def __post_init__(self) -> None:
        self.latencies = histogram(self.digits)

    def add(self, seconds: float, *, good: bool) -> None:
        """One answer."""
        if good:
            record(self.latencies, seconds)
        else:
            self.failed += 1

    def merge(self, cell: Cell) -> None:
        """What another process has."""
        self.latencies.decode_and_add(cell.latencies.encode())
        self.failed += cell.failed

    @property
    def count(self) -> int:
        """All answers, good or not."""
        return int(self.latencies.get_total_count()) + self.failed

    def cell(self) -> Cell:
        """As it is handed on."""
        return Cell(self.latencies.encode().decode(), self.failed)


class Recorder:
    """Fills cells and timeline; the sum of several processes is `Recorder.of` their shares.

    Args:
        seconds: Length of the run: sets the timeline's interval, at least one second, at most `INTERVALS` of them.
    """

    def __init__(self, seconds: float) -> None:
        self.interval = max(1.0, seconds / INTERVALS)
        self.cells: dict[tuple[str, str], Tally] = {}
        self.timeline: dict[tuple[str, int], Tally] = {}
        self.sample: list[str] = []

    @classmethod
    def of(cls, seconds: float, shares: Iterable[Share]) -> Recorder:
        """The sum of what several processes measured."""
        total = cls(seconds)
        for share in shares:
            for phase, requests in share.cells.items():
                for request, cell in requests.items():
                    total.cells.setdefault((phase, request), Tally()).merge(cell)
            for request, intervals in share.timeline.items():
                for interval, cell in intervals.items():
                    total.timeline.setdefault((request, int(interval)), Tally(TIMELINE_DIGITS)).merge(cell)
            total.sample = (total.sample + share.sample)[:SAMPLE_FAILURES]
        return total

    def add(self, phase: str, request: str, at: float, seconds: float, failure: str | None) -> None:
        """One answer, of a request that was to begin ``at`` seconds from the beginning."""
        # No setdefault: two histograms made and thrown away for each request took a tenth of the generator's CPU.
        cell, moment = (phase, request), (request, int(at / self.interval))
        if cell not in self.cells:
            self.cells[cell] = Tally()
        if moment not in self.timeline:
            self.timeline[moment] = Tally(TIMELINE_DIGITS)
        good = failure is None
        self.cells[cell].add(seconds, good=good)
        self.timeline[moment].add(seconds, good=good)
        if failure is not None:
            self.remark(f"{request}: {failure}")

    def remark(self, text: str) -> None:
        """Keep what went wrong, if not too much did already."""
        if len(self.sample) < SAMPLE_FAILURES:
            self.sample.append(text[:300])

    def put_into(self, share: Share) -> None:
        """Hand on what was measured."""
        for (phase, request), tally in self.cells.items():
            share.cells.setdefault(phase, {})[request] = tally.cell()
        for (request, interval), tally in self.timeline.items():
            share.timeline.setdefault(request, {})[interval] = tally.cell()
        share.sample = self.sample

    def total(self, phases: Iterable[str], request: str | None) -> Tally:
        """The sum over phases, of one kind of request or of all (None)."""
        wanted, total = set(phases), Tally()
        for (phase, name), tally in self.cells.items():
            if phase in wanted and request in {None, name}:
                total.latencies.add(tally.latencies)
                total.failed += tally.failed
        return total

    def requests(self) -> list[str]:
        """Kinds of request that were answered."""
        return sorted({request for _, request in self.cells})
