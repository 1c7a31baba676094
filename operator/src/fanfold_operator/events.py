"""Kubernetes Events for conditions that turned: `kubectl describe` then tells the story. Repeats count up."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import structlog
import xxhash

from fanfold_operator.api import ApiError
from fanfold_operator.apply import EVENTS_MANAGER
from fanfold_operator.conditions import timestamp, transitions
from fanfold_operator.kinds import EVENT, Key, Manifest
from fanfold_operator.resources.meta import MANAGER

if TYPE_CHECKING:
    from fanfold_operator.api import Api

log = structlog.stdlib.get_logger(__name__)

_ALARMS: Final = frozenset({"Degraded", "OwnershipConflict"})
"""Conditions that are bad when True; of the others, only those in `_TOLD` are good when True."""
_TOLD: Final = frozenset({"Ready", "DatabaseReady", "CacheReady", "ObjectStoreReady", "MigrationsComplete"})
_ORDINARY: Final = frozenset({"Waiting", "Migrating", "PodNotReady", "PodsNotReady", "ServicesNotReady", "NoGateway"})
"""Reasons of something that is on its way: no Event, or a first start would tell dozens."""


class Recorder:
    """Writes Events. Failing to is logged, never an error: the state does not depend on them."""

    def __init__(self, api: Api) -> None:
        self._api = api

    async def record(self, resource: Manifest, conditions: list[dict[str, Any]]) -> None:
        """Tell which of the new `conditions` turned since `resource` was read."""
        before = resource.get("status", {}).get("conditions", ())
        for condition in transitions(before, conditions):
            if _worth_telling(condition):
                try:
                    await self._write(resource, condition)
                except ApiError as error:
                    log.warning("event_not_written", object=resource["metadata"]["name"], error=str(error))

    async def _write(self, resource: Manifest, condition: dict[str, Any]) -> None:
        metadata = resource["metadata"]
        text = f"{condition['type']} is {condition['status']}: {condition['message']}"[:1024]
        digest = xxhash.xxh3_64_hexdigest(f"{metadata['uid']} {condition['reason']} {text}".encode())
        key = Key(EVENT.kind, metadata["namespace"], f"{metadata['name']}.{digest}")
        now = timestamp(datetime.now(UTC))
        involved = {name: metadata[name] for name in ("name", "namespace", "uid", "resourceVersion")}
        body = {
            "apiVersion": EVENT.api_version,
            "kind": EVENT.kind,
            "metadata": {"name": key.name, "namespace": key.namespace},
            "involvedObject": {"apiVersion": resource["apiVersion"], "kind": resource["kind"], **involved},
            "reason": condition["reason"],
            "message": text,
            "type": "Warning" if _is_bad(condition) else "Normal",
            "count": 1,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "source": {"component": MANAGER},
        }
        try:
            await self._api.create(key, body, EVENTS_MANAGER)
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise
            count = (await self._api.get(key)).get("count", 1) + 1
            await self._api.merge(key, {"count": count, "lastTimestamp": now}, EVENTS_MANAGER)


def _is_bad(condition: dict[str, Any]) -> bool:
    is_true = bool(condition["status"] == "True")
    return is_true == (condition["type"] in _ALARMS)


def _worth_telling(condition: dict[str, Any]) -> bool:
    if condition["type"] in _ALARMS:
        return bool(condition["status"] == "True")
    return condition["type"] in _TOLD and condition["reason"] not in _ORDINARY
