"""Outlier ejection: a slot that answers nothing but errors is left alone for a while (Envoy's rules and defaults).

A slot is ejected after so many failures in a row (5xx, broken, refused or timed out). The time grows by its base with
each ejection and shrinks again with each quiet interval. At most a tenth of a service's slots, but at
least one, are out at a time. When fewer than half of the slots are left the fault is elsewhere, and all are used again
(panic threshold): a service that is down as a whole is not made worse by what is left of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fanfold.kit.logging import get_logger

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fanfold.gateway.upstream import Endpoint

log = get_logger(__name__)

MAX_EJECTION_SECONDS: Final = 300.0
MAX_EJECTED_SHARE: Final = 0.1
PANIC_SHARE: Final = 0.5
INTERVAL_SECONDS: Final = 10.0
"""Envoy: max_ejection_time, max_ejection_percent, healthy_panic_threshold, interval."""


class Outliers:
    """Watches the slots of all services.

    Args:
        errors: Failures in a row that eject; 0 never does.
        base_seconds: Time of a first ejection.
    """

    def __init__(self, errors: int, base_seconds: float) -> None:
        self._errors = errors
        self._base_seconds = base_seconds
        self._forgive_at = 0.0

    def failed(self, endpoint: Endpoint, group: Sequence[Endpoint], now: float) -> bool:
        """One more failure of ``endpoint``, a member of ``group``; whether that ejects it.

        Args:
            endpoint: The slot that failed.
            group: All slots of its service that take requests.
            now: Monotonic seconds.
        """
        endpoint.errors_in_row += 1
        if not self._errors or endpoint.errors_in_row < self._errors or endpoint.ejected:
            return False
        others = sum(one.available for one in group if one is not endpoint)
        if not may_eject(len(group), sum(one.ejected for one in group), others):
            return False
        endpoint.ejections += 1
        endpoint.errors_in_row = 0
        seconds = min(MAX_EJECTION_SECONDS, self._base_seconds * endpoint.ejections)
        endpoint.ejected = True
        endpoint.leave_alone(now + seconds)
        log.warning("slot_ejected", slot=endpoint.slot, address=endpoint.address, seconds=seconds)
        return True

    def sweep(self, group: Sequence[Endpoint]) -> None:
        """Use ejected slots again when too few others are left."""
        if sum(one.available for one in group) < PANIC_SHARE * len(group):
            for one in group:
                if one.ejected:
                    one.readmit()

    def forgive(self, endpoints: Sequence[Endpoint], now: float) -> None:
        """Once an interval: what was ejected and has behaved since is ejected for less long the next time."""
        if now < self._forgive_at:
            return
        self._forgive_at = now + INTERVAL_SECONDS
        for one in endpoints:
            if one.ejections and not one.ejected:
                one.ejections -= 1


def may_eject(slots: int, ejected: int, others: int) -> bool:
    """Whether one more slot may be left alone.

    Args:
        slots: Of the service, in all.
        ejected: Of these, how many are already.
        others: How many take requests, this one not among them: it may be unreachable already.
    """
    return ejected < max(1, int(MAX_EJECTED_SHARE * slots)) and others >= PANIC_SHARE * slots
