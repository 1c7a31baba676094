"""Which optional APIs the cluster serves: asked of the API server when needed, and not more often than worth it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import structlog

from fanfold_operator import kinds
from fanfold_operator.api import ApiError
from fanfold_operator.autoscale.rules import Apis

if TYPE_CHECKING:
    from fanfold_operator.api import Api
    from fanfold_operator.kinds import Kind

log = structlog.stdlib.get_logger(__name__)

REMEMBERED_SECONDS: Final = 60.0
CUSTOM_METRICS: Final = ("custom.metrics.k8s.io/v1beta2", "custom.metrics.k8s.io/v1beta1")


class Discovery:
    """Remembers for a minute. An API that cannot answer just now is what it was: adapters restart."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._known = Apis()
        self._asked_at: float | None = None
        self._turn = asyncio.Lock()

    async def apis(self) -> Apis:
        """What is served."""
        async with self._turn:
            now = asyncio.get_running_loop().time()
            if self._asked_at is None or now - self._asked_at >= REMEMBERED_SECONDS:
                self._known = await self._ask()
                self._asked_at = now
            return self._known

    async def _ask(self) -> Apis:
        before = self._known
        found = Apis(
            keda=await self._serves(kinds.SCALED_OBJECT, before=before.keda),
            gateway=await self._serves(kinds.HTTP_ROUTE, before=before.gateway),
            pod_metrics=await self._pod_metrics(before.pod_metrics),
        )
        if found != before:
            log.info("optional_apis", keda=found.keda, gateway=found.gateway, pod_metrics=len(found.pod_metrics))
        return found

    async def _serves(self, kind: Kind, *, before: bool) -> bool:
        try:
            return kind.plural in await self._api.resources(kind.api_version)
        except ApiError as error:
            log.warning("discovery_failed", api=kind.api_version, error=str(error))
            return before

    async def _pod_metrics(self, before: frozenset[str]) -> frozenset[str]:
        try:
            for version in CUSTOM_METRICS:
                if names := await self._api.resources(version):
                    return frozenset(name.removeprefix("pods/") for name in names if name.startswith("pods/"))
        except ApiError as error:
            log.warning("discovery_failed", api="custom.metrics.k8s.io", error=str(error))
            return before
        return frozenset()
