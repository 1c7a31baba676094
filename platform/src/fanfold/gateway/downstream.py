"""The clients' side: one HTTP/1.1 connection, its requests answered in order.

The parser cannot be stopped in the middle of what it is fed, so it is fed at most `SLICE` bytes at a time, and nothing
while a whole request waits for its answer: a pipelining client costs a slice of memory, no more.
"""

from __future__ import annotations

import asyncio
from collections import deque
from ipaddress import ip_address
from time import monotonic
from typing import TYPE_CHECKING, Final, cast

import httptools

from fanfold.gateway.answers import encode, problem_answer
from fanfold.gateway.exchange import Exchange
from fanfold.gateway.messages import MAX_HEAD, REQUEST_RULES, HeadTooLarge, Request, RequestTimeout, VersionNotSupported
from fanfold.kit.errors import BadRequest, Problem
from fanfold.kit.logging import get_logger

if TYPE_CHECKING:
    from fanfold.gateway.context import Context, SocketProtocol

log = get_logger(__name__)

SLICE: Final = 16 << 10
HIGH_WATER: Final = 256 << 10
"""Bytes of answers waiting for a slow client before its services are told to wait."""
LINGER_SECONDS: Final = 2.0
"""After an answer that came before the request's end: a close at once would reset the answer away (RFC 9112, 9.6)."""
_NEVER: Final = float("inf")
_passed_prefix = REQUEST_RULES.passed.get


class Downstream(asyncio.Protocol):
    """One client connection.

    Attributes:
        deadline: Monotonic time at which whatever the client or we wait for has taken too long.
        full: The client reads too slowly; no more should be written for now.
    """

    __slots__ = (
        "_address",
        "_backlog",
        "_context",
        "_exchange",
        "_fed",
        "_forwarded",
        "_in_head",
        "_lingering",
        "_parser",
        "_parsing",
        "_pumping",
        "_queue",
        "_reading",
        "_refusal",
        "_transport",
        "_trusted",
        "deadline",
        "full",
    )

    def __init__(self, context: Context) -> None:
        self._context = context
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._parsing: Request | None = None
        self._exchange: Exchange | None = None
        self._queue: deque[Request] = deque()
        self._backlog = b""
        self._refusal: Problem | None = None
        self._fed = 0
        self._in_head = False
        self._pumping = False
        self._reading = True
        self._lingering = False
        self._forwarded = b""
        self._address = ""
        self._trusted = False
        self.full = False
        self.deadline = _NEVER

    # asyncio's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Part of `asyncio.Protocol`."""
        transport = cast("asyncio.Transport", transport)
        context = self._context
        self._transport = transport
        context.stats.connections += 1
        context.connections.add(self)
        transport.set_write_buffer_limits(HIGH_WATER)
        self.deadline = monotonic() + context.settings.head_seconds
        self._learn_peer(transport)

    def data_received(self, data: bytes) -> None:
        """Part of `asyncio.Protocol`."""
        if self._lingering:
            return
        exchange = self._exchange
        if self._backlog or (exchange is not None and exchange.request.complete):
            self._backlog += data
            self.pace_reading()
            return
        if len(data) > SLICE:
            self._backlog = data
        else:
            self._feed(data)
        self._pump()

    def eof_received(self) -> bool:
        """Part of `asyncio.Protocol`: a client that says no more is taken to be gone, as nginx and Envoy do."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Part of `asyncio.Protocol`."""
        del exc
        self._context.stats.connections -= 1
        self._context.connections.discard(self)
        self._lingering = True
        self._queue.clear()
        self._backlog = b""
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.abandon()

    def pause_writing(self) -> None:
        """Part of `asyncio.Protocol`."""
        self.full = True
        if self._exchange is not None:
            self._exchange.on_client_full(full=True)

    def resume_writing(self) -> None:
        """Part of `asyncio.Protocol`."""
        self.full = False
        if self._exchange is not None:
            self.deadline = monotonic() + self._context.settings.stall_seconds
            self._exchange.on_client_full(full=False)

    # httptools' side.

    def on_message_begin(self) -> None:
        """Part of httptools' protocol."""
        now = monotonic()
        self._parsing = Request(now)
        self._fed = 0
        self._in_head = True
        if self._exchange is None:
            self.deadline = now + self._context.settings.head_seconds

    def on_url(self, url: bytes) -> None:
        """Part of httptools' protocol."""
        assert self._parsing is not None
        self._parsing.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Part of httptools' protocol."""
        request = self._parsing
        assert request is not None
        if not self._in_head:
            raise BadRequest("Trailers are not served here.")
        prefix = _passed_prefix(name)
        if prefix is None:
            request.add_header(name, value)
        else:
            request.lines.append(prefix + value + b"\r\n")

    def on_headers_complete(self) -> None:
        """Part of httptools' protocol."""
        request = self._parsing
        assert request is not None
        parser = self._parser
        request.method = parser.get_method()
        request.keep_alive = parser.should_keep_alive()
        if not request.keep_alive or b"connection" in request.noted:
            version = parser.get_http_version()
            if version not in ("1.1", "1.0"):
                raise VersionNotSupported("Speak HTTP/1.1.")
            if version == "1.0":
                request.version_1_0 = True
                request.keep_alive = False
        self._in_head = False
        if self._fed:
            request.check_size()
        request.finish_head()
        if parser.should_upgrade():
            self._check_upgrade(request)
        self._queue.append(request)

    def on_body(self, data: bytes) -> None:
        """Part of httptools' protocol."""
        request = self._parsing
        assert request is not None
        request.received += len(data)
        request.body.append(data)

    def on_message_complete(self) -> None:
        """Part of httptools' protocol."""
        assert self._parsing is not None
        self._parsing.complete = True
        self._parsing = None

    # The exchange's side.

    def write(self, data: bytes) -> None:
        """Send bytes of an answer."""
        assert self._transport is not None
        self._transport.write(data)

    def exchange_done(self, *, close: bool) -> None:
        """The active exchange was answered in full; go on with the next request, or close."""
        exchange, self._exchange = self._exchange, None
        settings = self._context.settings
        if close:
            self._close(gently=exchange is None or not exchange.request.complete or bool(self._backlog))
            return
        now = monotonic()
        self.deadline = now + settings.idle_seconds
        if self._queue:
            self._queue[0].started = now  # its turn begins: it is not to blame for those before it
        if self._queue or self._backlog or self._refusal is not None or not self._reading:
            self._pump()

    def forwarded_lines(self, request: Request) -> bytes:
        """``X-Forwarded-For`` and ``-Proto`` for the service; what came is believed from trusted proxies only."""
        came = request.noted.get(b"x-forwarded-for") if self._trusted else None
        if came is None:
            return self._forwarded
        proto = b"https" if request.noted.get(b"x-forwarded-proto") == b"https" else b"http"
        return b"x-forwarded-for: %b, %b\r\nx-forwarded-proto: %b\r\n" % (came, self._address.encode(), proto)

    def client_address(self, request: Request) -> str:
        """Who sent the request: the peer or, behind trusted proxies, the last address that is none of theirs."""
        came = request.noted.get(b"x-forwarded-for") if self._trusted else None
        if came is None:
            return self._address
        for part in reversed(came.decode("latin-1").split(",")):
            address = part.strip()
            if not self._is_trusted(address):
                return address
        return self._address

    def take_body(self) -> None:
        """The room for the request's body has changed: go on with what has come, and read more or less."""
        self._pump()
        self.pace_reading()

    def pace_reading(self) -> None:
        """Read from the client exactly while there is room for what it sends."""
        exchange = self._exchange
        wanted = not self._backlog and not (exchange is not None and exchange.waiting_body_full)
        if wanted != self._reading and self._transport is not None and not self._transport.is_closing():
            self._reading = wanted
            if wanted:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()

    def hand_over(self, socket: SocketProtocol, opening: bytes) -> None:
        """Answer a WebSocket handshake and leave the connection to ``socket``."""
        transport, early = self._transport, self._backlog
        assert transport is not None
        self._exchange = None
        self._backlog = b""
        self._lingering = True
        self.pace_reading()
        self._context.connections.discard(self)
        self._context.stats.connections -= 1
        transport.write(opening)
        socket.take_over(transport, self._context.connections, early)

    # The server's side.

    def expire(self) -> None:
        """The deadline passed."""
        if self._exchange is not None:
            self._exchange.expire()
        elif self._lingering or self._parsing is None:
            self.abort()
        else:
            self._refuse(RequestTimeout("The head of the request did not come in time."))

    def drain(self) -> None:
        """Close when idle; busy connections close with their answer."""
        if self._exchange is None and self._parsing is None and not self._queue:
            self._close(gently=False)

    def abort(self) -> None:
        """Close now."""
        if self._transport is not None:
            self._transport.abort()

    # Within.

    def _pump(self) -> None:
        """Feed and start, in turns, until something has to be waited for."""
        if self._pumping:
            return
        self._pumping = True
        try:
            while not self._lingering:
                if self._exchange is None and self._queue:
                    self._exchange = Exchange(self._context, self, self._queue.popleft())
                    self._exchange.start()
                elif self._exchange is None and self._refusal is not None:
                    self._refuse(self._refusal)
                elif self._may_feed():
                    piece, self._backlog = self._backlog[:SLICE], self._backlog[SLICE:]
                    self._feed(piece)
                else:
                    break
        finally:
            self._pumping = False
        exchange = self._exchange
        if not self._reading or self._backlog or (exchange is not None and not exchange.request.complete):
            self.pace_reading()

    def _may_feed(self) -> bool:
        if not self._backlog or self._refusal is not None:
            return False
        exchange = self._exchange
        return exchange is None or not (exchange.request.complete or exchange.waiting_body_full)

    def _feed(self, data: bytes) -> None:
        active = self._exchange
        size = len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._backlog = data[upgrade.args[0] :] + self._backlog
        except httptools.HttpParserCallbackError as error:
            self._break(error.__context__)
        except httptools.HttpParserError as error:
            self._break(BadRequest(f"The request is malformed: {error}."))
        self._fed += size
        if self._fed > MAX_HEAD and self._in_head:
            self._break(HeadTooLarge(f"The head of a request may have {MAX_HEAD} bytes."))
        if active is not None and self._exchange is active and self._refusal is None:
            self._fed = 0
            if not self._lingering and not active.request.complete:
                self.deadline = min(
                    monotonic() + self._context.settings.stall_seconds,
                    active.request.started + self._context.settings.transfer_seconds,
                )
            active.body_arrived()

    def _break(self, cause: BaseException | None) -> None:
        """The parser stopped: nothing after this point can be understood."""
        last = self._queue[-1] if self._queue else self._exchange.request if self._exchange else None
        if last is not None and last.complete and not last.keep_alive:
            return  # bytes after "Connection: close" are nobody's
        if isinstance(cause, Problem):
            problem = cause
        else:
            log.error("parser_callback_failed", exc_info=cause)
            problem = BadRequest("The request is malformed.")
        self._refusal = problem
        broken = self._parsing
        if broken is None or last is not broken:
            return
        if self._queue:
            self._queue.pop()  # its body is broken: it must not start
        elif self._exchange is not None:
            self._exchange.refuse(problem)

    def _check_upgrade(self, request: Request) -> None:
        """The parser skips the body of every upgrade: only WebSocket, or none at all, can be told apart safely."""
        if request.length != 0:
            raise BadRequest("A request with a body cannot ask for an upgrade.")
        if request.noted.get(b"upgrade", b"").lower() == b"websocket":
            request.keep_alive = False

    def _refuse(self, problem: Problem) -> None:
        self._context.stats.reject(problem.kind)
        self._refusal = None
        self.write(encode(problem_answer(problem, ""), request_id="", close=True, lines=self._context.fixed_lines))
        self._close(gently=True)

    def _close(self, *, gently: bool) -> None:
        """Close after what was written; gently when the client may still be sending."""
        transport = self._transport
        assert transport is not None
        self._queue.clear()
        self._backlog = b""
        if self._lingering:
            return
        self._lingering = True
        if gently and transport.can_write_eof():
            transport.write_eof()
            self.deadline = monotonic() + LINGER_SECONDS
            self.pace_reading()
        else:
            transport.close()
            self.deadline = monotonic() + self._context.settings.stall_seconds

    def _learn_peer(self, transport: asyncio.Transport) -> None:
        peer = transport.get_extra_info("peername")
        self._address = peer[0] if isinstance(peer, tuple) else "127.0.0.1"
        proto = "http" if transport.get_extra_info("sslcontext") is None else "https"
        self._forwarded = f"x-forwarded-for: {self._address}\r\nx-forwarded-proto: {proto}\r\n".encode()
        self._trusted = bool(self._context.settings.trusted_proxies) and self._is_trusted(self._address)

    def _is_trusted(self, address: str) -> bool:
        try:
            parsed = ip_address(address.partition("%")[0])
        except ValueError:
            return False
        return any(parsed in network for network in self._context.settings.trusted_proxies)
