"""HTTP/1.1 messages as the gateway handles them: a parsed request, header rules, prepared lines.

Names of headers repeat on every request, so the rule for each is worked out once and looked up after.
"""

from __future__ import annotations

import re
from enum import Enum
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from fanfold.contracts import headers
from fanfold.kit.errors import BadRequest, Problem

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_HEAD: Final = 32 << 10
"""Bytes of a request's header section (nginx: 4 x 8 KiB)."""
MAX_TARGET: Final = 8 << 10
MAX_HEADERS: Final = 100

HOP_BY_HOP: Final = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    )
)
"""RFC 9110 section 7.6.1, and what browsers once sent to proxies."""

_IDENTITY_NAMES: Final = frozenset(
    (
        b"x-user-id",
        b"x-user",
        b"x-session-id",
        b"x-authenticated-user",
        b"x-auth-user",
        b"x-remote-user",
        b"remote-user",
    )
)
_OURS: Final = headers.INTERNAL_PREFIX.encode()


class Rule(Enum):
    """What becomes of a header."""

    PASS = 0
    DROP = 1
    NOTE = 2
    """Kept for the gateway's own use, not passed on."""
    NOTE_AND_PASS = 3


_REQUEST_NOTED: Final = frozenset(
    (
        b"authorization",
        b"connection",
        b"content-length",
        b"expect",
        b"transfer-encoding",
        b"upgrade",
        b"x-forwarded-for",
        b"x-forwarded-proto",
        b"sec-websocket-key",
        b"sec-websocket-version",
        b"sec-websocket-protocol",
        b"access-control-request-method",
        headers.REQUEST_ID.encode(),
        headers.TRACEPARENT.encode(),
    )
)
_REQUEST_NOTED_AND_PASSED: Final = frozenset((b"host", b"origin"))
_FORWARDING: Final = frozenset((b"forwarded", b"x-real-ip", b"x-forwarded-host", b"x-forwarded-port"))
_RESPONSE_NOTED: Final = frozenset((b"content-length", b"transfer-encoding", b"connection"))
_RESPONSE_DROPPED: Final = frozenset((b"server", headers.REQUEST_ID.encode(), headers.TRACEPARENT.encode()))
_LISTS: Final = frozenset((b"connection", b"expect", b"x-forwarded-for", b"sec-websocket-protocol", b"upgrade"))


def _request_rule(name: bytes) -> Rule:
    if name in _REQUEST_NOTED:
        return Rule.NOTE
    if name in _REQUEST_NOTED_AND_PASSED:
        return Rule.NOTE_AND_PASS
    # Some servers read "_" as "-": what is ours stays ours in either spelling.
    plain = name.replace(b"_", b"-")
    if plain.startswith(_OURS) or plain in _IDENTITY_NAMES or plain in _FORWARDING or plain in HOP_BY_HOP:
        return Rule.DROP
    return Rule.PASS


def _response_rule(name: bytes) -> Rule:
    if name in _RESPONSE_NOTED:
        return Rule.NOTE
    if name in HOP_BY_HOP or name in _RESPONSE_DROPPED or name.startswith(_OURS):
        return Rule.DROP
    return Rule.PASS


class HeaderRules:
    """Remembers what becomes of each spelling of a header name.

    Attributes:
        passed: For names that are passed on and no more, the beginning of their line: ``b"accept: "``.
    """

    _LIMIT: Final = 1_024

    def __init__(self, decide: Callable[[bytes], Rule]) -> None:
        self._decide = decide
        self._rules: dict[bytes, tuple[bytes, Rule]] = {}
        self.passed: dict[bytes, bytes] = {}

    def of(self, name: bytes) -> tuple[bytes, Rule]:
        """Lower-case name and rule."""
        known = self._rules.get(name)
        if known is None:
            lower = name.lower()
            known = (lower, self._decide(lower))
            if len(self._rules) < self._LIMIT:
                self._rules[name] = known
                if known[1] is Rule.PASS:
                    self.passed[name] = lower + b": "
        return known


REQUEST_RULES: Final = HeaderRules(_request_rule)
RESPONSE_RULES: Final = HeaderRules(_response_rule)


class Request:
    """One request: its head once parsed, and the part of its body that has come and is not yet passed on.

    Attributes:
        method: Upper case.
        target: In origin form, with query.
        lines: Header lines to pass on, each ending in CRLF.
        noted: Headers for the gateway, by lower-case name.
        length: Of the body; None when it is chunked.
        keep_alive: The client will reuse the connection.
        version_1_0: HTTP/1.0: no chunked answers.
        body: Pieces not yet passed on.
        complete: All of it has come.
        received: Bytes of body so far.
        started: Monotonic time of the first byte.
    """

    __slots__ = (
        "body",
        "complete",
        "keep_alive",
        "length",
        "lines",
        "method",
        "noted",
        "received",
        "started",
        "target",
        "version_1_0",
    )

    def __init__(self, started: float) -> None:
        self.started = started
        self.method = b""
        self.target = b""
        self.lines: list[bytes] = []
        self.noted: dict[bytes, bytes] = {}
        self.length: int | None = 0
        self.keep_alive = True
        self.version_1_0 = False
        self.body: list[bytes] = []
        self.received = 0
        self.complete = False

    @property
    def path(self) -> bytes:
        """The target without its query."""
        return self.target.partition(b"?")[0]

    def add_header(self, name: bytes, value: bytes) -> None:
        """Apply the rule of one header.

        Raises:
            BadRequest: A header that may come once came twice.
        """
        lower, rule = REQUEST_RULES.of(name)
        value = value.rstrip(b" \t")  # the parser strips what is in front only (RFC 9112, section 5.1)
        if rule is Rule.NOTE or rule is Rule.NOTE_AND_PASS:
            earlier = self.noted.get(lower)
            if earlier is not None:
                if lower not in _LISTS:
                    raise BadRequest(f"The header {lower.decode()} came twice.")
                value = earlier + b", " + value
            self.noted[lower] = value
        if rule is Rule.PASS or rule is Rule.NOTE_AND_PASS:
            self.lines.append(b"%b: %b\r\n" % (lower, value))

    def check_size(self) -> None:
        """Hold a head that came in several pieces to the limit; one that came in one is below it anyway.

        Raises:
            HeadTooLarge: It is over `MAX_HEAD`.
        """
        noted = sum(len(name) + len(value) + 4 for name, value in self.noted.items())
        if len(self.target) + sum(map(len, self.lines)) + noted > MAX_HEAD:
            raise HeadTooLarge(f"The head of a request may have {MAX_HEAD} bytes.")

    def finish_head(self) -> None:
        """Check what the parser leaves to us, and settle how the body is framed.

        Raises:
            Problem: The request may not be passed on.
        """
        noted = self.noted
        if b"host" not in noted:
            if not self.version_1_0:
                raise BadRequest("A request needs exactly one Host header (RFC 9112, section 3.2).")
            self.lines.append(b"host: fanfold\r\n")
        target = self.target
        if target[0] != _SLASH or len(target) > MAX_TARGET or b"#" in target:
            self._check_target()
        if len(self.lines) + len(noted) > MAX_HEADERS:
            raise HeadTooLarge(f"A request may have {MAX_HEADERS} headers.")
        if len(noted) > 2 or b"authorization" not in noted:
            self._check_noted(noted)

    def _check_noted(self, noted: dict[bytes, bytes]) -> None:
        if b"content-length" in noted:
            self.length = int(noted[b"content-length"])
        if b"transfer-encoding" in noted:
            self._check_coding(noted[b"transfer-encoding"])
        if b"expect" in noted:
            self._check_expectation(noted[b"expect"])
        if b"connection" in noted:
            self._drop_nominated(noted[b"connection"])

    @property
    def expects_continue(self) -> bool:
        """The client waits for 100 before it sends the body."""
        return b"expect" in self.noted and not self.version_1_0

    def _check_target(self) -> None:
        if len(self.target) > MAX_TARGET:
            raise TargetTooLong(f"The request target is over {MAX_TARGET} bytes.")
        if self.target[:1] != b"/":
            self._to_origin_form()
        if b"#" in self.target:
            raise BadRequest("A request target has no fragment; percent-encode the #.")

    def _to_origin_form(self) -> None:
        """Absolute form is for proxies, yet every server must take it (RFC 9112, section 3.2.2)."""
        found = _ABSOLUTE.fullmatch(self.target)
        if found is None:
            raise BadRequest("The request target must be a path.")
        authority, rest = found.groups()
        self.target = rest if rest[:1] == b"/" else b"/" + rest
        self.lines = [line for line in self.lines if not line.startswith(b"host:")]
        self.lines.append(b"host: %b\r\n" % authority)
        self.noted[b"host"] = authority

    def _check_coding(self, value: bytes) -> None:
        if self.version_1_0:
            raise BadRequest("HTTP/1.0 has no Transfer-Encoding (RFC 9112, section 6.1).")
        if value.strip().lower() != b"chunked":
            raise NotImplementedCoding("The only transfer coding served here is chunked.")
        self.length = None

    def _check_expectation(self, value: bytes) -> None:
        if value.strip().lower() != b"100-continue":
            raise ExpectationFailed("The only expectation served here is 100-continue.")

    def _drop_nominated(self, value: bytes) -> None:
        """Headers that the sender calls hop-by-hop go no further (RFC 9110, section 7.6.1)."""
        nominated = {name.strip().lower() for name in value.split(b",")} - {
            b"close",
            b"keep-alive",
            b"upgrade",
            b"host",
        }
        if nominated:
            self.lines = [line for line in self.lines if line[: line.index(b":")] not in nominated]


_SLASH: Final = ord("/")
_ABSOLUTE: Final = re.compile(rb"https?://([^/?#@]+)([/?][^#]*|)", re.IGNORECASE)


class TargetTooLong(Problem):
    """The request target is over the limit."""

    status = 414
    kind = "target-too-long"


class HeadTooLarge(Problem):
    """The header section is over the limit."""

    status = 431
    kind = "headers-too-large"


class ExpectationFailed(Problem):
    """An expectation other than 100-continue."""

    status = 417
    kind = "expectation-failed"


class NotImplementedCoding(Problem):
    """A transfer coding other than chunked."""

    status = 501
    kind = "coding-not-implemented"


class VersionNotSupported(Problem):
    """Neither HTTP/1.1 nor HTTP/1.0."""

    status = 505
    kind = "version-not-supported"


class RequestTimeout(Problem):
    """The client stopped in the middle of a request."""

    status = 408
    kind = "request-timeout"


class BadGateway(Problem):
    """The service's answer was none, or broke off before it began."""

    status = 502
    kind = "bad-gateway"


class GatewayTimeout(Problem):
    """The service did not answer in time."""

    status = 504
    kind = "gateway-timeout"


def _status_line(status: int) -> bytes:
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "Unknown"
    return f"HTTP/1.1 {status} {phrase}\r\n".encode()


STATUS_LINES: Final = {status: _status_line(status) for status in range(100, 600)}

SECURITY_LINES: Final = b"x-content-type-options: nosniff\r\nreferrer-policy: no-referrer\r\nx-frame-options: DENY\r\n"
"""On every answer; harmless where they say nothing new. Where the gateway ends TLS, `HSTS_LINE` comes with them."""
HSTS_LINE: Final = b"strict-transport-security: max-age=31536000\r\n"


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


LAST_CHUNK: Final = b"0\r\n\r\n"
