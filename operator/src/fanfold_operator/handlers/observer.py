"""Takes in what watches, listings and our own writes tell of the cluster, and enqueues what that concerns."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import structlog

from fanfold_operator import kinds, metrics
from fanfold_operator.handlers.routing import concerned, pause_turned
from fanfold_operator.kinds import key_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from fanfold_operator.api import Api
    from fanfold_operator.kinds import Key, Manifest
    from fanfold_operator.store import Store

log = structlog.stdlib.get_logger(__name__)


class Observer:
    """Keeps the store true. `enqueue(key, seconds)` asks for a reconcile."""

    def __init__(self, store: Store, enqueue: Callable[[Key, float], None]) -> None:
        self._store = store
        self._enqueue = enqueue

    def event(self, kind: str | None, manifest: Manifest) -> None:
        """A watch event: ADDED, MODIFIED, DELETED, or None for those of the first listing."""
        metrics.last_event.set_to_current_time()
        if kind == "DELETED":
            if self._store.remove(manifest):
                self._route(manifest)
        else:
            self.observe(manifest)

    def observe(self, manifest: Manifest) -> None:
        """A newer copy of an object. One we have already is ignored, such as the echo of our own write."""
        before = self._store.get(key_of(manifest))
        if not self._store.put(manifest):
            return
        self._route(manifest)
        if pause_turned(before, manifest):
            for child in self._store.owned(key_of(manifest)):
                self._route(child)

    async def resync(self, api: Api, namespace: str | None) -> None:
        """List everything anew, and reconcile every custom resource.

        Raises:
            ApiError: A listing failed; what was listed before is taken.
        """
        started = time.monotonic()
        for kind in kinds.WATCHED:
            listing = await api.list(kind, namespace)
            version = int(listing["metadata"]["resourceVersion"])
            known = {key: self._store.get(key) for key in self._store.keys(kind)}
            for key in self._store.replace(kind, listing["items"], version):
                changed = self._store.get(key) or known.get(key)
                if changed:
                    self._route(changed)
        for kind in kinds.CUSTOM:
            for key in self._store.keys(kind):
                self._enqueue(key, 0.0)
        metrics.last_resync.set_to_current_time()
        log.debug("resynced", seconds=round(time.monotonic() - started, 3))

    def _route(self, manifest: Manifest) -> None:
        for key, after in concerned(manifest).items():
            self._enqueue(key, after)
