"""The one middleware around every service: request id, identity, deadline, compression, RED metrics, access log.

A call without a valid signed identity is refused before it reaches a route: nobody reaches a service but through the
gateway or from another service.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from fanfold.contracts import headers
from fanfold.kit import deadline, metrics
from fanfold.kit.compression import Compression, Negotiated
from fanfold.kit.errors import PROBLEM_MEDIA_TYPE, Forbidden, Problem, TooLarge, Unauthorized
from fanfold.kit.identity import Identity, InvalidIdentityError
from fanfold.kit.logging import get_logger, request_id

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from fanfold.kit.identity import IdentitySigner

log = get_logger(__name__)

IDENTITY_KEY: Final = "fanfold.identity"
"""Where the verified `Identity` stands in the ASGI scope."""

_REQUEST_ID = headers.REQUEST_ID.encode()
_IDENTITY = headers.IDENTITY.encode()
_DEADLINE = headers.DEADLINE.encode()
_CACHE_CONTROL = b"cache-control"
UNLESS_TOLD: Final = b"private, no-cache"
"""Who may keep an answer whose route does not say: its reader, and asks each time. What one user sees is no other's."""
UNMATCHED: Final = "unmatched"


class Edge:
    """Pure ASGI, so that hot routes in front of FastAPI pay for nothing they do not use."""

    def __init__(
        self,
        app: ASGIApp,
        signer: IdentitySigner,
        draining: Callable[[], bool] = lambda: False,
        compression: Compression | None = None,
    ) -> None:
        self._app = app
        self._signer = signer
        self._draining = draining
        self._compression = compression or Compression()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request; other scope types (lifespan) pass through."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        values = dict(scope["headers"])
        current = values.get(_REQUEST_ID, b"").decode("ascii", "replace") or uuid4().hex
        token = request_id.set(current)
        waited_until = values.get(_DEADLINE, b"")
        until = deadline.current.set(waited_until)
        started = time.perf_counter()
        status = 500

        async def send_recorded(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                told = message.get("headers", ())
                message["headers"] = [*told, (_REQUEST_ID, current.encode("ascii", "replace"))]
                if all(name != _CACHE_CONTROL for name, _ in told):
                    message["headers"].append((_CACHE_CONTROL, UNLESS_TOLD))
                if self._draining():  # who keeps this connection would meet a closed port next
                    message["headers"].append((b"connection", b"close"))
            await send(message)

        metrics.IN_FLIGHT.inc()
        try:
            scope[IDENTITY_KEY] = self._identify(scope["path"], values.get(_IDENTITY, b""))
            deadline.check(waited_until)
            if not self._compression.offered:
                await self._app(scope, receive, send_recorded)
                return
            negotiated = Negotiated(self._compression, scope["headers"])
            scope["headers"] = negotiated.headers
            answers = scope["method"] == "GET"  # of others, so that no token is ever compressed
            await self._app(scope, receive, negotiated.wrap(send_recorded) if answers else send_recorded)
        except Problem as problem:
            await send_problem(send_recorded, problem)
        finally:
            metrics.IN_FLIGHT.dec()
            self._record(scope, status, time.perf_counter() - started)
            request_id.reset(token)
            deadline.current.reset(until)

    def _identify(self, path: str, header: bytes) -> Identity:
        try:
            identity = self._signer.verify(header.decode("ascii", "replace"))
        except InvalidIdentityError as error:
            raise Unauthorized(f"Call this service through the gateway: {error}.", kind="no-identity") from error
        if path.startswith("/internal/") and identity.service is None:
            raise Forbidden("This path is for other services only.")
        return identity

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", UNMATCHED)
        method = scope["method"]
        metrics.answered(route, method, status, seconds)
        level = log.warning if status >= 500 else log.debug
        level("request", method=method, route=route, status=status, milliseconds=round(seconds * 1000, 2))


async def send_problem(send: Send, problem: Problem) -> None:
    """Answer with a problem document."""
    body = problem.document(request_id.get())
    head: list[tuple[bytes, bytes]] = [
        (b"content-type", PROBLEM_MEDIA_TYPE.encode()),
        (b"content-length", str(len(body)).encode()),
        *((name.encode(), value.encode()) for name, value in problem.headers.items()),
    ]
    await send({"type": "http.response.start", "status": problem.status, "headers": head})
    await send({"type": "http.response.body", "body": body})


async def read_body(receive: Receive, limit: int) -> bytes:
    """The whole body of a request.

    Raises:
        TooLarge: It is over ``limit`` bytes.
    """
    parts: list[bytes] = []
    size = 0
    more = True
    while more:
        message: Any = await receive()
        if message["type"] == "http.disconnect":
            break
        part = message.get("body", b"")
        size += len(part)
        if size > limit:
            raise TooLarge(f"The body is over {limit} bytes.")
        parts.append(part)
        more = message.get("more_body", False)
    return b"".join(parts)
