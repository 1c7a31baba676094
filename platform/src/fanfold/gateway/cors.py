"""Cross-origin resource sharing (WHATWG Fetch, section 3.2): which other sites' pages may call the API.

Callers send a token and no cookie, so credentials mode is never needed and never allowed. Preflights end here: no
service sees one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fanfold.contracts import headers
from fanfold.gateway.answers import Answer
from fanfold.kit.errors import Problem

if TYPE_CHECKING:
    from fanfold.gateway.messages import Request
    from fanfold.gateway.routes import RouteTable

MAX_AGE_SECONDS: Final = 600
"""How long a browser may remember a preflight; Chromium takes no more than 7,200."""
_ALLOWED: Final = (
    f"authorization, content-type, if-match, if-none-match, {headers.IDEMPOTENCY_KEY}, {headers.REQUEST_ID}, "
    f"{headers.TRACEPARENT}"
)
_EXPOSED: Final = f"{headers.REQUEST_ID}, retry-after, ratelimit, ratelimit-policy, location, etag, poll-interval"


class Cors:
    """The rule for one list of origins (``https://app.example``; ``*`` for all)."""

    def __init__(self, origins: tuple[str, ...]) -> None:
        self._any = "*" in origins
        self._origins = frozenset(origin.encode() for origin in origins)

    def allows(self, origin: bytes) -> bool:
        """Pages of ``origin`` may call."""
        return self._any or origin in self._origins

    def lines(self, origin: bytes | None) -> bytes:
        """Header lines for an answer to a page of ``origin``. Caches must keep the answers to two sites apart."""
        vary = b"" if self._any else b"vary: origin\r\n"
        if origin is None or not self.allows(origin):
            return vary
        allowed = b"*" if self._any else origin
        exposed = _EXPOSED.encode()
        return b"access-control-allow-origin: %b\r\naccess-control-expose-headers: %b\r\n%b" % (allowed, exposed, vary)

    def preflight(self, request: Request, routes: RouteTable) -> Answer | None:
        """The answer to a preflight; None when the request is none."""
        if request.method != b"OPTIONS":
            return None
        wanted, origin = request.noted.get(b"access-control-request-method"), request.noted.get(b"origin")
        if wanted is None or origin is None:
            return None
        if not self.allows(origin):
            return Answer(403)
        try:
            routes.match(wanted, request.path)
        except Problem as problem:
            return Answer(problem.status)
        return Answer(
            204,
            headers={
                "access-control-allow-methods": wanted.decode("latin-1"),
                "access-control-allow-headers": _ALLOWED,
                "access-control-max-age": str(MAX_AGE_SECONDS),
            },
        )
