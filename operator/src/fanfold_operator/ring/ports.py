"""The admin ports of a platform's pods, over HTTP: what gateways use, leave for pods to go, an end for load."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Final

import aiohttp
import msgspec

from fanfold_operator.planning.acts import Act, Wish

if TYPE_CHECKING:
    from collections.abc import Sequence

CALL_SECONDS: Final = 1.0


class AdminPorts:
    """Calls ``host:port``. No answer is an answer: whoever is asked may be gone."""

    def __init__(self) -> None:
        # Not through a proxy: pods are in the cluster.
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=CALL_SECONDS), trust_env=False)

    async def epoch(self, gateway: str) -> int:
        """The epoch a gateway uses; -1 if it does not say."""
        try:
            async with self._session.get(f"http://{gateway}/snapshot") as response:
                return int((await response.json())["epoch"])
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError, KeyError, TypeError):
            return -1

    async def release(self, pod: str) -> bool:
        """Tell a pod that no gateway sends to it any more; whether it heard."""
        try:
            async with self._session.post(f"http://{pod}/release") as response:
                return response.status == HTTPStatus.NO_CONTENT
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False

    async def cancel(self, pod: str) -> bool:
        """Tell a load test's master to end early; whether it heard."""
        try:
            async with self._session.post(f"http://{pod}/cancel") as response:
                return response.status == HTTPStatus.NO_CONTENT
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False

    async def acts(self, pod: str, done: Sequence[Act]) -> list[Wish]:
        """Tell a load test's master what was done for it; what it asks for so far, nothing if it does not answer."""
        try:
            async with self._session.put(f"http://{pod}/acts", data=msgspec.json.encode(done)) as response:
                return msgspec.json.decode(await response.read(), type=list[Wish]) if response.ok else []
        except (aiohttp.ClientError, TimeoutError, OSError, msgspec.DecodeError):
            return []

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()
