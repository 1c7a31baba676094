"""Hedged requests (Dean and Barroso, "The Tail at Scale", 2013): a read that is slow is asked of a second slot too.

Off unless ``FANFOLD_HEDGE_SECONDS`` says after how long. Only reads that change nothing are hedged, within the budget
of retries, for a hedge is load like a retry.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from fanfold.kit.errors import Problem

if TYPE_CHECKING:
    from fanfold.gateway.context import Context
    from fanfold.gateway.delivery import Delivery
    from fanfold.gateway.exchange import Exchange
    from fanfold.gateway.routes import Route
    from fanfold.gateway.tokens import Principal
    from fanfold.gateway.upstream import Endpoint, UpstreamConnection


class Hedge:
    """The second try of a read that is still waited for; an `Answered` of its own until its answer begins.

    Args:
        context: Of the gateway.
        exchange: Gets the answer that begins first.
        delivery: The first try.
        route: Says after how long (``hedge_after``, seconds).
        principal: Whose slot is asked first.
        data: The request as sent.
    """

    __slots__ = ("_begun", "_connecting", "_connection", "_context", "_data", "_delivery", "_endpoint", "_exchange",
                 "_principal", "_route", "_timer")  # fmt: skip

    def __init__(  # noqa: PLR0913, PLR0917 - what a try needs
        self,
        context: Context,
        exchange: Exchange,
        delivery: Delivery,
        route: Route,
        principal: Principal,
        data: bytes,
    ) -> None:
        self._context = context
        self._exchange = exchange
        self._delivery = delivery
        self._route = route
        self._principal = principal
        self._data = data
        self._endpoint: Endpoint | None = None
        self._connection: UpstreamConnection | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._begun = False
        self._timer = asyncio.get_running_loop().call_later(route.hedge_after, self._begin)

    def cancel(self) -> None:
        """The first try answers, or nobody waits any more."""
        self._timer.cancel()
        if self._connecting is not None:
            self._connecting.cancel()
        if self._connection is not None:
            self._connection.abandon()
        self._release()

    def takes_over(self) -> bool:
        """The first try was lost; whether the second one is under way and will do."""
        if self._endpoint is None:
            self._timer.cancel()
        return self._endpoint is not None

    # What the second slot answers (`fanfold.gateway.upstream.Answered`).

    @property
    def asks_head(self) -> bool:
        """Whether the answer has no body."""
        return self._exchange.asks_head

    def on_interim(self, status: int, lines: list[bytes]) -> None:
        """Interim answers of a second try are of no use."""

    def on_head(self, status: int, lines: list[bytes], length: bytes | None) -> None:
        """The second slot is first."""
        assert self._endpoint is not None
        assert self._connection is not None
        self._begun = True
        self._delivery.switch(self._endpoint, self._connection)
        self._context.stats.hedges_won += 1
        self._settle()
        self._exchange.on_head(status, lines, length)

    def on_body(self, data: bytes) -> None:
        """Handed on."""
        self._exchange.on_body(data)

    def flush(self) -> None:
        """Handed on."""
        if self._begun:
            self._exchange.flush()

    def on_end(self) -> None:
        """Handed on."""
        self._exchange.on_end()

    def on_lost(self, reason: str) -> None:
        """A second try that fails is forgotten, unless it was the last hope or had begun."""
        if self._begun:
            self._exchange.on_lost(reason)
            return
        self._connection = None
        self._give_up(reason)

    def on_upstream_full(self, *, full: bool) -> None:
        """A read has no body to wait with."""

    # Within.

    def _begin(self) -> None:
        first = self._delivery.endpoint
        stats = self._context.stats
        if first is None:
            return
        try:
            endpoint = self._context.balancer.choose(
                self._route.service, self._principal.key, self._delivery.tried | {first.slot}
            )
        except Problem:
            return
        if endpoint is first or not stats.budget.spend():
            return
        endpoint.in_flight += self._route.load
        stats.retrying += 1
        stats.hedges += 1
        self._endpoint = endpoint
        self._connecting = asyncio.get_running_loop().create_task(self._connect(endpoint))

    async def _connect(self, endpoint: Endpoint) -> None:
        try:
            connection = endpoint.take() or await endpoint.connect()
        except (OSError, TimeoutError) as error:
            self._connecting = None
            self._give_up(str(error) or "timed out")
            return
        self._connecting = None
        self._connection = connection
        connection.send(self, self._data)

    def _give_up(self, reason: str) -> None:
        self._release()
        if self._delivery.connection is None:
            self._delivery.lost(reason)

    def _release(self) -> None:
        if self._endpoint is not None:
            self._endpoint.in_flight -= self._route.load
            self._settle()

    def _settle(self) -> None:
        self._endpoint = None
        self._connection = None
        self._context.stats.retrying -= 1
