"""Which service answers which method and path, with what limits. A path is matched segment by segment, in dicts."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Final

from fanfold.gateway.metrics import RouteStats
from fanfold.kit.errors import BadRequest, NotFound, Problem
from fanfold.kit.settings import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fanfold.gateway.settings import GatewaySettings

LOCAL: Final = ""
"""Service of what the gateway answers itself."""
_ANY = b"{}"
_REST = b"{*}"


class Access(Enum):
    """Who may call: anybody, or users with a valid token only."""

    PUBLIC = "public"
    USER = "user"


class Body(Enum):
    """Which limits a request's body has."""

    SMALL = "small"
    UPLOAD = "upload"


@dataclass(frozen=True, slots=True, eq=False)
class Route:
    """One row of the table.

    Attributes:
        method: Upper case.
        pattern: Path with ``{name}`` for one segment and, at the end, ``{name...}`` for all that follow.
        service: Who answers; `LOCAL` for the gateway itself.
        access: A `Access.USER` route goes to the slot that owns the user, a public one to the less loaded of two.
        max_body: Bytes.
        timeout: Seconds from the end of the request to the head of the answer.
        steady: Its answers take as long as the slot is loaded, so that their time tells of it.
        load: What one request counts among those under way: 0 where it only waits for news.
        guarded: Guessing pays here: it has the stricter limit per address.
        hedge_after: Seconds after which a second slot is asked too; 0: never.
        stats: Counters of this row.
    """

    method: str
    pattern: str
    service: str
    access: Access = Access.USER
    max_body: int = 64 << 10
    timeout: float = 10.0
    steady: bool = True
    load: int = 1
    guarded: bool = False
    hedge_after: float = 0.0
    stats: RouteStats = field(default_factory=RouteStats)


class MethodNotAllowed(Problem):
    """The path is known, the method is not."""

    status = 405
    kind = "method-not-allowed"


class _Node:
    __slots__ = ("any", "children", "rest", "routes")

    def __init__(self) -> None:
        self.children: dict[bytes, _Node] = {}
        self.any: _Node | None = None
        self.rest = False
        self.routes: dict[bytes, Route] = {}


class RouteTable:
    """Finds the route of a request; a fixed segment wins over ``{name}``."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self.routes = tuple(routes)
        self._root = _Node()
        self._fixed: dict[bytes, dict[bytes, Route]] = {}
        for route in self.routes:
            self._add(route)

    def match(self, method: bytes, path: bytes) -> Route:
        """The route of a request.

        Args:
            method: Upper case.
            path: Without query, as sent (percent-encoded).

        Raises:
            NotFound: No such path.
            BadRequest: The path hides a separator or a dot segment in percent-encoding.
            MethodNotAllowed: With ``Allow``.
        """
        routes = self._fixed.get(path)
        if routes is None:
            routes = self._walk(path)
        route = routes.get(method)
        if route is None:
            allowed = ", ".join(sorted(name.decode() for name in routes))
            raise MethodNotAllowed(f"This path answers {allowed}.", headers={"allow": allowed})
        return route

    def _walk(self, path: bytes) -> dict[bytes, Route]:
        if b"%" in path:
            _refuse_hidden(path)
        node: _Node | None = self._root
        for segment in path.split(b"/")[1:]:
            assert node is not None
            child = node.children.get(segment)
            node = child if child is not None else node.any
            if node is None or (child is None and segment in (b"", b".", b"..")):
                raise _unknown()
            if node.rest:
                _refuse_dots(path)
                break
        if node is None or not node.routes:
            raise _unknown()
        return node.routes

    def _add(self, route: Route) -> None:
        node = self._root
        segments = [_segment(part) for part in route.pattern.split("/")[1:]]
        for segment in segments:
            if segment in (_ANY, _REST):
                node.any = node.any or _Node()
                node = node.any
                node.rest = node.rest or segment == _REST
            else:
                node = node.children.setdefault(segment, _Node())
        method = route.method.encode()
        if method in node.routes:
            raise ValueError(f"two routes for {route.method} {route.pattern}")
        node.routes[method] = route
        if _ANY not in segments and _REST not in segments:
            self._fixed[route.pattern.encode()] = node.routes


def _segment(part: str) -> bytes:
    if part.startswith("{"):
        return _REST if part.endswith("...}") else _ANY
    return part.encode()


def _unknown() -> NotFound:
    return NotFound("There is nothing at this path; GET /openapi.json lists what there is.")


def _refuse_hidden(path: bytes) -> None:
    lowered = path.lower()
    if any(code in lowered for code in (b"%2f", b"%5c", b"%2e", b"%00")):
        raise BadRequest("The path hides a slash, backslash, dot or NUL in percent-encoding; send it plainly.")


def _refuse_dots(path: bytes) -> None:
    if any(segment in (b"", b".", b"..") for segment in path.split(b"/")[1:]):
        raise _unknown()


# Method(s), path, service, access, body. One row a path: what a row does not name is answered with 405.
_TABLE: Final[tuple[tuple[str, str, str, Access, Body], ...]] = (
    ("POST", "/v1/accounts", "profile", Access.PUBLIC, Body.SMALL),
    ("POST", "/v1/sessions", "profile", Access.PUBLIC, Body.SMALL),
    ("GET DELETE", "/v1/sessions", "profile", Access.USER, Body.SMALL),
    ("DELETE", "/v1/sessions/{id}", "profile", Access.USER, Body.SMALL),
    ("PUT", "/v1/users/me/password", "profile", Access.USER, Body.SMALL),
    ("POST", "/v1/sessions/refresh", "profile", Access.PUBLIC, Body.SMALL),
    ("DELETE", "/v1/sessions/current", "profile", Access.USER, Body.SMALL),
    ("GET", "/v1/users", "profile", Access.USER, Body.SMALL),
    ("GET PATCH DELETE", "/v1/users/me", "profile", Access.USER, Body.SMALL),
    ("PUT DELETE", "/v1/users/me/picture", "profile", Access.USER, Body.SMALL),
    ("GET", "/v1/users/me/export", "profile", Access.USER, Body.SMALL),
    ("GET", "/v1/users/{id}", "profile", Access.USER, Body.SMALL),
    ("GET", "/v1/users/me/following", "follow", Access.USER, Body.SMALL),
    ("GET PUT DELETE", "/v1/users/me/following/{id}", "follow", Access.USER, Body.SMALL),
    ("GET", "/v1/users/me/followers", "follow", Access.USER, Body.SMALL),
    ("DELETE", "/v1/users/me/followers/{id}", "follow", Access.USER, Body.SMALL),
    ("GET", "/v1/users/me/follow-requests", "follow", Access.USER, Body.SMALL),
    ("GET", "/v1/users/me/follow-requests/sent", "follow", Access.USER, Body.SMALL),
    ("PUT DELETE", "/v1/users/me/follow-requests/{id}", "follow", Access.USER, Body.SMALL),
    ("GET", "/v1/users/me/blocks", "follow", Access.USER, Body.SMALL),
    ("GET PUT DELETE", "/v1/users/me/blocks/{id}", "follow", Access.USER, Body.SMALL),
    ("GET", "/v1/users/{id}/followers", "follow", Access.USER, Body.SMALL),
    ("GET", "/v1/users/{id}/following", "follow", Access.USER, Body.SMALL),
    ("POST", "/v1/images", "image", Access.USER, Body.UPLOAD),
    ("GET", "/v1/images/{id}", "image", Access.USER, Body.SMALL),
    ("POST", "/v1/images/uploads", "image", Access.USER, Body.SMALL),
    ("POST", "/v1/images/uploads/{id}/complete", "image", Access.USER, Body.SMALL),
    ("GET HEAD", "/v1/media/{path...}", "image", Access.PUBLIC, Body.SMALL),
    ("POST", "/v1/posts", "post", Access.USER, Body.SMALL),
    ("GET PATCH DELETE", "/v1/posts/{id}", "post", Access.USER, Body.SMALL),
    ("GET", "/v1/users/{id}/posts", "post", Access.USER, Body.SMALL),
    ("GET", "/v1/tags/{tag}/posts", "post", Access.USER, Body.SMALL),
    ("PUT DELETE", "/v1/posts/{id}/like", "activity", Access.USER, Body.SMALL),
    ("GET", "/v1/posts/{id}/likes", "activity", Access.USER, Body.SMALL),
    ("GET POST", "/v1/posts/{id}/comments", "activity", Access.USER, Body.SMALL),
    ("DELETE", "/v1/comments/{id}", "activity", Access.USER, Body.SMALL),
    ("PUT DELETE", "/v1/comments/{id}/like", "activity", Access.USER, Body.SMALL),
    ("GET", "/v1/feed", "feed", Access.USER, Body.SMALL),
    ("PUT", "/v1/posts/{id}/report", "post", Access.USER, Body.SMALL),
    ("PUT", "/v1/users/{id}/report", "profile", Access.USER, Body.SMALL),
    ("GET", "/v1/moderation/posts/reports", "post", Access.USER, Body.SMALL),
    ("GET", "/v1/moderation/posts/log", "post", Access.USER, Body.SMALL),
    ("GET", "/v1/moderation/posts/{id}", "post", Access.USER, Body.SMALL),
    ("PUT", "/v1/moderation/posts/{id}/hidden", "post", Access.USER, Body.SMALL),
    ("PUT", "/v1/moderation/posts/{id}/shown", "post", Access.USER, Body.SMALL),
    ("PUT", "/v1/moderation/posts/{id}/dismissal", "post", Access.USER, Body.SMALL),
    ("GET", "/v1/moderation/users/reports", "profile", Access.USER, Body.SMALL),
    ("GET", "/v1/moderation/users/log", "profile", Access.USER, Body.SMALL),
    ("GET", "/v1/moderation/users/{id}", "profile", Access.USER, Body.SMALL),
    ("PUT", "/v1/moderation/users/{id}/hidden", "profile", Access.USER, Body.SMALL),
    ("PUT", "/v1/moderation/users/{id}/shown", "profile", Access.USER, Body.SMALL),
    ("PUT", "/v1/moderation/users/{id}/dismissal", "profile", Access.USER, Body.SMALL),
    ("GET", "/v1/notifications", "notification", Access.USER, Body.SMALL),
    ("GET PATCH", "/v1/notifications/preferences", "notification", Access.USER, Body.SMALL),
    ("PUT", "/v1/notifications/read", "notification", Access.USER, Body.SMALL),
    ("GET", "/v1/ws", LOCAL, Access.PUBLIC, Body.SMALL),
    ("GET HEAD", "/openapi.json", LOCAL, Access.PUBLIC, Body.SMALL),
    ("GET HEAD", "/docs", LOCAL, Access.PUBLIC, Body.SMALL),
)

# Seconds that some answers take more than others by their nature: gathering, judging a picture, waiting for news.
_EXTRA_SECONDS: Final = {"/v1/users/me/export": 50.0, "/v1/images": 20.0, "/v1/notifications": 25.0}
_NEWS: Final = ("GET", "/v1/notifications")
_GUARDED: Final = frozenset({"/v1/accounts", "/v1/sessions", "/v1/sessions/refresh"})
_HEDGED: Final = ("GET", "/v1/feed")


def public_routes(settings: GatewaySettings) -> list[Route]:
    """The platform's API. ``/internal`` and the admin port's paths are in no row: nobody outside reaches them.

    Raises:
        SettingsError: ``FANFOLD_ROUTE_SECONDS`` names a route that is not there.
    """
    routes = [
        _route(settings, method, pattern, service, access, body)
        for methods, pattern, service, access, body in _TABLE
        for method in methods.split()
    ]
    unknown = settings.route_seconds.keys() - {f"{route.method} {route.pattern}" for route in routes}
    if unknown:
        raise SettingsError(f"FANFOLD_ROUTE_SECONDS names no route of the gateway: {', '.join(sorted(unknown))}")
    return routes


def _route(  # noqa: PLR0913, PLR0917 - a row of the table
    settings: GatewaySettings, method: str, pattern: str, service: str, access: Access, body: Body
) -> Route:
    usual = settings.request_seconds + _EXTRA_SECONDS.get(pattern, 0.0)
    return Route(
        method,
        pattern,
        service,
        access,
        max_body=settings.max_upload if body is Body.UPLOAD else settings.max_body,
        timeout=settings.route_seconds.get(f"{method} {pattern}", usual),
        steady=pattern not in _EXTRA_SECONDS,
        load=0 if (method, pattern) == _NEWS else 1,
        guarded=pattern in _GUARDED and access is Access.PUBLIC,
        hedge_after=settings.hedge_seconds if (method, pattern) == _HEDGED else 0.0,
    )
