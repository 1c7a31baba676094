"""How many requests a slot may have at once: increased while answers are quick, cut when they are not (AIMD).

Without it a queue forms at a slot past its capacity, every request waits as long as clients are patient, and nothing
that is answered is of use. With it the queue is as long as its answers take the target time, and what is too much is
refused at once. The limit follows measured latency, for nobody knows the capacity of a slot on somebody's machine. The
target is absolute: a baseline measured along the way (gradient, Vegas) creeps up in a lasting overload, or must be
found again and again at the cost of requests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from fanfold.gateway.upstream import Endpoint

FLOOR: Final = 16
"""So many a slot may always have: below, the mean of a few says nothing, and one slow answer would shut it."""
MIN_SAMPLES: Final = 8
GROWTH: Final = 1.1
STEEPEST_CUT: Final = 0.5


def next_limit(limit: int, mean_seconds: float, in_flight: int, target_seconds: float, most: int) -> int:
    """The limit for the next window.

    Args:
        limit: The present one.
        mean_seconds: Of the answers since it was set.
        in_flight: Requests under way now: what those answers shared the slot with.
        target_seconds: Above this the slot has too many.
        most: Never more than this.
    """
    if mean_seconds > target_seconds:
        return min(most, max(FLOOR, int(min(limit, in_flight) * max(STEEPEST_CUT, target_seconds / mean_seconds))))
    return min(most, int(limit * GROWTH) + 1)


def adapt(endpoint: Endpoint, target_seconds: float, most: int) -> None:
    """Set the limit of a slot anew, once there are enough answers to judge by."""
    if endpoint.samples < MIN_SAMPLES:
        return
    mean = endpoint.sampled_seconds / endpoint.samples
    endpoint.limit = next_limit(endpoint.limit, mean, endpoint.in_flight, target_seconds, most)
    endpoint.samples = 0
    endpoint.sampled_seconds = 0.0
