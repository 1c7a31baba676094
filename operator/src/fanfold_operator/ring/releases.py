"""Lets leaving pods go: each waits in its preStop hook until no gateway sends to it any more.

Kubernetes takes a terminating pod out of the EndpointSlices and stops it at the same time; nothing there waits for
those who route. Here somebody knows who they are and what they use, so a pod's port closes after they all have turned
away, not some seconds later and in the hope that this was enough.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import structlog

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

    from fanfold_operator.kinds import Key

    Tell = Callable[[str], Awaitable[bool]]

log = structlog.stdlib.get_logger(__name__)

ATTEMPTS: Final = 4
FIRST_RETRY_SECONDS: Final = 0.1


class Releases:
    """Remembers, by ring, since which epoch each leaving pod owns no keys, and tells it once it may go."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._since: dict[Key, dict[str, int]] = {}
        self._told: dict[str, asyncio.Task[None]] = {}

    def follow(self, key: Key, epoch: int, leaving: Collection[str], least: int) -> None:
        """Take note of the ring as it is now.

        Args:
            key: The ring.
            epoch: The snapshot's, in which none of `leaving` owns keys.
            leaving: Admin ports of pods that are terminating and whose keys somebody else can serve.
            least: The oldest epoch that any gateway may still use.
        """
        known = self._since.get(key, {})
        since = {pod: known.get(pod, epoch) for pod in leaving}
        self._forget(known.keys() - since.keys())
        self._since[key] = since
        for pod, left in since.items():
            if least >= left and pod not in self._told:
                self._told[pod] = asyncio.create_task(self._release(pod), name=f"release {pod}")

    def forget(self, key: Key) -> None:
        """A ring is gone."""
        self._forget(self._since.pop(key, {}))

    def close(self) -> None:
        """Stop telling."""
        for key in list(self._since):
            self.forget(key)

    def _forget(self, pods: Collection[str]) -> None:
        for pod in pods:
            if task := self._told.pop(pod, None):
                task.cancel()

    async def _release(self, pod: str) -> None:
        for attempt in range(ATTEMPTS):
            if await self._tell(pod):
                log.debug("released", pod=pod)
                return
            await asyncio.sleep(FIRST_RETRY_SECONDS * 2**attempt)
        log.warning("not_released", pod=pod, consequence="it leaves when its own wait is over")
