"""Gets one request to a slot, and again to another where that cannot do anything twice (docs/gateway.md, "Tries")."""

from __future__ import annotations

import asyncio
import time
from time import monotonic
from typing import TYPE_CHECKING, Final

from fanfold.contracts import headers
from fanfold.gateway.hedging import Hedge
from fanfold.gateway.messages import LAST_CHUNK, BadGateway, chunk
from fanfold.kit.errors import Problem, Unavailable
from fanfold.kit.logging import get_logger

if TYPE_CHECKING:
    from fanfold.gateway.context import Context
    from fanfold.gateway.exchange import Exchange
    from fanfold.gateway.routes import Route
    from fanfold.gateway.tokens import Principal
    from fanfold.gateway.upstream import Endpoint, UpstreamConnection

log = get_logger(__name__)

IDEMPOTENT: Final = frozenset((b"GET", b"HEAD", b"PUT", b"DELETE", b"OPTIONS", b"TRACE"))
"""RFC 9110 section 9.2.2. These alone may be sent twice."""
MAX_TRIES: Final = 3
MAX_WAITING_BODY: Final = 64 << 10
"""Bytes of a body held before its connection is up, or to be sent again."""


class Delivery:
    """The tries of one request. What a slot answers goes to the exchange, what goes wrong comes here.

    Attributes:
        connection: Carries the request now; None before and between tries.
        endpoint: The slot of the current or last try.
        tried: Slots that failed this request.
        tries: How many there were.
    """

    __slots__ = (
        "_body_ended",
        "_connecting",
        "_context",
        "_ended",
        "_exchange",
        "_hedge",
        "_principal",
        "_replay",
        "_retrying",
        "_route",
        "_sent",
        "_whole",
        "connection",
        "endpoint",
        "tried",
        "tries",
    )

    def __init__(self, context: Context, exchange: Exchange, route: Route, principal: Principal) -> None:
        self._context = context
        self._exchange = exchange
        self._route = route
        self._principal = principal
        self._connecting: asyncio.Task[None] | None = None
        self._hedge: Hedge | None = None
        self._replay: bytes | None = b""
        self._body_ended = False
        self._ended = False
        self._retrying = False
        self._sent = False
        self._whole = False
        self.connection: UpstreamConnection | None = None
        self.endpoint: Endpoint | None = None
        self.tried: frozenset[str] = _NONE_TRIED
        self.tries = 1

    def begin(self) -> None:
        """Make the first try.

        Raises:
            Unavailable: No slot can take it.
        """
        stats = self._context.stats
        stats.in_flight += 1
        stats.budget.requests += 1
        self._try()

    def send_body(self) -> None:
        """More of the request's body has come: hand it on, unless no connection is up yet."""
        if self.connection is not None:
            self._replay = None
            data = self._take_body()
            if data:
                self.connection.write(data)

    def lost(self, reason: str) -> None:
        """The connection broke before the answer was whole."""
        self.connection = None
        if self._hedge is not None and self._hedge.takes_over():
            return
        self._failed("lost")
        self._try_again(BadGateway("The service broke off; whether it acted is not known."), reason)

    def timed_out(self) -> None:
        """No answer came in time."""
        self._failed("timeout")

    def answer_begins(self) -> None:
        """The head of the answer came on `connection`; nobody else is needed."""
        if self._hedge is not None:
            self._hedge.cancel()
            self._hedge = None

    def answered(self, status: int) -> None:
        """The answer is whole; its connection is back in the pool."""
        self.connection = None
        endpoint = self.endpoint
        assert endpoint is not None
        if status < 500:
            endpoint.outcomes["answered"] += 1
            endpoint.errors_in_row = 0
            if self._exchange.trail is not None:
                self._exchange.trail.try_ends("answered")
        else:
            self._failed("failed")

    def switch(self, endpoint: Endpoint, connection: UpstreamConnection) -> None:
        """Another connection answers first: its slot takes the place of the one waited for, which is let go."""
        if self.connection is None:
            self._failed("lost")
        self._drop_connection()
        self._release_endpoint()
        self.endpoint = endpoint
        self.connection = connection
        self.tries += 1

    def drop(self) -> None:
        """Nobody waits for an answer any more."""
        if self._connecting is not None:
            self._connecting.cancel()
            self._connecting = None
        if self._hedge is not None:
            self._hedge.cancel()
            self._hedge = None
        self._drop_connection()

    def end(self, status: int, seconds: float, *, at_once: bool) -> str:
        """Give everything back, once; the slot's name, empty when there was none.

        Args:
            status: Of the answer.
            seconds: From the request's first byte to the end of its answer.
            at_once: ``seconds`` is the slot's own time: nobody waited for the client's body, or to stream the answer.
        """
        if self._ended:
            return ""
        self._ended = True
        stats, endpoint = self._context.stats, self.endpoint
        stats.in_flight -= 1
        if self._retrying:
            stats.retrying -= 1
        if endpoint is None:
            return ""
        endpoint.seconds += seconds
        if at_once and self._whole and status < 500 and self._route.steady:
            endpoint.samples += 1
            endpoint.sampled_seconds += seconds
        self._release_endpoint()
        return endpoint.slot

    # Within.

    def _try(self) -> None:
        route = self._route
        endpoint = self._context.balancer.choose(route.service, self._principal.key, self.tried)
        endpoint.in_flight += route.load
        self.endpoint = endpoint
        trail = self._exchange.trail
        if trail is not None:
            trail.try_begins(endpoint)
        connection = endpoint.take()
        if connection is not None:
            self._send(connection)
        else:
            self._connecting = asyncio.get_running_loop().create_task(self._connect(endpoint))

    async def _connect(self, endpoint: Endpoint) -> None:
        try:
            connection = await endpoint.connect()
        except (OSError, TimeoutError) as error:
            self._connecting = None
            self._failed("unreachable")
            self._try_again(Unavailable("The service cannot be reached; try again."), f"{error or 'timed out'}")
        else:
            self._connecting = None
            self._send(connection)

    def _send(self, connection: UpstreamConnection) -> None:
        self.connection = connection
        exchange = self._exchange
        request = exchange.request
        self._whole = request.complete
        body = b""
        if request.length != 0:
            body = (self._replay or b"") + self._take_body()
            self._replay = body if self._replay is not None and len(body) <= MAX_WAITING_BODY else None
        data = self._head(body)
        connection.send(exchange, data)
        self._sent = True
        if self._route.hedge_after:
            self._hedge = Hedge(self._context, exchange, self, self._route, self._principal, data)
        if exchange.downstream.full:
            connection.pause_reading()
        if not request.complete:
            exchange.downstream.take_body()

    def _try_again(self, problem: Problem, reason: str) -> None:
        """Another slot if that is safe and affordable, else the problem."""
        endpoint, stats, exchange = self.endpoint, self._context.stats, self._exchange
        assert endpoint is not None
        log.warning(
            "upstream_failed",
            request_id=exchange.request_id,
            slot=endpoint.slot,
            address=endpoint.address,
            reason=reason,
        )
        repeatable = exchange.request.method in IDEMPOTENT and self._replay is not None and not exchange.status
        safe = repeatable or not self._sent
        self._release_endpoint()
        self.tried |= {endpoint.slot}
        self.tries += 1
        if not safe or self.tries > MAX_TRIES or self._ended:
            exchange.refuse(problem)
            return
        # A try that could not connect was not sent: going elsewhere multiplies no service's load, and is free.
        if self._sent and not stats.budget.spend():
            stats.retries_denied += 1
            exchange.refuse(problem)
            return
        if not self._retrying:
            self._retrying = True
            stats.retrying += 1
        stats.retries += 1
        self._sent = False
        try:
            self._try()
        except Problem as refusal:
            exchange.refuse(refusal)

    def _failed(self, outcome: str) -> None:
        if self.endpoint is not None:
            self.endpoint.outcomes[outcome] += 1
            self._context.balancer.failed(self._route.service, self.endpoint)
            if self._exchange.trail is not None:
                self._exchange.trail.try_ends(outcome)

    def _drop_connection(self) -> None:
        if self.connection is not None:
            self.connection.abandon()
            self.connection = None

    def _release_endpoint(self) -> None:
        if self.endpoint is not None:
            self.endpoint.in_flight -= self._route.load
            self.endpoint = None

    def _head(self, body: bytes) -> bytes:
        """The request for the service, up to and with what there is of its body. One join: this is the hot path."""
        exchange = self._exchange
        request, downstream = exchange.request, exchange.downstream
        # Until a body is whole its end is unknown: the latest there can be.
        until = downstream.deadline if self._whole else request.started + self._longest()
        deadline = int((time.time() + until - monotonic()) * 1000)
        return b"".join(
            (
                request.method,
                b" ",
                request.target,
                b" HTTP/1.1\r\n",
                *request.lines,
                b"" if request.method == b"GET" and request.length == 0 else self._framing(),
                self._principal.line,
                downstream.forwarded_lines(request),
                *(exchange.trace_lines if exchange.trail is None else exchange.trail.lines),
                _DEADLINE,
                b"%d\r\n\r\n" % deadline,
                body,
            )
        )

    def _longest(self) -> float:
        return self._context.settings.transfer_seconds + self._route.timeout

    def _framing(self) -> bytes:
        request = self._exchange.request
        framing = b""
        if request.length is None:
            framing = b"transfer-encoding: chunked\r\n"
        elif b"content-length" in request.noted:
            framing = b"content-length: %d\r\n" % request.length
        if request.expects_continue:
            framing += b"expect: 100-continue\r\n"
        return framing

    def _take_body(self) -> bytes:
        request = self._exchange.request
        pieces, request.body = request.body, []
        if request.length is not None:
            return b"".join(pieces)
        framed = b"".join([chunk(piece) for piece in pieces])
        if request.complete and not self._body_ended:
            self._body_ended = True
            framed += LAST_CHUNK
        return framed


_DEADLINE: Final = headers.DEADLINE.encode() + b": "
_NONE_TRIED: Final[frozenset[str]] = frozenset()
