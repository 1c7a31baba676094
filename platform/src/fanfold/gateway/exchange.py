"""One request on its way: admitted or refused, handed to its `Delivery`, and answered.

docs/gateway.md draws the states. Whatever happens, exactly one of `_settle`'s callers ends an exchange, once.
"""

from __future__ import annotations

import random
from time import monotonic
from typing import TYPE_CHECKING, Final

from fanfold.gateway.answers import Answer, encode, problem_answer
from fanfold.gateway.delivery import MAX_WAITING_BODY, Delivery
from fanfold.gateway.messages import (
    LAST_CHUNK,
    STATUS_LINES,
    GatewayTimeout,
    RequestTimeout,
    chunk,
)
from fanfold.gateway.routes import LOCAL, Access
from fanfold.gateway.tracing import trace, trace_id
from fanfold.kit.errors import Problem, TooLarge
from fanfold.kit.logging import get_logger

if TYPE_CHECKING:
    from fanfold.gateway.context import Context
    from fanfold.gateway.downstream import Downstream
    from fanfold.gateway.messages import Request
    from fanfold.gateway.routes import Route
    from fanfold.gateway.tokens import Principal

log = get_logger("fanfold.gateway.access")

CLIENT_GONE: Final = 499
"""nginx's number in logs and metrics for a client that did not wait for its answer."""
MAX_AWAITED_BODY: Final = 16 << 10
"""Many clients send head and body in two packets. A body larger than this is streamed."""


class Exchange:
    """Proxies one request. Upstream calls the ``on_`` methods (`fanfold.gateway.upstream.Answered`).

    Attributes:
        trace_lines: Request id and trace context for the service.
        trail: Its spans; None when it is not traced.
        status: Of the answer, once it has begun; 0 before.
    """

    __slots__ = (
        "_answer_close",
        "_chunked",
        "_context",
        "_delivery",
        "_done",
        "_extra_lines",
        "_out",
        "_principal",
        "_request_id",
        "_streamed",
        "_upstream_full",
        "_waited",
        "downstream",
        "request",
        "route",
        "status",
        "trace_lines",
        "trail",
    )

    def __init__(self, context: Context, downstream: Downstream, request: Request) -> None:
        self._context = context
        self.downstream = downstream
        self.request = request
        self.route: Route | None = None
        self._request_id, self.trace_lines = trace(request.noted)
        self.trail = None if context.spans is None else context.spans.begin(request, self.trace_lines)
        self._delivery: Delivery | None = None
        self._principal: Principal | None = None
        self._waited = False
        self.status = 0
        self._extra_lines = b""
        self._out: list[bytes] = []
        self._chunked = False
        self._streamed = False
        self._answer_close = False
        self._upstream_full = False
        self._done = False

    # The client's side.

    @property
    def asks_head(self) -> bool:
        """The request was HEAD."""
        return self.request.method == b"HEAD"

    @property
    def request_id(self) -> str:
        """The client's own id of the request, or the trace's."""
        return self._request_id.decode()

    @property
    def waiting_body_full(self) -> bool:
        """No more of the body should be read for now."""
        if self._upstream_full:
            return True
        delivery = self._delivery
        return (delivery is None or delivery.connection is None) and self.request.received > MAX_WAITING_BODY

    def start(self) -> None:
        """Decide what becomes of the request and begin it."""
        request, context = self.request, self._context
        try:
            if context.cors is not None and self._cross_origin():
                return
            route = context.routes.match(request.method, request.path)
            self.route = route
            limits = context.limits
            if limits is not None:
                address = self.downstream.client_address(request)
                self._extra_lines += limits.admit_address(address, route, request.started)
            if request.length != 0:
                self._check_body_limit(route)
            if route.service == LOCAL:
                self._answer_here(route)
                return
            tokens = context.tokens
            if route.access is Access.USER:
                principal = tokens.principal(request.noted.get(b"authorization"), request.started)
                if limits is not None:
                    self._extra_lines += limits.admit_user(principal, request.started)
            else:
                principal = tokens.nobody(request.started)
            patience = route.timeout if request.complete else context.settings.stall_seconds
            self.downstream.deadline = request.started + patience
            self._principal = principal
            self._waited = self._waits(route)
            if not self._waited:
                self._deliver(route)
        except Problem as problem:
            self.refuse(problem)

    def body_arrived(self) -> None:
        """More of the request's body is in ``request.body``, or its end was reached."""
        route = self.route
        assert route is not None
        try:
            self._check_body_limit(route)
            if self.request.complete:
                self.downstream.deadline = monotonic() + route.timeout
                if self._delivery is None and self._waited:
                    self._deliver(route)
                    return
        except Problem as problem:
            self.refuse(problem)
            return
        if self._delivery is not None:
            self._delivery.send_body()

    def refuse(self, problem: Problem) -> None:
        """End with a problem; when the answer has begun already, by breaking off."""
        if self.status:
            self.abandon(problem.status)
            self.downstream.abort()
            return
        self._answer(problem_answer(problem, self.request_id))

    def expire(self) -> None:
        """The deadline passed."""
        if self.status:
            self.abandon(CLIENT_GONE)
            self.downstream.abort()
        elif not self.request.complete:
            self.refuse(RequestTimeout("The rest of the request's body did not come in time."))
        else:
            if self._delivery is not None:
                self._delivery.timed_out()
            self.refuse(GatewayTimeout("The service did not answer in time; try again."))

    def abandon(self, status: int = CLIENT_GONE) -> None:
        """Nobody waits for the answer any more."""
        if self._delivery is not None:
            self._delivery.drop()
        self._settle(status)

    def on_client_full(self, *, full: bool) -> None:
        """The client's connection takes no more of the answer for now, or takes it again."""
        connection = self._delivery.connection if self._delivery is not None else None
        if connection is not None:
            if full:
                connection.pause_reading()
            else:
                connection.resume_reading()

    # The answer.

    def on_interim(self, status: int, lines: list[bytes]) -> None:
        """Hand a 1xx on, 100 only to clients that asked for it."""
        if self.request.version_1_0 or (status == 100 and not self.request.expects_continue):
            return
        self.downstream.write(STATUS_LINES[status] + b"".join(lines) + b"\r\n")

    def on_head(self, status: int, lines: list[bytes], length: bytes | None) -> None:
        """Settle the framing towards the client and keep the head for the next flush."""
        request = self.request
        self.status = status
        delivery = self._delivery
        assert delivery is not None
        delivery.answer_begins()
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
            self._context.fixed_lines,
            self._extra_lines,
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
            self._streamed = True
            self.downstream.write(b"".join(self._out))
            self._out.clear()
            self.downstream.deadline = monotonic() + self._context.settings.stall_seconds

    def on_end(self) -> None:
        """The answer is whole."""
        if self._chunked:
            self._out.append(LAST_CHUNK)
        self.downstream.write(b"".join(self._out))
        assert self._delivery is not None
        self._delivery.answered(self.status)
        self._settle(self.status)
        self.downstream.exchange_done(close=self._answer_close)

    def on_lost(self, reason: str) -> None:
        """The connection broke before the answer was whole."""
        assert self._delivery is not None
        self._delivery.lost(reason)

    def on_upstream_full(self, *, full: bool) -> None:
        """The slot takes no more of the request's body for now, or takes it again."""
        self._upstream_full = full
        self.downstream.take_body()

    # Within.

    def _deliver(self, route: Route) -> None:
        assert self._principal is not None
        self._delivery = Delivery(self._context, self, route, self._principal)
        self._delivery.begin()

    def _waits(self, route: Route) -> bool:
        """A small body is sent when it is whole: the service hears when its time ends, and waits for no slow client."""
        request = self.request
        if request.complete or request.expects_continue or not route.steady:
            return False
        return request.length is not None and request.length <= MAX_AWAITED_BODY

    # Ends.

    def _cross_origin(self) -> bool:
        """Let pages of other sites read the answer where they may; whether the request was their preflight."""
        cors, request = self._context.cors, self.request
        assert cors is not None
        self._extra_lines = cors.lines(request.noted.get(b"origin"))
        preflight = cors.preflight(request, self._context.routes)
        if preflight is not None:
            self._answer(preflight)
        return preflight is not None

    def _answer_here(self, route: Route) -> None:
        request, context = self.request, self._context
        page = context.pages.get(route.pattern)
        if page is not None:
            self._answer(page(request))
            return
        socket, opening = context.open_socket(request)
        self.status = 101
        self._settle(101)
        self.downstream.hand_over(socket, opening)

    def _answer(self, answer: Answer) -> None:
        if self._delivery is not None:
            self._delivery.drop()
        request, context = self.request, self._context
        self.status = answer.status
        close = not request.keep_alive or not request.complete or context.draining()
        self.downstream.write(
            encode(
                answer,
                request_id=self.request_id,
                close=close,
                head_only=self.asks_head,
                lines=context.fixed_lines + self._extra_lines,
            )
        )
        self._settle(answer.status)
        self.downstream.exchange_done(close=close)

    def _settle(self, status: int) -> None:
        """Counters and log, once."""
        if self._done:
            return
        self._done = True
        seconds = monotonic() - self.request.started
        context, delivery = self._context, self._delivery
        own = not self._streamed and not self._waited
        slot = delivery.end(status, seconds, at_once=own) if delivery is not None else ""
        if self.trail is not None:
            self.trail.ends(status, self.route, delivery.tries if delivery is not None else 0)
        if self.route is None:
            context.stats.reject(str(status))
        else:
            self.route.stats.record(status, seconds, self.trace_lines)
        # Failures of slots are all logged. What was refused here is not: in an overload that would be the larger load.
        if (status >= 500 and slot) or random.random() < context.settings.access_log_sample:  # noqa: S311 - a sample
            self._log(status, slot, seconds)

    def _log(self, status: int, slot: str, seconds: float) -> None:
        log.info(
            "request",
            request_id=self.request_id,
            trace_id=trace_id(self.trace_lines),
            method=self.request.method.decode(),
            route=self.route.pattern if self.route else "",
            status=status,
            slot=slot,
            tries=self._delivery.tries if self._delivery is not None else 0,
            request_bytes=self.request.received,
            milliseconds=round(seconds * 1000, 2),
        )

    def _check_body_limit(self, route: Route) -> None:
        if self.request.received > route.max_body or (self.request.length or 0) > route.max_body:
            raise TooLarge(f"The body of {route.method} {route.pattern} may have {route.max_body} bytes.")
