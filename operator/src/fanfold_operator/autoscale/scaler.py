"""The operator's own autoscaler of workers: measures, decides every 15 s, and writes the scale subresource."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
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
    task: asyncio.Task[None]
    since: float
    memory: Memory = field(default_factory=Memory)
    state: State | None = None


class Autoscaler:
    """One task per worker service; calls `changed(key)` when there is something new to tell."""

    def __init__(self, api: Api, store: Store, measure: Measure, changed: Callable[[Key], None]) -> None:
        self._api = api
        self._store = store
        self._measure = measure
        self._changed = changed
        self._followed: dict[Key, _Followed] = {}

    def follow(self, key: Key) -> State | None:
        """Scale this PlatformService from now on; what was last decided, None before the first decision."""
        if key not in self._followed:
            task = asyncio.create_task(self._run(key), name=f"autoscale {key}")
            self._followed[key] = _Followed(task, time.monotonic())
        return self._followed[key].state

    def forget(self, key: Key) -> None:
        """Leave it alone from now on."""
        if followed := self._followed.pop(key, None):
            followed.task.cancel()

    async def close(self) -> None:
        """Leave all alone; returns when nothing is written any more."""
        tasks = [followed.task for followed in self._followed.values()]
        for key in list(self._followed):
            self.forget(key)
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task

    async def _run(self, key: Key) -> None:
        while True:
            delay = SYNC_SECONDS
            try:
                if not await self._look(key):
                    delay = RETRY_SECONDS
            except ApiError as error:
                log.warning("scaling_failed", key=str(key), error=str(error))
                delay = RETRY_SECONDS if error.status == 409 else SYNC_SECONDS
            except Exception:
                log.exception("scaling_failed", key=str(key))
            await asyncio.sleep(delay)

    async def _look(self, key: Key) -> bool:
        """Whether there was something to decide."""
        resource = self._store.get(key)
        if resource is None:
            return False
        spec = parse(PlatformServiceSpec, resource)
        followed, law = self._followed[key], rules(spec)
        targets = self._targets(key, spec)
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
