"""Status conditions after the Kubernetes API conventions: what is so, why, since when, and for which generation."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition as planned; `status` None is Unknown."""

    type: str
    status: bool | None
    reason: str
    message: str

    def encoded_status(self) -> str:
        """True, False or Unknown."""
        return "Unknown" if self.status is None else str(self.status)


def timestamp(moment: datetime) -> str:
    """RFC 3339 in whole seconds of UTC, as the API writes times."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def merge(
    previous: Iterable[dict[str, Any]], planned: Iterable[Condition], generation: int, now: datetime
) -> list[dict[str, Any]]:
    """The conditions to write, in order of their types; a time is kept as long as the status stays."""
    before = {condition["type"]: condition for condition in previous}
    merged = []
    for condition in sorted(planned, key=lambda one: one.type):
        status = condition.encoded_status()
        known = before.get(condition.type)
        since = known["lastTransitionTime"] if known and known["status"] == status else timestamp(now)
        merged.append(
            {
                "type": condition.type,
                "status": status,
                "reason": condition.reason,
                "message": condition.message,
                "lastTransitionTime": since,
                "observedGeneration": generation,
            }
        )
    return merged


def find(resource: dict[str, Any] | None, kind: str) -> dict[str, Any] | None:
    """A condition of a live object, if it has it."""
    conditions = (resource or {}).get("status", {}).get("conditions", ())
    return next((condition for condition in conditions if condition["type"] == kind), None)


def is_true(resource: dict[str, Any] | None, kind: str) -> bool:
    """Whether a live object has this condition with status True."""
    condition = find(resource, kind)
    return condition is not None and condition["status"] == "True"


def transitions(previous: Iterable[dict[str, Any]], current: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Conditions whose status or reason is new."""
    before = {condition["type"]: (condition["status"], condition["reason"]) for condition in previous}
    return [one for one in current if before.get(one["type"]) != (one["status"], one["reason"])]
