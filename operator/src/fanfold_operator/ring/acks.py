"""Asks gateways which epoch they use, until all use the newest."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from fanfold_operator import metrics
from fanfold_operator.planning.ring import Acks

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

    from fanfold_operator.kinds import Key

    Ask = Callable[[str], Awaitable[int]]

FIRST_POLL_SECONDS: Final = 0.02
LAST_POLL_SECONDS: Final = 5.0


class _Pursuit:
    """One epoch on its way to a set of gateways.

    `parting` gateways are on their way out or unwell: they may still forward what they have, so they are asked too, but
    one of these that does not answer is gone.
    """

    def __init__(self, epoch: int, gateways: Collection[str], parting: Collection[str], started: float) -> None:
        self.epoch = epoch
        self.gateways = frozenset(gateways)
        self.parting = frozenset(parting)
        self.started = started
        self.used: dict[str, int] = {}
        self.seconds: float | None = None
        self.asked = False
        self.task: asyncio.Task[None] | None = None

    def inherit(self, before: _Pursuit) -> None:
        """What was told before still holds: epochs never go back."""
        self.used = {one: epoch for one, epoch in before.used.items() if one in self.gateways | self.parting}
        if before.epoch == self.epoch:
            self.seconds = before.seconds

    def told(self, gateway: str, epoch: int) -> None:
        """A gateway's answer; -1 if it gave none."""
        if epoch < 0 and gateway in self.parting:
            epoch = self.epoch
        self.used[gateway] = max(epoch, self.used.get(gateway, -1))

    def waiting(self) -> list[str]:
        """Who does not use the epoch yet, as far as is known."""
        return sorted(one for one in self.gateways | self.parting if self.used.get(one, -1) < self.epoch)

    def acked(self) -> int:
        """How many of the gateways that are to stay use the epoch."""
        return sum(self.used.get(one, -1) >= self.epoch for one in self.gateways)

    def least(self) -> int:
        """The oldest epoch that any gateway may still use; 0 if one has not said."""
        return min((max(0, self.used.get(one, 0)) for one in self.gateways | self.parting), default=self.epoch)

    def progress(self) -> tuple[int, int]:
        """What is worth a look when it changes."""
        return self.acked(), self.least()

    def acks(self) -> Acks:
        waiting = asyncio.get_running_loop().time() - self.started
        return Acks(self.epoch, len(self.gateways), self.acked(), waiting, self.seconds, self.asked, self.least())


class AckTracker:
    """Follows each ring's newest epoch; calls `changed(key)` when more gateways use it, or none an older one."""

    def __init__(self, ask: Ask, changed: Callable[[Key], None]) -> None:
        self._ask = ask
        self._changed = changed
        self._pursuits: dict[Key, _Pursuit] = {}

    def follow(
        self, key: Key, epoch: int, gateways: Collection[str], parting: Collection[str] = (), *, fresh: bool
    ) -> Acks:
        """What is known of this epoch; begins to ask if it or the gateways are new. `fresh`: it was just written."""
        known = self._pursuits.get(key)
        pursuit = _Pursuit(epoch, gateways, parting, asyncio.get_running_loop().time())
        if known and (known.epoch, known.gateways, known.parting) == (epoch, pursuit.gateways, pursuit.parting):
            return known.acks()
        if known:
            pursuit.inherit(known)
        self.forget(key)
        self._pursuits[key] = pursuit
        if pursuit.waiting():
            pursuit.task = asyncio.create_task(self._pursue(key, pursuit, measured=fresh))
        else:
            pursuit.asked = True
        return pursuit.acks()

    def newest(self, key: Key) -> int:
        """The newest epoch that a gateway of this ring said it uses; 0 if none has."""
        known = self._pursuits.get(key)
        return max(known.used.values(), default=0) if known else 0

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
        while waiting := pursuit.waiting():
            before = pursuit.progress()
            epochs = await asyncio.gather(*(self._ask(gateway) for gateway in waiting))
            for gateway, epoch in zip(waiting, epochs, strict=True):
                pursuit.told(gateway, epoch)
            if measured and pursuit.seconds is None and pursuit.acked() == len(pursuit.gateways):
                pursuit.seconds = loop.time() - pursuit.started
                metrics.propagation_seconds.observe(pursuit.seconds)
            if pursuit.progress() != before or not pursuit.asked:
                pursuit.asked = True
                self._changed(key)
            if pursuit.waiting():
                await asyncio.sleep(delay)
                delay = min(delay * 1.5, LAST_POLL_SECONDS)
