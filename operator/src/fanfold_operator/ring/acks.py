"""Asks gateways which epoch they use, until all use the newest."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import aiohttp

from fanfold_operator import metrics
from fanfold_operator.planning.ring import Acks

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from fanfold_operator.kinds import Key

    Ask = Callable[[str], Awaitable[int]]

FIRST_POLL_SECONDS: Final = 0.02
LAST_POLL_SECONDS: Final = 5.0
CALL_SECONDS: Final = 1.0


class _Pursuit:
    """One epoch on its way to a set of gateways."""

    def __init__(self, epoch: int, gateways: Sequence[str], acked: set[str], started: float) -> None:
        self.epoch = epoch
        self.gateways = frozenset(gateways)
        self.acked = acked & self.gateways
        self.started = started
        self.seconds: float | None = None
        self.asked = self.acked == self.gateways
        self.task: asyncio.Task[None] | None = None

    def acks(self) -> Acks:
        waiting = asyncio.get_running_loop().time() - self.started
        return Acks(self.epoch, len(self.gateways), len(self.acked), waiting, self.seconds, self.asked)


class Gateways:
    """Asks a gateway's admin port, ``host:port``, over HTTP."""

    def __init__(self) -> None:
        # Not through a proxy: gateways are in the cluster.
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=CALL_SECONDS), trust_env=False)

    async def __call__(self, gateway: str) -> int:
        """The epoch it uses; -1 if it does not say."""
        try:
            async with self._session.get(f"http://{gateway}/snapshot") as response:
                return int((await response.json())["epoch"])
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError, KeyError, TypeError):
            return -1

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()


class AckTracker:
    """Follows each ring's newest epoch; calls `changed(key)` when the number of gateways that use it changed."""

    def __init__(self, ask: Ask, changed: Callable[[Key], None]) -> None:
        self._ask = ask
        self._changed = changed
        self._pursuits: dict[Key, _Pursuit] = {}

    def follow(self, key: Key, epoch: int, gateways: Sequence[str], *, fresh: bool) -> Acks:
        """What is known of this epoch; begins to ask if it or the gateways are new. `fresh`: it was just written."""
        known = self._pursuits.get(key)
        if known is None or known.epoch != epoch or known.gateways != frozenset(gateways):
            self.forget(key)
            same = known is not None and known.epoch == epoch
            acked = known.acked if known and same else set()
            pursuit = _Pursuit(epoch, gateways, acked, asyncio.get_running_loop().time())
            pursuit.seconds = known.seconds if known and same else None
            self._pursuits[key] = pursuit
            if pursuit.acked != pursuit.gateways:
                pursuit.task = asyncio.create_task(self._pursue(key, pursuit, measured=fresh))
        return self._pursuits[key].acks()

    def forget(self, key: Key) -> None:
        """Stop asking for a ring that is gone."""
        pursuit = self._pursuits.pop(key, None)
        if pursuit and pursuit.task:
            pursuit.task.cancel()

    def close(self) -> None:
        """Stop all."""
        for key in list(self._pursuits):
            self.forget(key)

    async def _pursue(self, key: Key, pursuit: _Pursuit, *, measured: bool) -> None:
        delay, loop = FIRST_POLL_SECONDS, asyncio.get_running_loop()
        while pursuit.acked != pursuit.gateways:
            before = len(pursuit.acked)
            waiting = sorted(pursuit.gateways - pursuit.acked)
            epochs = await asyncio.gather(*(self._ask(gateway) for gateway in waiting))
            pursuit.acked |= {one for one, epoch in zip(waiting, epochs, strict=True) if epoch >= pursuit.epoch}
            if pursuit.acked == pursuit.gateways and measured:
                pursuit.seconds = loop.time() - pursuit.started
                metrics.propagation_seconds.observe(pursuit.seconds)
            if len(pursuit.acked) != before or not pursuit.asked:
                pursuit.asked = True
                self._changed(key)
            if pursuit.acked != pursuit.gateways:
                await asyncio.sleep(delay)
                delay = min(delay * 1.5, LAST_POLL_SECONDS)
