"""What a scenario does to its platform where the run has no rights: it asks, and the operator, which looks, does it.

``PUT /acts`` of the admin port: the operator tells what it has done so far and is answered with what is asked for. So
the pods of a run need no token, and whoever deceives them gets nothing but a service scaled within its bounds.
"""

from __future__ import annotations

import asyncio
import time
from datetime import datetime
from typing import TYPE_CHECKING, Final, Literal, Self

import msgspec

from fanfold_loadtest.cluster import ClusterError
from fanfold_loadtest.scenario import RestartPod, Scale

if TYPE_CHECKING:
    from fanfold_loadtest.cluster import Tell
    from fanfold_loadtest.scenario import ClusterEvent

LOOK_SECONDS: Final = 0.25
SILENT_SECONDS: Final = 60.0
"""For the operator to take up what is asked for; it looks every 2 s, and a new leader takes over within 15."""


class Wish(msgspec.Struct, frozen=True):
    """One thing to be done; `number` counts from 0."""

    number: int
    does: Literal["scale", "restart-pod", "restart-all"]
    service: str = ""
    by: int = 0


class Told(msgspec.Struct, frozen=True):
    """How far it is; `since` when it came to what `message` says."""

    number: int
    state: Literal["Begun", "Done", "Failed"]
    since: datetime
    message: str = ""


class Errands:
    """All that one run asks for. `handle` is called by threads of the port, the rest by the run's event loop."""

    def __init__(self) -> None:
        self._wishes: list[Wish] = []
        self._told: dict[int, Told] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """What was scaled counts while the run lasts: there is nothing to put back."""

    def handle(self, body: bytes) -> bytes:
        """Take what the operator tells; what it is asked for.

        Raises:
            msgspec.DecodeError: It told something else.
        """
        self._told |= {one.number: one for one in msgspec.json.decode(body, type=list[Told])}
        return msgspec.json.encode(self._wishes)

    async def act(self, event: ClusterEvent, tell: Tell) -> None:
        """Have it done and wait for its effect; each step is told.

        Raises:
            ClusterError: Refused, without effect in time, or nobody looks.
        """
        wish = _wish(len(self._wishes), event)
        self._wishes.append(wish)
        asked, seen = time.monotonic(), ""
        while True:
            told = self._told.get(wish.number)
            if told is None and time.monotonic() - asked > SILENT_SECONDS:
                raise ClusterError(f"no operator has looked within {SILENT_SECONDS:g} s")
            if told and told.state == "Failed":
                raise ClusterError(told.message)
            if told and told.message != seen:
                seen = told.message
                tell(seen, told.since.timestamp())
            if told and told.state == "Done":
                return
            await asyncio.sleep(LOOK_SECONDS)


def _wish(number: int, event: ClusterEvent) -> Wish:
    if isinstance(event, Scale):
        return Wish(number, "scale", event.service, event.by)
    if isinstance(event, RestartPod):
        return Wish(number, "restart-pod", event.service)
    return Wish(number, "restart-all")
