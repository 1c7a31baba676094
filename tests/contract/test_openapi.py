from __future__ import annotations

import json
import re
from typing import Any

import pytest

from fanfold.gateway.routes import Access, Route, RouteTable, public_routes
from fanfold.gateway.settings import GatewaySettings
from tools.openapi import TARGET, merged

OWN_PAGES = {"/openapi.json", "/docs"}


@pytest.fixture(scope="module")
def document() -> Any:
    return merged()


def test_the_committed_document_is_what_the_services_say(document: Any) -> None:
    assert json.loads(TARGET.read_text()) == document, "run `make openapi`"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("post", "/v1/accounts"),
        ("post", "/v1/sessions"),
        ("post", "/v1/sessions/refresh"),
        ("delete", "/v1/sessions/current"),
        ("get", "/v1/users/me"),
        ("put", "/v1/users/me/picture"),
        ("put", "/v1/users/me/following/{user_id}"),
        ("post", "/v1/images"),
        ("post", "/v1/posts"),
        ("delete", "/v1/posts/{post_id}"),
        ("get", "/v1/users/{author_id}/posts"),
        ("get", "/v1/feed"),
        ("put", "/v1/posts/{post_id}/like"),
        ("post", "/v1/posts/{post_id}/comments"),
        ("delete", "/v1/comments/{comment_id}"),
        ("get", "/v1/notifications"),
    ],
)
def test_the_operations_of_the_design_are_documented(document: Any, method: str, path: str) -> None:
    operation = document["paths"][path][method]
    assert operation["summary"]
    assert operation["tags"]


def test_only_registration_login_and_media_are_open_to_all(document: Any) -> None:
    anonymous = {
        (method, path)
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        if operation["security"] == []
    }
    assert {path for _, path in anonymous if not path.startswith("/v1/media")} == {
        "/v1/accounts",
        "/v1/sessions",
        "/v1/sessions/refresh",
    }


def test_every_post_takes_an_idempotency_key(document: Any) -> None:
    posts = {path: operations["post"] for path, operations in document["paths"].items() if "post" in operations}
    named = {path: [one["name"] for one in post.get("parameters", ())] for path, post in posts.items()}
    assert len(named) > 5
    assert [path for path, names in named.items() if "Idempotency-Key" not in names] == []


def test_nothing_internal_is_documented(document: Any) -> None:
    assert not [path for path in document["paths"] if not path.startswith("/v1/")]


def test_every_reference_leads_somewhere(document: Any) -> None:
    text = json.dumps(document)
    names = {part.split('"')[0] for part in text.split('"#/components/schemas/')[1:]}
    assert names <= set(document["components"]["schemas"])


@pytest.fixture(scope="module")
def table() -> RouteTable:
    return RouteTable(public_routes(GatewaySettings(snapshot_source="file:/nowhere")))


def routed(table: RouteTable, method: str, path: str) -> Route:
    """Where the gateway sends a documented operation: 404 and 405 are raised."""
    return table.match(method.upper().encode(), re.sub(r"\{[^}]*\}", "0", path).encode())


def test_the_gateway_routes_what_is_documented_and_nothing_else(document: Any, table: RouteTable) -> None:
    documented = {
        routed(table, method, path) for path, operations in document["paths"].items() for method in operations
    }
    gets = {route.pattern for route in documented if route.method == "GET"}
    for route in set(table.routes) - documented:
        assert route.pattern in OWN_PAGES or (route.method == "HEAD" and route.pattern in gets), route


def test_the_gateway_asks_for_a_token_where_the_document_says_so(document: Any, table: RouteTable) -> None:
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if path != "/v1/ws":  # the socket finds its token itself
                assert bool(operation["security"]) is (routed(table, method, path).access is Access.USER), path
