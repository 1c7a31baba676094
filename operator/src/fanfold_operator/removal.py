"""Deleting Platforms before the operator is uninstalled: what the chart's pre-delete hook runs.

No object of ours has a finalizer, so nothing waits for an operator to be deleted, and this needs none that runs. It
waits with foreground deletion: Kubernetes keeps a Platform until all that belonged to it is gone.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import structlog

from fanfold_operator import kinds
from fanfold_operator.api import Api, ApiError, login
from fanfold_operator.kinds import Manifest, key_of

if TYPE_CHECKING:
    from collections.abc import Iterable

log = structlog.stdlib.get_logger(__name__)

LOOK_SECONDS: Final = 1.0
FOREGROUND: Final = "foregroundDeletion"


class StillThereError(Exception):
    """Platforms were not gone in time; the message names them and what they wait for."""


async def remove_platforms(namespace: str | None, seconds: float) -> int:
    """Delete all Platforms of one namespace or of all (None), and wait until they are gone; how many there were.

    An API server that cannot answer just now is asked again; Platforms that are made meanwhile are deleted too.

    Raises:
        LoginError: No access to Kubernetes.
        StillThereError: Not gone within so many seconds.
        ApiError: Not allowed to list or delete them.
    """
    api = Api(await login(), user_agent="fanfold-operator/removal")
    seen: set[str] = set()
    left: list[Manifest] | None = None
    try:
        async with asyncio.timeout(seconds):
            while True:
                try:
                    left = (await api.list(kinds.PLATFORM, namespace))["items"]
                    seen |= {one["metadata"]["uid"] for one in left}
                    await _delete(api, left)
                except ApiError as error:
                    if error.missing:  # the definitions are gone, and with them every Platform
                        return len(seen)
                    if error.status in {401, 403}:
                        raise
                    log.warning("asking_again", error=str(error))
                else:
                    if not left:
                        return len(seen)
                await asyncio.sleep(LOOK_SECONDS)
    except TimeoutError as error:
        raise StillThereError(_why(left, seconds)) from error
    finally:
        await api.close()


async def _delete(api: Api, platforms: Iterable[Manifest]) -> None:
    for one in platforms:
        if "deletionTimestamp" not in one["metadata"]:
            key = key_of({"kind": kinds.PLATFORM.kind, **one})
            log.info("deleting", object=str(key))
            await api.delete(key, one["metadata"]["uid"], propagation="Foreground")


def _why(left: list[Manifest] | None, seconds: float) -> str:
    if left is None:
        return f"the API server did not answer for {seconds:.0f} s"
    return f"not gone within {seconds:.0f} s: {', '.join(map(_waits, left))}"


def _waits(platform: Manifest) -> str:
    metadata = platform["metadata"]
    foreign = [name for name in metadata.get("finalizers", ()) if name != FOREGROUND]
    what = f"finalizers that are not ours: {', '.join(foreign)}" if foreign else "its pods and volumes"
    return f"{metadata['namespace']}/{metadata['name']} (waits for {what})"
