"""Kubernetes Events for conditions that turned: `kubectl describe` then tells the story, in few words.

Events of ``events.k8s.io/v1``. The same once more is one Event whose series counts up; many different ones of one kind
about one object become one that says so.
"""

from __future__ import annotations

import socket
from collections import OrderedDict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import structlog
import xxhash

from fanfold_operator.api import ApiError
from fanfold_operator.apply import EVENTS_MANAGER
from fanfold_operator.conditions import transitions
from fanfold_operator.kinds import EVENT, Key, Manifest

if TYPE_CHECKING:
    from collections.abc import Callable

    from fanfold_operator.api import Api

log = structlog.stdlib.get_logger(__name__)

CONTROLLER: Final = "fanfold.dev/operator"
NOTE_CHARACTERS: Final = 1024
"""The API server takes no more."""
DIFFERENT: Final = 10
WINDOW: Final = timedelta(minutes=10)
"""More different notes of one reason about one object within this time are told as one, as client-go does."""
REMEMBERED: Final = 4096
"""Objects and reasons whose notes are remembered."""

_ALARMS: Final = frozenset({"Degraded", "OwnershipConflict"})
"""Conditions that are bad when True; of the others, only those in `_TOLD` are good when True."""
_TOLD: Final = frozenset({
    "Ready",
    "DatabaseReady",
    "CacheReady",
    "ObjectStoreReady",
    "MigrationsComplete",
    "UpToDate",
    "Exposed",
    "AutoscalingActive",
    "Passed",
})  # fmt: skip
_ORDINARY: Final = frozenset({
    "Waiting",
    "Installing",
    "Migrating",
    "RollingOut",
    "Gating",
    "PodNotReady",
    "PodsNotReady",
    "ServicesNotReady",
    "NoGateway",
    "Active",
    "Off",
    "FixedSize",
    "Stopped",
    "DryRun",
    "NotFinished",
})  # fmt: skip
"""Reasons of something that is on its way, or as it was asked to be: no Event, or a first start would tell dozens."""


class Grouping:
    """Which notes are told as they are, and which as one of many. Pure but for its memory, which is bounded."""

    def __init__(self) -> None:
        self._notes: OrderedDict[tuple[str, str], dict[str, datetime]] = OrderedDict()

    def told_as(self, uid: str, reason: str, note: str, now: datetime) -> str:
        """`note`, or what stands for it and all later ones."""
        known = self._notes.pop((uid, reason), {})
        recent = {text: at for text, at in known.items() if now - at < WINDOW}
        self._notes[uid, reason] = recent
        if len(self._notes) > REMEMBERED:
            self._notes.popitem(last=False)
        if note in recent or len(recent) < DIFFERENT:
            recent[note] = now
            return note
        return f"(combined from similar events): {reason} again and again; the status tells the newest"


class Recorder:
    """Writes Events. Failing to is logged, never an error: the state does not depend on them."""

    def __init__(self, api: Api, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._api = api
        self._clock = clock
        self._grouping = Grouping()
        self._instance = socket.gethostname()[:128]

    async def record(self, resource: Manifest, conditions: list[dict[str, Any]]) -> None:
        """Tell which of the new `conditions` turned since `resource` was read."""
        before = resource.get("status", {}).get("conditions", ())
        for condition in transitions(before, conditions):
            if _worth_telling(condition):
                note = f"{condition['type']} is {condition['status']}: {condition['message']}"
                await self.tell(resource, condition["reason"], note, warning=_is_bad(condition))

    async def tell(
        self, resource: Manifest, reason: str, note: str, *, action: str = "Reconcile", warning: bool = False
    ) -> None:
        """Tell of one thing that happened to a custom resource."""
        now = self._clock()
        text = self._grouping.told_as(resource["metadata"]["uid"], reason, note[:NOTE_CHARACTERS], now)
        try:
            await self._write(resource, reason, text, now, action, "Warning" if warning else "Normal")
        except ApiError as error:
            log.warning("event_not_written", object=resource["metadata"]["name"], error=str(error))

    async def _write(  # noqa: PLR0913, PLR0917 - private, and all that an Event consists of
        self, resource: Manifest, reason: str, note: str, now: datetime, action: str, kind: str
    ) -> None:
        metadata = resource["metadata"]
        digest = xxhash.xxh3_64_hexdigest(f"{metadata['uid']} {kind} {reason} {action} {note}".encode())
        key = Key(EVENT.kind, metadata["namespace"], f"{metadata['name']}.{digest}")
        regarding = {name: metadata[name] for name in ("name", "namespace", "uid", "resourceVersion")}
        body = {
            "apiVersion": EVENT.api_version,
            "kind": EVENT.kind,
            "metadata": {"name": key.name, "namespace": key.namespace},
            "eventTime": _micro_time(now),
            "reportingController": CONTROLLER,
            "reportingInstance": self._instance,
            "action": action,
            "reason": reason,
            "regarding": {"apiVersion": resource["apiVersion"], "kind": resource["kind"], **regarding},
            "note": note,
            "type": kind,
        }
        try:
            await self._api.create(key, body, EVENTS_MANAGER)
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise
            count = ((await self._api.get(key)).get("series") or {}).get("count", 1) + 1
            series = {"count": count, "lastObservedTime": _micro_time(now)}
            await self._api.merge(key, {"series": series}, EVENTS_MANAGER)


def _micro_time(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _is_bad(condition: dict[str, Any]) -> bool:
    is_true = bool(condition["status"] == "True")
    return is_true == (condition["type"] in _ALARMS)


def _worth_telling(condition: dict[str, Any]) -> bool:
    if condition["type"] in _ALARMS:
        return bool(condition["status"] == "True")
    return condition["type"] in _TOLD and condition["reason"] not in _ORDINARY
