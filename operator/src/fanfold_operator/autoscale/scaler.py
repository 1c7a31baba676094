"""The operator's own autoscaler of workers: measures, decides every 15 s, and writes the scale subresource."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

import structlog

from fanfold.contracts.resources import PlatformServiceSpec, parse
from fanfold_operator import metrics
from fanfold_operator.api import ApiError
from fanfold_operator.autoscale import backlog
from fanfold_operator.autoscale.decision import Memory, decide
from fanfold_operator.autoscale.report import State
from fanfold_operator.autoscale.rules import SYNC_SECONDS, rules
from fanfold_operator.conditions import timestamp
from fanfold_operator.keeper import Keeper
from fanfold_operator.kinds import ENDPOINT_SLICE
from fanfold_operator.ring.endpoints import admin_ports, by_service

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable

    from fanfold_operator.api import Api
    from fanfold_operator.autoscale.decision import Decision
    from fanfold_operator.kinds import Key, Manifest
    from fanfold_operator.scrape import Scrape
    from fanfold_operator.store import Store

    Measure = Callable[[Iterable[str], Collection[str]], Awaitable[list[Scrape]]]

log = structlog.stdlib.get_logger(__name__)

MANAGER: Final = "fanfold-autoscaler"
RETRY_SECONDS: Final = 1.0
"""After a write that came too late (the object had changed, which a moment later is known here), and until a first pod
is ready."""
START_SECONDS: Final = 120.0
"""Without a ready pod for so long after the start, metrics are missing; before, they are to come."""


@dataclass(slots=True)
class _Followed:
    since: float = field(default_factory=time.monotonic)
    memory: Memory = field(default_factory=Memory)
    state: State | None = None


class Autoscaler:
    """Scales each worker service; calls `changed(key)` when there is something new to tell."""

    def __init__(self, api: Api, store: Store, measure: Measure, changed: Callable[[Key], None]) -> None:
        self._api = api
        self._store = store
        self._measure = measure
        self._changed = changed
        self._keeper = Keeper(self._look, _Followed, name="autoscale", retry_seconds=SYNC_SECONDS)
        self.forget = self._keeper.forget
        self.close = self._keeper.close

    def follow(self, key: Key) -> State | None:
        """Scale this PlatformService from now on; what was last decided, None before the first decision."""
        return self._keeper.keep(key).state

    async def _look(self, key: Key, followed: _Followed) -> float:
        try:
            return SYNC_SECONDS if await self._decide(key, followed) else RETRY_SECONDS
        except ApiError as error:
            log.warning("scaling_failed", key=str(key), error=str(error))
            return RETRY_SECONDS if error.status == HTTPStatus.CONFLICT else SYNC_SECONDS

    async def _decide(self, key: Key, followed: _Followed) -> bool:
        """Whether there was something to decide."""
        resource = self._store.get(key)
        if resource is None:
            return False
        spec = parse(PlatformServiceSpec, resource)
        law, targets = rules(spec), self._targets(key, spec)
        starts = followed.state is None and time.monotonic() - followed.since < START_SECONDS
        if not spec.replicas or (starts and not targets):
            return False
        scrapes = await self._measure(targets, backlog.NAMES)
        current, now = law.clamp(spec.replicas), time.monotonic()
        decision = decide(current, len(targets), backlog.metrics(spec, scrapes), law, followed.memory, now)
        followed.memory = decision.memory
        scaled_at = (followed.state.scaled_at if followed.state else None) or _scaled_at(resource)
        if decision.replicas != current and spec.autoscaling.mode == "Auto":
            await self._scale(key, resource, decision)
            followed.memory = decision.memory.acted(now, decision.replicas - current)
            scaled_at = timestamp(datetime.now(UTC))
        self._publish(key, followed, State(decision.replicas, decision.why, decision.missing, scaled_at))
        return True

    async def _scale(self, key: Key, resource: Manifest, decision: Decision) -> None:
        """Set the replicas, unless somebody has written the object since it was looked at."""
        log.info("scaling", key=str(key), replicas=decision.replicas, why=decision.why)
        version = resource["metadata"]["resourceVersion"]
        body = {"metadata": {"resourceVersion": version}, "spec": {"replicas": decision.replicas}}
        await self._api.merge(key, body, MANAGER, subresource="scale")
        metrics.autoscaler_scalings.labels(key.namespace, key.name).inc()

    def _publish(self, key: Key, followed: _Followed, state: State) -> None:
        """The numbers of a steady load change all the time; they are told when what follows from them changes."""
        known = followed.state
        if known is None or replace(known, why=state.why) != state:
            followed.state = state
            self._changed(key)

    def _targets(self, key: Key, spec: PlatformServiceSpec) -> list[str]:
        """Admin ports of the ready pods."""
        slices = self._store.of_platform(ENDPOINT_SLICE, key.namespace, spec.platform)
        return admin_ports(one for one in by_service(slices).get(spec.component, ()) if one.usable)


def _scaled_at(resource: Manifest) -> str | None:
    """As an earlier operator told it."""
    at: str | None = resource.get("status", {}).get("autoscaling", {}).get("lastScaleTime")
    return at
