"""Takes in what watches, listings and our own writes tell of the cluster, and enqueues what that concerns."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING, Final

import structlog

from fanfold_operator import kinds, metrics
from fanfold_operator.handlers.routing import concerned, pause_turned
from fanfold_operator.kinds import key_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fanfold_operator.api import Api
    from fanfold_operator.kinds import Key, Kind, Manifest
    from fanfold_operator.store import Store

log = structlog.stdlib.get_logger(__name__)


REMEMBERED: Final = 10_000
"""Deletions remembered: more than happen while one listing is read."""


class Observer:
    """Keeps the store true. `enqueue(key, seconds)` asks for a reconcile."""

    def __init__(self, store: Store, enqueue: Callable[[Key, float], None]) -> None:
        self._store = store
        self._enqueue = enqueue
        self.begun_anew = asyncio.Event()
        """Set when a watch began with a listing: what was deleted before it, and after ours, no watch tells of."""
        self._deleted: deque[str] = deque(maxlen=REMEMBERED)
        """Uids of objects whose deletion was told: a listing on its way then may still have them."""
        self._owed: dict[Key, tuple[int, float]] = {}
        """What the watches have not told yet: the first such version of an object, and since when it is known."""

    def silent_seconds(self) -> float:
        """For how long the watches have kept back a change that is known: how far behind they are."""
        return time.monotonic() - min(since for _, since in self._owed.values()) if self._owed else 0.0

    def event(self, kind: str | None, manifest: Manifest) -> None:
        """A watch event: ADDED, MODIFIED, DELETED, or None for those of the first listing."""
        metrics.last_event.set_to_current_time()
        if kind is None:
            self.begun_anew.set()
        self._told(manifest, gone=kind == "DELETED")
        if kind == "DELETED":
            self._deleted.append(manifest["metadata"]["uid"])
            if self._store.remove(manifest):
                self._route(manifest)
        else:
            self._take(manifest)

    def observe(self, manifest: Manifest) -> None:
        """What the API server made of a write of ours; its echo in a watch will be no news."""
        if self._take(manifest):
            self._owe(manifest)

    def _take(self, manifest: Manifest) -> bool:
        """Whether it is newer than what is here; what it concerns is asked for then."""
        before = self._store.get(key_of(manifest))
        if not self._store.put(manifest):
            return False
        self._route(manifest)
        if pause_turned(before, manifest):
            for child in self._store.owned(key_of(manifest)):
                self._route(child)
        return True

    async def resync(self, api: Api, namespace: str | None, which: Iterable[Kind] = kinds.WATCHED) -> None:
        """List everything anew, or these kinds, and reconcile every custom resource.

        Raises:
            ApiError: A listing failed; what was listed before is taken.
        """
        started = time.monotonic()
        for kind in which:
            await self._list(api, namespace, kind)
        for kind in kinds.CUSTOM:
            for key in self._store.keys(kind):
                self._enqueue(key, 0.0)
        metrics.last_resync.set_to_current_time()
        log.debug("resynced", seconds=round(time.monotonic() - started, 3))

    async def _list(self, api: Api, namespace: str | None, kind: Kind) -> None:
        listed: set[Key] = set()
        version = 0
        async for page in api.pages(kind, namespace):
            version = int(page["metadata"]["resourceVersion"])
            gone = frozenset(self._deleted)
            items = [item for item in page["items"] if item["metadata"]["uid"] not in gone]
            there, changed = self._store.take(kind, items)
            listed |= there
            for now in filter(None, map(self._store.get, changed)):
                self._owe(now)
                self._route(now)
        known = {key: self._store.get(key) for key in self._store.keys(kind)}
        for key in self._store.keep(kind, listed, version):
            self._owed.pop(key, None)  # a watch that begins anew tells nothing of what is gone by then
            if before := known[key]:
                self._route(before)

    def _owe(self, manifest: Manifest) -> None:
        self._owed.setdefault(key_of(manifest), (int(manifest["metadata"]["resourceVersion"]), time.monotonic()))

    def _told(self, manifest: Manifest, *, gone: bool) -> None:
        key = key_of(manifest)
        version, since = self._owed.get(key, (0, 0.0))
        if version and (gone or int(manifest["metadata"]["resourceVersion"]) >= version):
            del self._owed[key]
            metrics.event_lag_seconds.observe(time.monotonic() - since)

    def _route(self, manifest: Manifest) -> None:
        for key, after in concerned(manifest).items():
            self._enqueue(key, after)
