"""The only writer: server-side apply with a field manager per concern, and nothing when nothing changed.

A field somebody edited by hand (operation Update) is drift and is taken back. A field another manager *applied* is a
declared ownership: it is not fought over, the object is left as it is, and the conflict is reported.
"""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import structlog

from fanfold_operator.api import ApiError
from fanfold_operator.differences import APPLIED_ANNOTATION, contains, stamped
from fanfold_operator.kinds import Key, Manifest, key_of
from fanfold_operator.planning.actions import Conflict
from fanfold_operator.planning.acts import RESTARTED

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fanfold_operator.api import Api
    from fanfold_operator.planning.actions import Actions
    from fanfold_operator.planning.acts import Deeds
    from fanfold_operator.store import Store

log = structlog.stdlib.get_logger(__name__)

PLATFORM_MANAGER: Final = "fanfold-platform"
SERVICE_MANAGER: Final = "fanfold-service"
RING_MANAGER: Final = "fanfold-ring"
LOAD_TEST_MANAGER: Final = "fanfold-loadtest"
STATUS_MANAGER: Final = "fanfold-status"
CREDENTIALS_MANAGER: Final = "fanfold-credentials"
EVENTS_MANAGER: Final = "fanfold-events"
ACTS_MANAGER: Final = "fanfold-acts"


@dataclass(frozen=True, slots=True)
class _Refusal:
    """A conflict as of one version of the object and of our manifest: not tried again until either changes."""

    version: str
    digest: str
    conflict: Conflict


class Writer:
    """Writes, and tells `observe` what the API server made of it."""

    def __init__(self, api: Api, store: Store, observe: Callable[[Manifest], Any]) -> None:
        self._api = api
        self._store = store
        self._observe = observe
        self._refused: dict[Key, _Refusal] = {}

    async def bring_about(
        self, actions: Actions, manager: str, observed: Mapping[Key, Manifest] | None = None
    ) -> tuple[Conflict, ...]:
        """Apply and delete what a plan asks for; the conflicts met. `observed`: live objects the store does not hold.

        Raises:
            ApiError: The API server refused for another reason, or cannot be reached.
        """
        live = observed or {}
        conflicts = [await self.apply(manifest, manager, live.get(key_of(manifest))) for manifest in actions.apply]
        for manifest in actions.delete:
            await self.delete(manifest)
        return tuple(conflict for conflict in conflicts if conflict)

    async def apply(self, manifest: Manifest, manager: str, observed: Manifest | None = None) -> Conflict | None:
        """Apply one object unless it already is so. `observed`: its live state, if the store does not hold its kind."""
        key, desired = key_of(manifest), stamped(manifest)
        observed = observed or self._store.get(key)
        if observed is not None:
            if "deletionTimestamp" in observed["metadata"] or _unchanged(observed, desired):
                return None
            refusal = self._refused.get(key)
            if refusal and refusal.version == _version(observed) and refusal.digest == _digest(desired):
                return refusal.conflict
        try:
            answer = await self._api.apply(key, desired, manager)
        except ApiError as error:
            managers = error.conflicting_managers()
            if not managers:
                raise
            return await self._resolve(key, desired, manager, managers)
        self._accept(key, answer, created=observed is None)
        return None

    async def status(self, resource: Manifest, status: dict[str, Any]) -> bool:
        """Write a custom resource's status if it differs; whether it did."""
        if resource.get("status", {}) == status:
            return False
        metadata = {name: resource["metadata"][name] for name in ("name", "namespace", "uid")}
        body = {"apiVersion": resource["apiVersion"], "kind": resource["kind"], "metadata": metadata, "status": status}
        try:
            answer = await self._api.apply(key_of(resource), body, STATUS_MANAGER, force=True, subresource="status")
        except ApiError as error:
            if error.missing:
                return False
            raise
        self._observe(answer)
        return True

    async def delete(self, manifest: Manifest) -> None:
        """Delete what is there and not being deleted yet."""
        if "deletionTimestamp" not in manifest["metadata"]:
            log.info("deleting", object=str(key_of(manifest)))
            await self._api.delete(key_of(manifest), manifest["metadata"]["uid"])

    async def do(self, deeds: Deeds) -> None:
        """What a load test has done: evict pods, restart Deployments. What a budget refuses is asked for again."""
        for pod in deeds.evict:
            log.info("evicting", object=str(pod))
            try:
                await self._api.evict(pod)
            except ApiError as error:
                if error.status != HTTPStatus.TOO_MANY_REQUESTS:
                    raise
        for deployment, stamp in deeds.restart:
            log.info("restarting", object=str(deployment))
            body = {"spec": {"template": {"metadata": {"annotations": {RESTARTED: stamp}}}}}
            self._observe(await self._api.merge(deployment, body, ACTS_MANAGER))

    async def _resolve(self, key: Key, desired: Manifest, manager: str, managers: dict[str, str]) -> Conflict | None:
        """Take back what was edited; leave what is applied by another."""
        live = await self._api.get(key)
        appliers = {one["manager"] for one in live["metadata"].get("managedFields", ()) if one["operation"] == "Apply"}
        owned = {field: other for field, other in managers.items() if other in appliers}
        if not owned:
            log.info("taking_back", object=str(key), fields=sorted(managers), managers=sorted(set(managers.values())))
            self._accept(key, await self._api.apply(key, desired, manager, force=True), created=False)
            return None
        conflict = Conflict(key, ", ".join(sorted(set(owned.values()))), tuple(sorted(owned)))
        self._refused[key] = _Refusal(_version(live), _digest(desired), conflict)
        log.warning("left_to_other_manager", conflict=str(conflict))
        return conflict

    def _accept(self, key: Key, answer: Manifest, *, created: bool) -> None:
        self._refused.pop(key, None)
        log.info("created" if created else "applied", object=str(key))
        if key.type.watched:
            self._observe(answer)


def _unchanged(observed: Manifest, desired: Manifest) -> bool:
    return _digest(observed) == _digest(desired) and contains(observed, desired)


def _digest(manifest: Manifest) -> str:
    return str(manifest["metadata"].get("annotations", {}).get(APPLIED_ANNOTATION, ""))


def _version(manifest: Manifest) -> str:
    return str(manifest["metadata"]["resourceVersion"])
