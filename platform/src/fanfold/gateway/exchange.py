"""One request on its way: authenticated, placed, sent, perhaps sent again elsewhere, and answered.

docs/gateway.md draws the states. Whatever happens, exactly one of `_settle`'s callers ends an exchange, once.
"""

from __future__ import annotations

import asyncio
import random
import time
from time import monotonic
from typing import TYPE_CHECKING, Final

from fanfold.contracts import headers
from fanfold.gateway.answers import Answer, encode, problem_answer
from fanfold.gateway.messages import (
    LAST_CHUNK,
    SECURITY_LINES,
    STATUS_LINES,
    BadGateway,
    GatewayTimeout,
    RequestTimeout,
    chunk,
)
from fanfold.gateway.routes import LOCAL, Access
from fanfold.gateway.tracing import trace
from fanfold.kit.errors import Problem, TooLarge, Unavailable
from fanfold.kit.logging import get_logger

if TYPE_CHECKING:
    from fanfold.gateway.context import Context
    from fanfold.gateway.downstream import Downstream
    from fanfold.gateway.messages import Request
    from fanfold.gateway.routes import Route
    from fanfold.gateway.tokens import Principal
    from fanfold.gateway.upstream import Endpoint, UpstreamConnection

log = get_logger("fanfold.gateway.access")

IDEMPOTENT: Final = frozenset((b"GET", b"HEAD", b"PUT", b"DELETE", b"OPTIONS", b"TRACE"))
"""RFC 9110 section 9.2.2. These alone may be sent twice."""
MAX_TRIES: Final = 3
RETRY_BUDGET: Final = 0.2
"""Share of requests under way that may be sent a second time (Envoy's retry budget, and its minimum). A try that could
not connect was not sent: going elsewhere multiplies no service's load, and is free."""
RETRY_MINIMUM: Final = 3
MAX_WAITING_BODY: Final = 64 << 10
"""Bytes of a body held before its connection is up, or to be sent again."""
CLIENT_GONE: Final = 499
"""nginx's number in logs and metrics for a client that did not wait for its answer."""


class Exchange:
    """Proxies one request. Upstream calls the ``on_`` methods (`fanfold.gateway.upstream.Answered`)."""

    __slots__ = (
        "_answer_close",
        "_body_ended",
        "_chunked",
        "_connecting",
        "_connection",
        "_context",
        "_done",
        "_downstream",
        "_endpoint",
        "_out",
        "_principal",
        "_replay",
        "_request_id",
        "_retrying",
        "_sent",
        "_status",
        "_trace_lines",
        "_tried",
        "_tries",
        "_upstream_full",
        "request",
        "route",
    )

    def __init__(self, context: Context, downstream: Downstream, request: Request) -> None:
        self._context = context
        self._downstream = downstream
        self.request = request
        self.route: Route | None = None
        self._request_id, self._trace_lines = trace(request.noted)
        self._principal: Principal | None = None
        self._endpoint: Endpoint | None = None
        self._connection: UpstreamConnection | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._tried: frozenset[str] = _NONE_TRIED
        self._tries = 1
        self._retrying = False
        self._replay: bytes | None = b""
        self._body_ended = False
        self._sent = False
        self._status = 0
        self._out: list[bytes] = []
        self._chunked = False
        self._answer_close = False
        self._upstream_full = False
        self._done = False

    # The client's side.

    @property
    def asks_head(self) -> bool:
        """The request was HEAD."""
        return self.request.method == b"HEAD"

    @property
    def waiting_body_full(self) -> bool:
        """No more of the body should be read for now."""
        return self._upstream_full or (self._connection is None and self.request.received > MAX_WAITING_BODY)

    def start(self) -> None:
        """Decide what becomes of the request and begin it."""
        request, context = self.request, self._context
        try:
            route = context.routes.match(request.method, request.path)
            self.route = route
            if request.length != 0:
                self._check_body_limit(route)
            if route.service == LOCAL:
                self._answer_here(route)
                return
            tokens = context.tokens
            if route.access is Access.USER:
                self._principal = tokens.principal(request.noted.get(b"authorization"), request.started)
            else:
                self._principal = tokens.nobody(request.started)
            patience = route.timeout if request.complete else context.settings.stall_seconds
            self._downstream.deadline = request.started + patience
            context.stats.in_flight += 1
            self._try()
        except Problem as problem:
            self.refuse(problem)

    def body_arrived(self) -> None:
        """More of the request's body is in ``request.body``, or its end was reached."""
        route = self.route
        assert route is not None
        try:
            self._check_body_limit(route)
        except TooLarge as problem:
            self.refuse(problem)
            return
        if self.request.complete:
            self._downstream.deadline = monotonic() + route.timeout
        if self._connection is not None:
            self._replay = None
            data = self._take_body()
            if data:
                self._connection.write(data)

    def refuse(self, problem: Problem) -> None:
        """End with a problem; when the answer has begun already, by breaking off."""
        if self._status:
            self.abandon(problem.status)
            self._downstream.abort()
            return
        self._answer(problem_answer(problem, self._request_id.decode()))

    def expire(self) -> None:
        """The deadline passed."""
        if self._status:
            self.abandon(CLIENT_GONE)
            self._downstream.abort()
        elif not self.request.complete:
            self.refuse(RequestTimeout("The rest of the request's body did not come in time."))
        else:
            self._count("timeout")
            self.refuse(GatewayTimeout("The service did not answer in time; try again."))

    def abandon(self, status: int = CLIENT_GONE) -> None:
        """Nobody waits for the answer any more."""
        self._drop_upstream()
        self._settle(status)

    def on_client_full(self, *, full: bool) -> None:
        """The client's connection takes no more of the answer for now, or takes it again."""
        if self._connection is not None:
            if full:
                self._connection.pause_reading()
            else:
                self._connection.resume_reading()

    # Tries.

    def _try(self) -> None:
        assert self.route is not None
        assert self._principal is not None
        endpoint = self._context.balancer.choose(self.route.service, self._principal.key, self._tried)
        endpoint.in_flight += 1
        self._endpoint = endpoint
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
            self._count("unreachable")
            self._try_again(Unavailable("The service cannot be reached; try again."), f"{error or 'timed out'}")
        else:
            self._connecting = None
            self._send(connection)

    def _send(self, connection: UpstreamConnection) -> None:
        self._connection = connection
        request = self.request
        body = b""
        if request.length != 0:
            body = (self._replay or b"") + self._take_body()
            self._replay = body if self._replay is not None and len(body) <= MAX_WAITING_BODY else None
        connection.send(self, self._head(body))
        self._sent = True
        if self._downstream.full:
            connection.pause_reading()
        if not request.complete:
            self._downstream.take_body()

    def _try_again(self, problem: Problem, reason: str) -> None:
        """Another slot if that is safe and affordable, else the problem."""
        endpoint, stats = self._endpoint, self._context.stats
        assert endpoint is not None
        log.warning("upstream_failed", slot=endpoint.slot, address=endpoint.address, reason=reason)
        repeatable = self.request.method in IDEMPOTENT and self._replay is not None and not self._status
        safe = repeatable or not self._sent
        self._release_endpoint()
        self._tried |= {endpoint.slot}
        self._tries += 1
        if not safe or self._tries > MAX_TRIES or self._done:
            self.refuse(problem)
            return
        if self._sent and not self._retrying:
            if stats.retrying >= max(RETRY_MINIMUM, RETRY_BUDGET * stats.in_flight):
                stats.retries_denied += 1
                self.refuse(problem)
                return
            self._retrying = True
            stats.retrying += 1
        stats.retries += 1
        self._sent = False
        try:
            self._try()
        except Problem as refusal:
            self.refuse(refusal)

    def _head(self, body: bytes) -> bytes:
        """The request for the service, up to and with what there is of its body. One join: this is the hot path."""
        request, principal, downstream = self.request, self._principal, self._downstream
        assert principal is not None
        deadline = int((time.time() + downstream.deadline - monotonic()) * 1000)
        return b"".join(
            (
                request.method,
                b" ",
                request.target,
                b" HTTP/1.1\r\n",
                *request.lines,
                b"" if request.method == b"GET" and request.length == 0 else self._framing(),
                principal.line,
                downstream.forwarded_lines(request),
                *self._trace_lines,
                _DEADLINE,
                b"%d\r\n\r\n" % deadline,
                body,
            )
        )

    def _framing(self) -> bytes:
        request = self.request
        framing = b""
        if request.length is None:
            framing = b"transfer-encoding: chunked\r\n"
        elif b"content-length" in request.noted:
            framing = b"content-length: %d\r\n" % request.length
        if request.expects_continue:
            framing += b"expect: 100-continue\r\n"
        return framing

    def _take_body(self) -> bytes:
        request = self.request
        pieces, request.body = request.body, []
        if request.length is not None:
            return b"".join(pieces)
        framed = b"".join([chunk(piece) for piece in pieces])
        if request.complete and not self._body_ended:
            self._body_ended = True
            framed += LAST_CHUNK
        return framed

    # The answer.

    def on_interim(self, status: int, lines: list[bytes]) -> None:
        """Hand a 1xx on, 100 only to clients that asked for it."""
        if self.request.version_1_0 or (status == 100 and not self.request.expects_continue):
            return
        self._downstream.write(STATUS_LINES[status] + b"".join(lines) + b"\r\n")

    def on_head(self, status: int, lines: list[bytes], length: bytes | None) -> None:
        """Settle the framing towards the client and keep the head for the next flush."""
        request = self.request
        self._status = status
        close = not request.keep_alive or not request.complete or self._context.draining()
        framing: tuple[bytes, ...] = ()
        if length is not None:
            framing = (b"content-length: ", length, b"\r\n")
        elif not (status in (204, 304) or self.asks_head):
            if request.version_1_0:
                close = True
            else:
                self._chunked = True
                framing = (b"transfer-encoding: chunked\r\n",)
        self._answer_close = close
        self._out = [
            STATUS_LINES[status],
            *lines,
            *framing,
            SECURITY_LINES,
            b"x-request-id: ",
            self._request_id,
            b"\r\nconnection: close\r\n\r\n" if close else b"\r\n\r\n",
        ]

    def on_body(self, data: bytes) -> None:
        """Keep a piece for the next flush."""
        self._out.append(chunk(data) if self._chunked else data)

    def flush(self) -> None:
        """Write what came, and give the rest time to come."""
        if self._out:
            self._downstream.write(b"".join(self._out))
            self._out.clear()
            self._downstream.deadline = monotonic() + self._context.settings.stall_seconds

    def on_end(self) -> None:
        """The answer is whole."""
        self._connection = None
        if self._chunked:
            self._out.append(LAST_CHUNK)
        self._downstream.write(b"".join(self._out))
        self._count("answered" if self._status < 500 else "failed")
        self._settle(self._status)
        self._downstream.exchange_done(close=self._answer_close)

    def on_lost(self, reason: str) -> None:
        """The connection broke before the answer was whole."""
        self._connection = None
        self._count("lost")
        self._try_again(BadGateway("The service broke off; whether it acted is not known."), reason)

    def on_upstream_full(self, *, full: bool) -> None:
        """The slot takes no more of the request's body for now, or takes it again."""
        self._upstream_full = full
        self._downstream.take_body()

    # Ends.

    def _answer_here(self, route: Route) -> None:
        request, context = self.request, self._context
        page = context.pages.get(route.pattern)
        if page is not None:
            self._answer(page(request))
            return
        socket, opening = context.open_socket(request)
        self._status = 101
        self._settle(101)
        self._downstream.hand_over(socket, opening)

    def _answer(self, answer: Answer) -> None:
        self._drop_upstream()
        request = self.request
        self._status = answer.status
        close = not request.keep_alive or not request.complete or self._context.draining()
        self._downstream.write(
            encode(answer, request_id=self._request_id.decode(), close=close, head_only=self.asks_head)
        )
        self._settle(answer.status)
        self._downstream.exchange_done(close=close)

    def _drop_upstream(self) -> None:
        if self._connecting is not None:
            self._connecting.cancel()
            self._connecting = None
        if self._connection is not None:
            self._connection.abandon()
            self._connection = None

    def _release_endpoint(self) -> None:
        if self._endpoint is not None:
            self._endpoint.in_flight -= 1
            self._endpoint = None

    def _settle(self, status: int) -> None:
        """Counters and log, once."""
        if self._done:
            return
        self._done = True
        seconds = monotonic() - self.request.started
        context = self._context
        if self._endpoint is not None:
            self._endpoint.seconds += seconds
            slot = self._endpoint.slot
            self._release_endpoint()
        else:
            slot = ""
        if self._principal is not None:
            context.stats.in_flight -= 1
        if self._retrying:
            context.stats.retrying -= 1
        if self.route is None:
            context.stats.reject(str(status))
        else:
            self.route.stats.record(status, seconds)
        if status >= 500 or random.random() < context.settings.access_log_sample:  # noqa: S311 - a sample, no secret
            self._log(status, slot, seconds)

    def _log(self, status: int, slot: str, seconds: float) -> None:
        log.info(
            "request",
            request_id=self._request_id.decode(),
            method=self.request.method.decode(),
            route=self.route.pattern if self.route else "",
            status=status,
            slot=slot,
            tries=self._tries,
            request_bytes=self.request.received,
            milliseconds=round(seconds * 1000, 2),
        )

    def _count(self, outcome: str) -> None:
        if self._endpoint is not None:
            self._endpoint.outcomes[outcome] += 1

    def _check_body_limit(self, route: Route) -> None:
        if self.request.received > route.max_body or (self.request.length or 0) > route.max_body:
            raise TooLarge(f"The body of {route.method} {route.pattern} may have {route.max_body} bytes.")


_DEADLINE: Final = headers.DEADLINE.encode() + b": "
_NONE_TRIED: Final[frozenset[str]] = frozenset()
