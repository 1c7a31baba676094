from __future__ import annotations

import io
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import httpx
import msgspec
import pytest
from PIL import Image as Picture

from fanfold_loadtest.checks import Expected, feed_differs, post_differs, variant_differs
from fanfold_loadtest.shapes import Author, Image, Post, Variants

READER = "me"
VARIANTS = Variants("/v1/media/x/{width}.{format}", [320], ["webp"])
IMAGE = Image("i", 640, 400, "h", VARIANTS)
URL = "http://gateway/v1/media/x/320.webp"


def post(number: int, author: str = "a", **over: Any) -> Post:
    values: dict[str, Any] = {
        "id": f"{number:03}",
        "author": Author(author, f"@{author}"),
        "caption": "c",
        "images": [IMAGE],
        "like_count": 0,
        "comment_count": 0,
        "liked_by_me": False,
        "created_at": datetime.now(UTC),
    }
    return Post(**{**values, **over})


def expected(number: int, author: str = "a") -> Expected:
    return Expected(f"{number:03}", author, "c")


FEED = [post(3), post(2, "b"), post(1)]
WANTED = [expected(3), expected(2, "b"), expected(1)]


def test_a_right_feed_has_nothing_wrong() -> None:
    assert feed_differs(FEED, WANTED, READER) is None
    assert feed_differs([], [], READER) is None


def test_the_readers_own_posts_may_be_there_or_not() -> None:
    assert feed_differs([post(4, READER), *FEED], [expected(4, READER), *WANTED], READER) is None
    assert feed_differs(FEED, [expected(4, READER), *WANTED], READER) is None


@pytest.mark.parametrize(
    ("feed", "problem"),
    [
        (FEED[1:], "1 of 3 posts"),
        ([*FEED, post(9, "stranger")], "@stranger"),
        ([FEED[1], FEED[0], FEED[2]], "newest first"),
        ([FEED[0], *FEED], "twice"),
        ([post(3, like_count=1), *FEED[1:]], "like_count 1, expected 0"),
    ],
)
def test_a_wrong_feed_is_told(feed: list[Post], problem: str) -> None:
    found = feed_differs(feed, WANTED, READER)
    assert found is not None
    assert problem in found


@pytest.mark.parametrize(
    ("over", "problem"),
    [
        ({"author": Author("b", "@b")}, "author"),
        ({"caption": "other"}, "caption"),
        ({"like_count": 3}, "like_count 3, expected 2"),
        ({"comment_count": 0}, "comment_count 0, expected 1"),
        ({"liked_by_me": False}, "liked_by_me"),
        ({"images": []}, "variants"),
        ({"images": [Image("i", 1, 1, "h", None)]}, "variants"),
    ],
)
def test_each_wrong_fact_of_a_post_is_told(over: dict[str, Any], problem: str) -> None:
    wanted = replace(expected(1), liked_by={READER, "x"}, comments=1)
    right: dict[str, Any] = {"like_count": 2, "comment_count": 1, "liked_by_me": True}
    assert post_differs(post(1, **right), wanted, READER) is None
    found = post_differs(post(1, **{**right, **over}), wanted, READER)
    assert found is not None
    assert problem in found


HEADERS = {"content-type": "image/webp", "cache-control": "public, immutable"}


def answer(
    kind: str = "webp", size: tuple[int, int] = (320, 200), over: dict[str, str] | None = None
) -> httpx.Response:
    buffer = io.BytesIO()
    Picture.new("RGB", size).save(buffer, kind)
    return response(buffer.getvalue(), HEADERS | (over or {}))


def response(content: bytes, headers: dict[str, str] = HEADERS) -> httpx.Response:
    return httpx.Response(200, content=content, headers=headers, request=httpx.Request("GET", URL))


def test_a_variant_must_be_what_was_promised() -> None:
    assert variant_differs(answer(), IMAGE, 320, "webp") is None
    wrong = [
        answer("jpeg"),
        answer(size=(321, 200)),
        answer(over={"content-type": "text/html"}),
        answer(over={"cache-control": "no-store"}),
        response(b"x"),
    ]
    assert all(variant_differs(each, IMAGE, 320, "webp") for each in wrong)


def test_posts_of_newer_servers_with_more_fields_can_be_read() -> None:
    document = {**msgspec.to_builtins(post(1)), "new": {"field": 1}}
    assert msgspec.json.decode(msgspec.json.encode(document), type=Post).id == "001"
