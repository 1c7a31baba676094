"""Where snapshots come from: a file, or one ConfigMap that is watched."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import httpx
import msgspec

from fanfold.contracts.snapshot import SNAPSHOT_KEY
from fanfold.gateway.kube import Access, ConfigMapApi, KubeError
from fanfold.kit.logging import get_logger

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fanfold.gateway.kube import ConfigMap
    from fanfold.gateway.settings import GatewaySettings

log = get_logger(__name__)

FILE_POLL_SECONDS: Final = 0.2
_RETRY_SECONDS: Final = (0.2, 0.5, 1.0, 2.0, 5.0)
_HELD_SECONDS: Final = 30.0
"""What worked for so long has failed for the first time again."""


class Deliver(Protocol):
    """Takes a snapshot's bytes and the name of their source."""

    def __call__(self, data: bytes | str, source: str) -> Awaitable[object]:
        """One delivery."""


class FileSource:
    """A file, looked at five times a second: `stat` is cheaper than the libraries that would spare it."""

    def __init__(self, path: Path, poll_seconds: float) -> None:
        self._path = path
        self._poll_seconds = poll_seconds

    async def run(self, deliver: Deliver) -> None:
        """Deliver at each change, and at least once every ``poll_seconds``."""
        seen: tuple[int, int, int] | None = None
        quiet = 0.0
        while True:
            try:
                status = self._path.stat()
                stamp = (status.st_mtime_ns, status.st_ino, status.st_size)
                if stamp != seen or quiet >= self._poll_seconds:
                    await deliver(self._path.read_bytes(), "file")
                    seen, quiet = stamp, 0.0
            except OSError as error:
                if seen is not None:
                    log.warning("snapshot_file_unreadable", path=str(self._path), error=str(error))
                seen = None
            quiet += FILE_POLL_SECONDS
            await asyncio.sleep(FILE_POLL_SECONDS)


class ConfigMapSource:
    """One ConfigMap: a watch tells of changes, a plain read every ``poll_seconds`` is the floor under it."""

    def __init__(self, namespace: str, name: str, poll_seconds: float) -> None:
        self._namespace = namespace
        self._name = name
        self._poll_seconds = poll_seconds
        self._watched = 0

    async def run(self, deliver: Deliver) -> None:
        """Deliver until cancelled; the API server may come and go.

        Raises:
            KubeError: Nothing says where the API server is.
        """
        api = ConfigMapApi(Access.find(), self._namespace, self._name)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._forever("watch", lambda: self._watch(api, deliver)))
                group.create_task(self._forever("poll", lambda: self._poll(api, deliver)))
        finally:
            await api.close()

    async def _forever(self, what: str, step: Callable[[], Awaitable[None]]) -> None:
        failures = 0
        while True:
            began = time.monotonic()
            try:
                await step()
                failures = 0
            except (KubeError, httpx.HTTPError, msgspec.DecodeError, OSError) as error:
                failures = 0 if time.monotonic() - began > _HELD_SECONDS else failures
                pause = _RETRY_SECONDS[min(failures, len(_RETRY_SECONDS) - 1)]
                failures += 1
                log.warning("snapshot_source_failed", step=what, error=f"{type(error).__name__}: {error}"[:300])
                await asyncio.sleep(pause)

    async def _watch(self, api: ConfigMapApi, deliver: Deliver) -> None:
        async for found in api.watch():
            if found is None:
                log.error("snapshot_config_map_deleted", namespace=self._namespace, name=self._name)
            else:
                self._watched += 1
                await self._deliver(found, deliver, "watch")

    async def _poll(self, api: ConfigMapApi, deliver: Deliver) -> None:
        before = self._watched
        found = await api.read()
        if self._watched == before:  # else the watch was faster, and this may be older than what it brought
            await self._deliver(found, deliver, "poll")
        await asyncio.sleep(self._poll_seconds)

    async def _deliver(self, config_map: ConfigMap, deliver: Deliver, source: str) -> None:
        data = (config_map.data or {}).get(SNAPSHOT_KEY)
        if data is None:
            log.error("snapshot_key_missing", namespace=self._namespace, name=self._name, key=SNAPSHOT_KEY)
            return
        await deliver(data, source)


def source_of(settings: GatewaySettings) -> FileSource | ConfigMapSource:
    """The source that ``FANFOLD_SNAPSHOT_SOURCE`` names."""
    kind, _, where = settings.snapshot_source.partition(":")
    if kind == "file":
        return FileSource(Path(where), settings.snapshot_poll_seconds)
    namespace, _, name = where.partition("/")
    return ConfigMapSource(namespace, name, settings.snapshot_poll_seconds)
