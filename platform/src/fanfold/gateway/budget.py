"""How many requests may be sent a second time: a share of those of the last seconds (Finagle's RetryBudget).

A replica that dies takes all that it has with it at one moment. A budget that looks at requests under way (Envoy's)
then refuses most of them a second try, with two replicas three of five, however well the other one is. The same fifth
of ten seconds' requests carries them all; and a service that fails everybody still gets no more than a fifth on top.
"""

from __future__ import annotations

from collections import deque
from typing import Final

SHARE: Final = 0.2
WINDOW_SECONDS: Final = 10
RESERVE: Final = 20
"""Repeats in a window whatever the traffic: a fifth of next to nothing would be none."""


class RetryBudget:
    """Counts over a sliding window.

    Attributes:
        requests: Sent to a slot for the first time, since the start.
        repeats: Sent once more, hedges among them.
    """

    __slots__ = ("_marks", "_next_mark", "repeats", "requests")

    def __init__(self) -> None:
        self.requests = 0
        self.repeats = 0
        self._marks: deque[tuple[int, int]] = deque([(0, 0)], maxlen=WINDOW_SECONDS)
        self._next_mark = 0.0

    def tick(self, now: float) -> None:
        """Let the window slide (``now``: monotonic seconds). Called more often than once a second."""
        if now >= self._next_mark:
            self._next_mark = now + 1
            self._marks.append((self.requests, self.repeats))

    @property
    def left(self) -> float:
        """So many more may be sent again now."""
        requests, repeats = self._marks[0]
        return RESERVE + SHARE * (self.requests - requests) - (self.repeats - repeats)

    def spend(self) -> bool:
        """Take one repeat; whether there was one left."""
        if self.left < 1:
            return False
        self.repeats += 1
        return True
