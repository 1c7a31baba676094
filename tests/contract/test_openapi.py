from __future__ import annotations

import json
from typing import Any

import pytest

from tools.openapi import TARGET, merged


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


def test_nothing_internal_is_documented(document: Any) -> None:
    assert not [path for path in document["paths"] if not path.startswith("/v1/")]


def test_every_reference_leads_somewhere(document: Any) -> None:
    text = json.dumps(document)
    names = {part.split('"')[0] for part in text.split('"#/components/schemas/')[1:]}
    assert names <= set(document["components"]["schemas"])
