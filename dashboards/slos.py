"""Service level objectives, and what follows from each: recorded ratios, and alerts on the rate its budget burns at.

Multi-window, multi-burn-rate alerts as in Google's *Site Reliability Workbook*, chapter 5: an alert fires while both a
long window and a twelfth of it burn the error budget of 30 days too fast, so that it comes soon and goes soon.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

BY: Final = "namespace, platform"
DAYS: Final = 30


@dataclass(frozen=True, slots=True)
class Burn:
    """One pair of windows.

    Attributes:
        factor: Times the rate that would use up the budget in just `DAYS`.
        long: The window that says that it matters.
        short: The window that says that it still goes on.
        severity: ``critical`` wakes somebody, ``warning`` waits for the morning.
        spent: What part of the budget is gone when it fires.
    """

    factor: float
    long: str
    short: str
    severity: str
    spent: str


BURNS: Final = (
    Burn(14.4, "1h", "5m", "critical", "2 % in an hour"),
    Burn(6, "6h", "30m", "critical", "5 % in six hours"),
    Burn(1, "3d", "6h", "warning", "10 % in three days"),
)
WINDOWS: Final = ("5m", "30m", "1h", "6h", "3d")


@dataclass(frozen=True, slots=True)
class Objective:
    """What share of events may be bad.

    Attributes:
        name: In recorded names.
        alert: Of its alerts, and of their runbook.
        budget: Share of events that may be bad.
        promise: One sentence with the objective.
        bad: PromQL of bad events, ``WINDOW`` in the place of the window.
        all: PromQL of all events.
    """

    name: str
    alert: str
    budget: float
    promise: str
    bad: str
    all: str

    def record(self, window: str) -> str:
        """Name of the recorded share of bad events."""
        return f"fanfold:{self.name}:ratio_rate{window}"

    def ratio(self, window: str) -> str:
        """PromQL of that share."""
        return f"({self.bad}) / ({self.all} > 0)".replace("WINDOW", window)

    def burning(self, burn: Burn) -> str:
        """PromQL: the budget burns too fast, over both windows."""
        limit = f"{burn.factor:g} * {self.budget:g}"
        return f"{self.record(burn.long)} > {limit} and {self.record(burn.short)} > {limit}"


def _beyond(histogram: str, bound: str, matchers: str = "") -> tuple[str, str]:
    """Observations above a bucket's bound, and all."""
    inside = f"{{{matchers}}}" if matchers else ""
    within = f'{{{matchers}{"," if matchers else ""}le="{bound}"}}'
    every = f"sum by ({BY}) (rate({histogram}_count{inside}[WINDOW]))"
    return f"{every} - sum by ({BY}) (rate({histogram}_bucket{within}[WINDOW]))", every


_SLOW = _beyond("fanfold_gateway_request_duration_seconds", "0.25", 'route="/v1/feed"')
_LATE = _beyond("fanfold_fanout_delivery_age_seconds", "5.0")

AVAILABILITY: Final = Objective(
    "gateway_errors",
    "FanfoldGatewayErrors",
    0.001,
    "99.9 % of requests are answered without a server error",
    f'sum by ({BY}) (rate(fanfold_gateway_requests_total{{status=~"5.."}}[WINDOW]))'
    f" or 0 * sum by ({BY}) (rate(fanfold_gateway_requests_total[WINDOW]))",
    f"sum by ({BY}) (rate(fanfold_gateway_requests_total[WINDOW]))",
)
LATENCY: Final = Objective(
    "feed_reads_slow", "FanfoldFeedReadsSlow", 0.01, "99 % of feed reads are answered within 250 ms", *_SLOW
)
FRESHNESS: Final = Objective(
    "posts_late", "FanfoldPostsLate", 0.01, "99 % of deliveries reach feeds within 5 s of the post", *_LATE
)
OBJECTIVES: Final = (AVAILABILITY, LATENCY, FRESHNESS)
