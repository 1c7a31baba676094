from __future__ import annotations

import pytest

from fanfold.contracts.components import ROUTED
from fanfold.gateway.routes import LOCAL, Access, MethodNotAllowed, Route, RouteTable, public_routes
from fanfold.gateway.settings import GatewaySettings
from fanfold.kit.errors import NotFound
from fanfold.kit.settings import SettingsError

SETTINGS = GatewaySettings(snapshot_source="file:/nowhere", max_body=1_000, max_upload=9_000, request_seconds=4)
TABLE = RouteTable(public_routes(SETTINGS))
ID = "0190a0b0-0000-7000-8000-000000000001"


@pytest.mark.parametrize(
    ("request_line", "service"),
    [
        ("POST /v1/accounts", "profile"),
        ("POST /v1/sessions", "profile"),
        ("POST /v1/sessions/refresh", "profile"),
        ("DELETE /v1/sessions/current", "profile"),
        ("GET /v1/users/me", "profile"),
        ("PATCH /v1/users/me", "profile"),
        ("DELETE /v1/users/me", "profile"),
        ("PUT /v1/users/me/picture", "profile"),
        ("GET /v1/users/me/export", "profile"),
        (f"GET /v1/users/{ID}", "profile"),
        ("GET /v1/users", "profile"),
        (f"PUT /v1/users/me/following/{ID}", "follow"),
        (f"DELETE /v1/users/me/following/{ID}", "follow"),
        (f"GET /v1/users/{ID}/followers", "follow"),
        (f"GET /v1/users/{ID}/following", "follow"),
        ("POST /v1/images", "image"),
        (f"GET /v1/images/{ID}", "image"),
        ("POST /v1/images/uploads", "image"),
        (f"POST /v1/images/uploads/{ID}/complete", "image"),
        ("GET /v1/media/ab/cd/x_320.webp", "image"),
        ("POST /v1/posts", "post"),
        (f"GET /v1/posts/{ID}", "post"),
        (f"PATCH /v1/posts/{ID}", "post"),
        (f"DELETE /v1/posts/{ID}", "post"),
        (f"GET /v1/users/{ID}/posts", "post"),
        ("GET /v1/tags/sunset/posts", "post"),
        ("GET /v1/feed", "feed"),
        (f"PUT /v1/posts/{ID}/like", "activity"),
        (f"DELETE /v1/posts/{ID}/like", "activity"),
        (f"GET /v1/posts/{ID}/likes", "activity"),
        (f"POST /v1/posts/{ID}/comments", "activity"),
        (f"GET /v1/posts/{ID}/comments", "activity"),
        (f"DELETE /v1/comments/{ID}", "activity"),
        (f"PUT /v1/comments/{ID}/like", "activity"),
        ("GET /v1/notifications", "notification"),
        ("PUT /v1/notifications/read", "notification"),
        ("GET /v1/ws", LOCAL),
        ("GET /openapi.json", LOCAL),
        ("GET /docs", LOCAL),
    ],
)
def test_every_call_of_the_api_has_its_service(request_line: str, service: str) -> None:
    method, path = request_line.encode().split()
    assert TABLE.match(method, path).service == service


def test_only_what_must_be_is_open_to_anybody() -> None:
    public = {f"{route.method} {route.pattern}" for route in TABLE.routes if route.access is Access.PUBLIC}
    assert public == {
        "POST /v1/accounts",
        "POST /v1/sessions",
        "POST /v1/sessions/refresh",
        "GET /v1/media/{path...}",
        "HEAD /v1/media/{path...}",
        "GET /v1/ws",  # checks its token itself: it may come in other ways
        "GET /openapi.json",
        "HEAD /openapi.json",
        "GET /docs",
        "HEAD /docs",
    }


def test_every_route_leads_to_a_service_of_the_snapshot_and_none_inside() -> None:
    assert {route.service for route in TABLE.routes} - {LOCAL} == set(ROUTED)
    assert not [route for route in TABLE.routes if "internal" in route.pattern]


def test_limits_follow_the_settings() -> None:
    assert TABLE.match(b"POST", b"/v1/posts").max_body == 1_000
    assert TABLE.match(b"POST", b"/v1/images").max_body == 9_000
    assert TABLE.match(b"GET", b"/v1/notifications").timeout > 25  # it may wait for news that long
    assert TABLE.match(b"GET", b"/v1/feed").timeout == 4
    assert TABLE.match(b"POST", b"/v1/images").timeout > 4


def test_a_fixed_segment_wins_over_a_name() -> None:
    table = RouteTable(
        [Route("GET", "/a/{id}", "named"), Route("GET", "/a/me", "fixed"), Route("GET", "/a/{id}/b", "deep")]
    )
    assert table.match(b"GET", b"/a/me").service == "fixed"
    assert table.match(b"GET", b"/a/you").service == "named"
    assert table.match(b"GET", b"/a/you/b").service == "deep"
    with pytest.raises(NotFound):
        table.match(b"GET", b"/a/me/b")


@pytest.mark.parametrize(
    "path", [b"/v1/users/", b"/v1/users/.", b"/v1/users/..", b"/v1/media/", b"/v1/media/a/../b", b"/v1/media/a//b"]
)
def test_empty_and_dot_segments_are_no_names(path: bytes) -> None:
    with pytest.raises(NotFound):
        TABLE.match(b"GET", path)


def test_another_method_is_told_which_there_are() -> None:
    with pytest.raises(MethodNotAllowed) as refused:
        TABLE.match(b"DELETE", b"/v1/media/x")
    assert refused.value.headers == {"allow": "GET, HEAD"}


def test_two_routes_for_one_call_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="two routes"):
        RouteTable([Route("GET", "/a", "one"), Route("GET", "/a", "other")])


def test_a_route_may_have_a_time_of_its_own_and_only_one_that_is_there() -> None:
    def seconds(**by_route: float) -> RouteTable:
        return RouteTable(public_routes(GatewaySettings(snapshot_source="file:/x", route_seconds=by_route)))

    table = seconds(**{"GET /v1/feed": 2})
    assert table.match(b"GET", b"/v1/feed").timeout == 2
    assert table.match(b"POST", b"/v1/posts").timeout == 10
    with pytest.raises(SettingsError, match="GET /v1/feeds"):
        seconds(**{"GET /v1/feeds": 2})
