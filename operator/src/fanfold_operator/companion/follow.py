"""Logs of many pods at once, as they are written."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fanfold_operator.api import ApiError
from fanfold_operator.companion import lines, pods

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from fanfold_operator.companion.access import Cluster
    from fanfold_operator.companion.lines import Line
    from fanfold_operator.companion.pods import Pod
    from fanfold_operator.kinds import Manifest

LOOK_SECONDS: Final = 1.0
"""How often new pods, and new containers of old ones, are looked for."""
CONCURRENCY: Final = 16


@dataclass(frozen=True, slots=True)
class Range:
    """Which part of the past: the last `tail` lines of each pod, or the last `seconds`, or both."""

    tail: int | None
    seconds: int | None

    def query(self) -> dict[str, str]:
        """As the API's parameters."""
        asked = {"tailLines": self.tail, "sinceSeconds": self.seconds}
        return {name: str(value) for name, value in asked.items() if value is not None}


async def members(cluster: Cluster, platform: Manifest, services: Collection[str]) -> list[Pod]:
    """Pods of these services, or of all when none is named; those of Jobs that are done too."""
    found = [pods.read(one) for one in await cluster.pods(platform)]
    return sorted((pod for pod in found if not services or pod.service in services), key=lambda pod: pod.name)


async def history(cluster: Cluster, namespace: str, chosen: Collection[Pod], past: Range) -> list[list[Line]]:
    """What each pod wrote; one that has written nothing yet, or is gone by now, adds nothing."""
    turns = asyncio.Semaphore(CONCURRENCY)

    async def one(pod: Pod) -> list[Line]:
        try:
            async with turns, cluster.log(namespace, pod.name, **past.query()) as raw:
                return [lines.read(pod.service, pod.name, line.decode(errors="replace")) async for line in raw]
        except ApiError as error:
            if error.status in {400, 404}:
                return []
            raise

    return list(await asyncio.gather(*map(one, chosen)))


async def follow(
    cluster: Cluster,
    platform: Manifest,
    services: Collection[str],
    last: dict[str, str],
    show: Callable[[Line], None],
) -> None:
    """Show lines from now on, of pods there are and of pods to come, until cancelled.

    `last`: time of the line shown last, by pod; kept up to date.
    """
    readers: dict[str, asyncio.Task[None]] = {}
    async with asyncio.TaskGroup() as group:
        while True:
            with suppress(ApiError):  # a short outage of the API server ends no session
                for pod in await members(cluster, platform, services):
                    if pod.name not in readers or readers[pod.name].done():
                        read = _read(cluster, platform["metadata"]["namespace"], pod, last, show)
                        readers[pod.name] = group.create_task(read)
            await asyncio.sleep(LOOK_SECONDS)


async def _read(cluster: Cluster, namespace: str, pod: Pod, last: dict[str, str], show: Callable[[Line], None]) -> None:
    """One container's log to its end. The API takes whole seconds, so lines shown already come again: passed over."""
    query = {"follow": "true"} | ({"sinceTime": last[pod.name]} if pod.name in last else {})
    with suppress(ApiError):  # not started yet, gone, or cut off: looked at again while the pod is there
        async with cluster.log(namespace, pod.name, **query) as raw:
            async for text in raw:
                line = lines.read(pod.service, pod.name, text.decode(errors="replace"))
                if line.time > last.get(pod.name, ""):
                    last[pod.name] = line.time
                    show(line)
