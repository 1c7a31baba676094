"""The services' side: one endpoint a slot, with its pool of kept-alive connections."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING, Final, Protocol, cast

import httptools

from fanfold.gateway.messages import RESPONSE_RULES, Rule
from fanfold.kit.logging import get_logger

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from fanfold.gateway.settings import GatewaySettings

log = get_logger(__name__)

UNREACHABLE_SECONDS: Final = 1.0
"""A slot that refused a connection is left alone for this long, unless there is no other: a pod that vanished without a
word would cost each of its users a whole connection timeout."""
MAX_ANSWER_HEAD: Final = 64 << 10
_BODILESS: Final = frozenset((204, 304))
_SWITCHING_PROTOCOLS: Final = 101
_passed_prefix = RESPONSE_RULES.passed.get


class Answered(Protocol):
    """Whoever waits for an answer on a connection. Calls come in this order; `on_lost` ends any of them."""

    @property
    def asks_head(self) -> bool:
        """The request was HEAD: its answer has no body whatever its headers say."""

    def on_interim(self, status: int, lines: list[bytes]) -> None:
        """A 1xx."""

    def on_head(self, status: int, lines: list[bytes], length: bytes | None) -> None:
        """Status, headers that go on, and Content-Length unless the body is framed otherwise."""

    def on_body(self, data: bytes) -> None:
        """A piece of the body."""

    def flush(self) -> None:
        """All that one read brought has been handed over; more is to come."""

    def on_end(self) -> None:
        """The answer is whole; the connection is no longer the caller's."""

    def on_lost(self, reason: str) -> None:
        """The connection broke, or brought no HTTP."""

    def on_upstream_full(self, *, full: bool) -> None:
        """The connection takes no more of the request's body for now, or takes it again."""


class UpstreamConnection(asyncio.Protocol):
    """One connection to a slot: idle in the pool, or busy with one request."""

    __slots__ = (
        "_answered",
        "_ended",
        "_endpoint",
        "_head_bytes",
        "_in_body",
        "_lines",
        "_noted",
        "_parser",
        "_reusable",
        "_transport",
        "_until_close",
        "closed",
        "idle_since",
    )

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._answered: Answered | None = None
        self._lines: list[bytes] = []
        self._noted: dict[bytes, bytes] = {}
        self._in_body = False
        self._until_close = False
        self._head_bytes = 0
        self._ended = False
        self._reusable = False
        self.closed = False
        self.idle_since = 0.0

    # The exchange's side.

    def send(self, answered: Answered, data: bytes) -> None:
        """Begin a request. Its answer goes to ``answered``."""
        self._answered = answered
        self._in_body = False
        self._ended = False
        self._head_bytes = 0
        self.write(data)

    def write(self, data: bytes) -> None:
        """Send more of the request."""
        assert self._transport is not None
        self._transport.write(data)

    def pause_reading(self) -> None:
        """Take nothing more from the slot: the client reads too slowly."""
        if self._transport is not None and not self.closed:
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Go on taking."""
        if self._transport is not None and not self.closed:
            self._transport.resume_reading()

    def abandon(self) -> None:
        """Close, whatever is under way: nobody waits for it any more."""
        self._answered = None
        self.close()

    def close(self) -> None:
        """Close the connection."""
        if not self.closed:
            self.closed = True
            if self._transport is not None:
                self._endpoint.connections -= 1
                self._transport.abort()

    # asyncio's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Part of `asyncio.Protocol`."""
        transport = cast("asyncio.Transport", transport)
        self._transport = transport
        self._endpoint.connections += 1

    def data_received(self, data: bytes) -> None:
        """Part of `asyncio.Protocol`."""
        answered = self._answered
        if answered is None:
            self._endpoint.forget(self)  # nothing was asked: the slot and we disagree on where answers end
            self.close()
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if not self._ended:
                self._lose(f"the answer is no HTTP: {error.__context__ or error}")
                return
            self._reusable = False  # the answer is whole; what follows it is nobody's
        if self._ended:
            self._finish(answered)
            return
        if not self._in_body:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_ANSWER_HEAD:
                self._lose(f"the head of the answer is over {MAX_ANSWER_HEAD} bytes")
                return
        answered.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        """Part of `asyncio.Protocol`."""
        if not self.closed:
            self.closed = True
            self._endpoint.connections -= 1
        answered = self._answered
        if answered is None:
            self._endpoint.forget(self)
            return
        self._answered = None
        if exc is None and self._in_body and self._until_close:
            answered.on_end()  # a body without length ends with the connection (RFC 9112, section 6.3, item 8)
        else:
            answered.on_lost(f"the connection broke: {exc or 'closed by the service'}")

    def pause_writing(self) -> None:
        """Part of `asyncio.Protocol`."""
        if self._answered is not None:
            self._answered.on_upstream_full(full=True)

    def resume_writing(self) -> None:
        """Part of `asyncio.Protocol`."""
        if self._answered is not None:
            self._answered.on_upstream_full(full=False)

    # httptools' side.

    def on_header(self, name: bytes, value: bytes) -> None:
        """Part of httptools' protocol."""
        if self._in_body:
            return  # trailers: we told nobody that we take them
        prefix = _passed_prefix(name)
        if prefix is not None:
            self._lines.append(prefix + value + b"\r\n")
            return
        lower, rule = RESPONSE_RULES.of(name)
        if rule is Rule.NOTE:
            self._noted[lower] = value
        elif rule is Rule.PASS:
            self._lines.append(b"%b: %b\r\n" % (lower, value))

    def on_headers_complete(self) -> None:
        """Part of httptools' protocol."""
        answered = self._answered
        if answered is None or self._ended:
            raise ValueError("a second answer came to one request")
        status = self._parser.get_status_code()
        lines, noted, self._lines, self._noted = self._lines, self._noted, [], {}
        if status < 200:
            if status == _SWITCHING_PROTOCOLS:
                raise ValueError("101 was not asked for")
            answered.on_interim(status, lines)
            return
        self._in_body = True
        length = noted.get(b"content-length")
        chunked = b"transfer-encoding" in noted
        self._until_close = length is None and not chunked
        answered.on_head(status, lines, None if chunked else length)
        if answered.asks_head or status in _BODILESS:
            self._end()
            if chunked or length not in (None, b"0"):
                self._parser = httptools.HttpResponseParser(self)  # the old one waits for a body that never comes

    def on_body(self, data: bytes) -> None:
        """Part of httptools' protocol."""
        if self._ended:
            raise ValueError("an answer without body has one")
        if self._answered is not None:
            self._answered.on_body(data)

    def on_message_complete(self) -> None:
        """Part of httptools' protocol."""
        if self._in_body and not self._ended:
            self._end()

    def _end(self) -> None:
        """The answer is whole; the parser knows only now whether the connection may be kept."""
        self._ended = True
        self._reusable = self._parser.should_keep_alive()

    def _finish(self, answered: Answered) -> None:
        self._answered = None
        if self._reusable and not self.closed:
            self._endpoint.release(self)
        else:
            self.close()
        answered.on_end()

    def _lose(self, reason: str) -> None:
        answered = self._answered
        self.abandon()
        if answered is not None:
            answered.on_lost(reason)


class Endpoint:
    """One slot of a service, as this gateway uses it.

    Attributes:
        in_flight: Requests under way; what bounded load and the limit per slot look at.
        connections: Open connections, idle ones included.
        outcomes: Requests by outcome: ``answered``, ``failed`` (5xx), ``lost``, ``unreachable``, ``timeout``.
        seconds: Total time of requests.
        samples: Answered requests whose time was the slot's own, since the limit was last set.
        sampled_seconds: Their total time.
        limit: Most requests under way (`fanfold.gateway.concurrency`).
        errors_in_row: Failed requests since the last that was answered.
        ejections: How often it was ejected, less one for each quiet interval.
        ejected: It failed so often that it is left alone (`fanfold.gateway.outliers`).
        available: Neither ejected, nor within `UNREACHABLE_SECONDS` after a connection could not be made.
    """

    __slots__ = (
        "_absent_until",
        "_idle",
        "_settings",
        "available",
        "connections",
        "draining",
        "ejected",
        "ejections",
        "errors_in_row",
        "host",
        "in_flight",
        "limit",
        "outcomes",
        "port",
        "sampled_seconds",
        "samples",
        "seconds",
        "slot",
    )

    def __init__(self, slot: str, address: str, settings: GatewaySettings) -> None:
        self.slot = slot
        self.host, _, port = address.rpartition(":")
        self.host = self.host.strip("[]")
        self.port = int(port)
        self.draining = False
        self.in_flight = 0
        self.connections = 0
        self.outcomes = {"answered": 0, "failed": 0, "lost": 0, "unreachable": 0, "timeout": 0}
        self.seconds = 0.0
        self.samples = 0
        self.sampled_seconds = 0.0
        self.limit = settings.max_in_flight_per_slot
        self.errors_in_row = 0
        self.ejections = 0
        self.ejected = False
        self.available = True
        self._absent_until = 0.0
        self._settings = settings
        self._idle: list[UpstreamConnection] = []

    @property
    def address(self) -> str:
        """``host:port``."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def open_to(self, tried: AbstractSet[str]) -> bool:
        """Whether a request that failed on the slots ``tried`` may come here."""
        return self.available and not self.full and self.slot not in tried

    def leave_alone(self, until: float) -> None:
        """Send nothing here while there is another slot, until then (monotonic seconds)."""
        self.available = False
        self._absent_until = max(until, self._absent_until)

    def revive(self, now: float) -> None:
        """Let a slot that was left alone be tried again, once it is time."""
        if not self.available and now >= self._absent_until:
            self.readmit()

    def readmit(self) -> None:
        """Let it be tried again."""
        self.available, self.ejected, self._absent_until = True, False, 0.0

    @property
    def full(self) -> bool:
        """The limit of requests under way is reached."""
        return self.in_flight >= self.limit

    def take(self) -> UpstreamConnection | None:
        """The most recently used idle connection."""
        while self._idle:
            connection = self._idle.pop()
            if not connection.closed:
                return connection
        return None

    async def connect(self) -> UpstreamConnection:
        """A new connection.

        Raises:
            OSError: Refused or unreachable.
            TimeoutError: No answer within ``connect_seconds``.
        """
        loop = asyncio.get_running_loop()
        connection = UpstreamConnection(self)
        try:
            async with asyncio.timeout(self._settings.connect_seconds):
                await loop.create_connection(lambda: connection, self.host, self.port)
        except (OSError, TimeoutError):
            self.leave_alone(monotonic() + UNREACHABLE_SECONDS)
            connection.close()
            raise
        except asyncio.CancelledError:
            connection.close()  # the client may have gone when the connection had just been made
            raise
        return connection

    def release(self, connection: UpstreamConnection) -> None:
        """Keep a connection for the next request."""
        if self.draining or len(self._idle) >= self._settings.max_idle_per_slot:
            connection.close()
            return
        connection.idle_since = monotonic()
        self._idle.append(connection)

    def forget(self, connection: UpstreamConnection) -> None:
        """An idle connection was closed."""
        if connection in self._idle:
            self._idle.remove(connection)

    def close_idle(self, before: float) -> None:
        """Close connections that have been idle since ``before`` (monotonic seconds) or longer."""
        while self._idle and self._idle[0].idle_since <= before:
            self._idle.pop(0).close()

    def drain(self) -> None:
        """Take no connection back, close the idle ones."""
        self.draining = True
        self.close_idle(monotonic())
