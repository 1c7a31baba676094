"""Hot reads answered on the connection itself: no scope, no middleware, no routing, validation or response object.

A service names its hot routes (`Runtime.hot`). A request that is plainly one of them, whole in one read and with
nothing unusual about it, as the gateway writes them, is answered here. Every other one, and every one with something
wrong, goes through uvicorn, `kit.asgi.Edge` and FastAPI, whose route for the same path answers the same and explains
what is wrong.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from time import monotonic, perf_counter
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from uuid import UUID, uuid4

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from fanfold.contracts import headers
from fanfold.kit import deadline, metrics
from fanfold.kit.compression import Coding, Compression
from fanfold.kit.errors import PROBLEM_MEDIA_TYPE, Problem, Unavailable
from fanfold.kit.identity import InvalidIdentityError
from fanfold.kit.logging import get_logger, request_id
from fanfold.kit.valkey import ValkeyError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fanfold.kit.identity import IdentitySigner

log = get_logger(__name__)

_METHOD: Final = b"GET "
_END: Final = b"\r\n\r\n"
_VERSION: Final = b" HTTP/1.1\r\n"
_IDENTITY: Final = f"\r\n{headers.IDENTITY}: ".encode()
_REQUEST_ID: Final = f"\r\n{headers.REQUEST_ID}: ".encode()
_DEADLINE: Final = f"\r\n{headers.DEADLINE}: ".encode()
_HAD: Final = b"\r\nif-none-match: "
_ACCEPTED: Final = b"\r\naccept-encoding: "
_UNUSUAL: Final = re.compile(
    rb"\r\n(?:connection:\s*close|content-length|transfer-encoding|expect|upgrade)", re.IGNORECASE
)
_PAGE: Final = rb"(?:\?(?:limit=([1-9][0-9]?|100)(?:&|$))?(?:cursor=([A-Za-z0-9_-]{1,64}))?)?"


class Reply(NamedTuple):
    """An answer: 200 with a body, or 304 without. ``lines``: header lines of its own, each ending in CRLF."""

    body: bytes
    lines: bytes = b""
    status: int = 200


class UnusualError(Exception):
    """The request is not for here."""


@dataclass(frozen=True, slots=True)
class HotRoute:
    """A GET that a user may make, answered 200 with JSON, or 304.

    Attributes:
        pattern: As FastAPI's route has it: metrics name it.
        target: Matches a request target that is plainly right, query included; its groups go to ``answer``.
        answer: Called with the user's id, the value of ``If-None-Match`` (mostly empty) and the groups. May raise
            `Problem` and `ValkeyError`.
        lines: Header lines besides type, length and request id, each ending in CRLF.
    """

    pattern: str
    target: re.Pattern[bytes]
    answer: Callable[..., Awaitable[Reply]]
    lines: bytes = b""


def page_target(path: bytes) -> re.Pattern[bytes]:
    """Targets of a list: the groups of ``path`` (a pattern), then limit and cursor, each None when left out."""
    return re.compile(path + _PAGE)


class Asked(NamedTuple):
    """One request that is answered here."""

    route: HotRoute
    user_id: UUID
    groups: tuple[bytes | None, ...]
    request_id: bytes
    deadline: bytes
    had: bytes
    coding: Coding | None


class HotRoutes:
    """The hot routes of one service, and what their requests are judged by."""

    def __init__(
        self,
        routes: Iterable[HotRoute],
        signer: IdentitySigner,
        draining: Callable[[], bool],
        compression: Compression | None = None,
    ) -> None:
        self._routes = tuple(routes)
        self._signer = signer
        self.draining = draining
        self.compression = compression or Compression()

    def find(self, data: bytes) -> Asked | None:
        """What ``data`` asks for; None when it is not plainly one request for a hot route by a user in good time."""
        if not data.startswith(_METHOD) or not data.endswith(_END):
            return None
        end = data.find(_VERSION)
        for route in self._routes:
            match = route.target.fullmatch(data, len(_METHOD), max(end, 0))
            if match is not None:
                try:
                    return self._admit(data, route, match)
                except (UnusualError, InvalidIdentityError, deadline.DeadlinePassed):
                    return None
        return None

    def _admit(self, data: bytes, route: HotRoute, match: re.Match[bytes]) -> Asked:
        if data.find(_END) != len(data) - len(_END) or data.count(b"\n") != data.count(b"\r\n"):
            raise UnusualError("more than one request, or bare line feeds")
        if _UNUSUAL.search(data) is not None:
            raise UnusualError("a body, or the connection's end")
        identity = self._signer.verify(_value(data, _IDENTITY).decode("ascii", "replace"))
        if identity.user_id is None:
            raise UnusualError("no user")
        waited_until = _value(data, _DEADLINE)
        deadline.check(waited_until)
        accepted = _value(data, _ACCEPTED)
        coding = self.compression.choose(accepted) if accepted else None
        request_id_, had = _value(data, _REQUEST_ID), _value(data, _HAD)
        return Asked(route, identity.user_id, match.groups(), request_id_, waited_until, had, coding)


def _value(data: bytes, name: bytes) -> bytes:
    """Value of a header in the spelling that the platform uses; empty without one.

    Raises:
        UnusualError: It stands there twice.
    """
    start = data.find(name)
    if start < 0:
        return b""
    start += len(name)
    end = data.index(b"\r\n", start)
    if data.find(name, end) >= 0:
        raise UnusualError("a header came twice")
    return data[start:end]


class HotProtocol(HttpToolsProtocol):
    """uvicorn's connection with hot routes in front of its parser. One request at a time, either way."""

    def __init__(self, routes: HotRoutes, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._routes = routes
        self._between = True
        self._task: asyncio.Task[None] | None = None
        self._later = b""
        self._used = 0.0

    def data_received(self, data: bytes) -> None:
        """Part of `asyncio.Protocol`."""
        if self._task is not None:
            self._later += data
            self.flow.pause_reading()
            return
        if self._between and (self.cycle is None or self.cycle.response_complete):
            asked = self._routes.find(data)
            if asked is not None:
                self._task = self.loop.create_task(self._answer(asked))
                return
        super().data_received(data)

    def on_message_begin(self) -> None:
        """Part of httptools' protocol."""
        self._between = False
        super().on_message_begin()

    def on_message_complete(self) -> None:
        """Part of httptools' protocol."""
        self._between = True
        super().on_message_complete()

    def shutdown(self) -> None:
        """Close when idle; a connection with a request under way closes with its answer: the service is draining."""
        if self._task is None:
            super().shutdown()

    def timeout_keep_alive_handler(self) -> None:
        """Close after a while without requests. Hot ones set no timer each: they leave a mark, looked at here."""
        left = self._used + self.timeout_keep_alive - monotonic()
        if self._task is not None or left > 0:
            self._wait_for_quiet(max(left, 1.0))
        else:
            super().timeout_keep_alive_handler()

    def _wait_for_quiet(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    async def _answer(self, asked: Asked) -> None:
        started = perf_counter()
        current = asked.request_id or uuid4().hex.encode()
        request_id.set(current.decode("ascii", "replace"))
        deadline.current.set(asked.deadline)
        metrics.IN_FLIGHT.inc()
        try:
            body, lines, status = await asked.route.answer(asked.user_id, asked.had, *asked.groups)
            head = b"%b%b%b" % (_NOT_MODIFIED if status == _UNCHANGED else _OK, asked.route.lines, lines)
            packing = self._routes.compression
            if packing.offered and len(body) >= packing.least:
                head += _VARY
                if asked.coding is not None:
                    body, head = packing.pack(body, asked.coding), head + _PACKED[asked.coding]
        except Exception as error:  # noqa: BLE001 - whatever it is, it is answered
            problem = _problem_of(error)
            status, head, body = problem.status, _head_of(problem), problem.document(request_id.get())
        finally:
            metrics.IN_FLIGHT.dec()
        closing = self._routes.draining()
        if not self.transport.is_closing():
            end = b"\r\nconnection: close\r\n\r\n" if closing else _END
            length = b"" if status == _UNCHANGED else b"content-length: %d\r\n" % len(body)
            date = b"".join([b"%b: %b\r\n" % line for line in self.server_state.default_headers])
            self.transport.write(b"%b%b%bx-request-id: %b%b%b" % (head, date, length, current, end, body))
        metrics.answered(asked.route.pattern, "GET", status, perf_counter() - started)
        self._done(closing=closing)

    def _done(self, *, closing: bool) -> None:
        self._task = None
        if closing or self.transport.is_closing():
            self.transport.close()
            return
        self._used = monotonic()
        if self.timeout_keep_alive_task is None:
            self._wait_for_quiet(self.timeout_keep_alive)
        later, self._later = self._later, b""
        if later:
            self.flow.resume_reading()
            self.data_received(later)


_VARY: Final = b"vary: accept-encoding\r\n"
_PACKED: Final[dict[Coding, bytes]] = {"gzip": b"content-encoding: gzip\r\n", "br": b"content-encoding: br\r\n"}
_UNCHANGED: Final = 304
_NOT_MODIFIED: Final = b"HTTP/1.1 304 Not Modified\r\n"
_OK: Final = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"


def _problem_of(error: Exception) -> Problem:
    if isinstance(error, Problem):
        return error
    if isinstance(error, ValkeyError):
        log.warning("valkey_unavailable", error=str(error))
        return Unavailable("The cache does not answer; try again.")
    log.error("unhandled_error", exc_info=error)
    return Problem("Something went wrong here; the request id finds it in our logs.")


def _head_of(problem: Problem) -> bytes:
    lines = [f"HTTP/1.1 {problem.status} {problem.title}", f"content-type: {PROBLEM_MEDIA_TYPE}"]
    lines += [f"{name}: {value}" for name, value in problem.headers.items()]
    return "\r\n".join([*lines, ""]).encode()
