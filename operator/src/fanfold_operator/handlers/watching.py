"""Kopf's part: watches of all kinds, handed to the observer as they come. Nothing is written through Kopf."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, Final

import kopf

from fanfold.contracts.resources import GROUP
from fanfold_operator import kinds
from fanfold_operator.api import PAGE

if TYPE_CHECKING:
    from fanfold_operator.handlers.observer import Observer

SILENCE_SECONDS: Final = 75.0
"""The API server sends a bookmark every minute; a watch without any is dead, however open its connection looks."""
RECONNECT_SECONDS: Final = 2.0
IDLE_SECONDS: Final = 0.1
"""Kopf keeps a task for each object with the last event it saw, for five seconds unless told otherwise: when everything
is listed at the start, that is the whole cluster twice."""


def registry(observer: Observer) -> kopf.OperatorRegistry:
    """One handler of raw events per kind, and the login."""
    handlers = kopf.OperatorRegistry()
    kopf.on.login(registry=handlers)(_login)
    for kind in kinds.WATCHED:

        async def handle(event: Any, **_: Any) -> None:
            observer.event(event["type"], event["object"])

        kopf.on.event(
            group=kind.group, version=kind.version, plural=kind.plural, id=f"observe-{kind.plural}", registry=handlers
        )(handle)
    return handlers


def settings() -> kopf.OperatorSettings:
    """Quiet, bounded, and with filters on the server's side."""
    chosen = kopf.OperatorSettings()
    chosen.posting.enabled = False
    chosen.scanning.disabled = True
    chosen.watching.inactivity_timeout = SILENCE_SECONDS
    chosen.watching.connect_timeout = 10
    chosen.watching.reconnect_backoff = 0.5
    chosen.watching.chunk_size = PAGE
    chosen.networking.request_timeout = 30
    # Kopf's growing pauses end with giving up, and after an outage of half a minute they last as long again.
    chosen.networking.error_backoffs = itertools.repeat(RECONNECT_SECONDS)
    chosen.queueing.exit_timeout = 1
    chosen.queueing.idle_timeout = IDLE_SECONDS
    chosen.persistence.finalizer = f"{GROUP}/finalizer"
    chosen.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=GROUP)
    chosen.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(prefix=GROUP)
    for kind in kinds.WATCHED:
        if kind.label_selector:
            chosen.watching.label_selectors[kind.group, kind.version, kind.plural] = kind.label_selector
    return chosen


def _login(**arguments: Any) -> kopf.ConnectionInfo | None:
    return kopf.login_with_service_account(**arguments) or kopf.login_with_kubeconfig(**arguments)
