"""What the demo demands of answers. Each function returns None, or one sentence that says what is wrong."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from PIL import Image as Picture

if TYPE_CHECKING:
    from collections.abc import Sequence

    import httpx

    from fanfold_loadtest.shapes import Image, Post


@dataclass(slots=True)
class Expected:
    """A post as it must appear: what the demo did with it.

    Attributes:
        id: Post id.
        author: User id.
        caption: As posted.
        liked_by: User ids.
        comments: How many.
    """

    id: str
    author: str
    caption: str
    liked_by: set[str] = field(default_factory=set)
    comments: int = 0


def feed_differs(feed: Sequence[Post], expected: Sequence[Expected], reader: str) -> str | None:
    """Compare a whole feed, newest first. The reader's own posts may be in it or not: a setting decides."""
    shown = [post for post in feed if post.author.id != reader]
    wanted = [post for post in expected if post.author != reader]
    wanted_ids, shown_ids = [post.id for post in wanted], [post.id for post in shown]
    if missing := set(wanted_ids) - set(shown_ids):
        return f"{len(missing)} of {len(wanted)} posts of followed people are missing"
    if strangers := {post.author.username for post in shown if post.id not in wanted_ids}:
        return f"posts of {', '.join(sorted(strangers))} are there, whom the reader does not follow"
    if shown_ids != wanted_ids:
        return "the posts are not newest first, or one is there twice"
    return next(
        (problem for post, want in zip(shown, wanted, strict=True) if (problem := post_differs(post, want, reader))),
        None,
    )


def post_differs(post: Post, expected: Expected, reader: str) -> str | None:
    """Compare one post with what was done with it."""
    facts = (
        ("author", post.author.id, expected.author),
        ("caption", post.caption, expected.caption),
        ("like_count", post.like_count, len(expected.liked_by)),
        ("comment_count", post.comment_count, expected.comments),
        ("liked_by_me", post.liked_by_me, reader in expected.liked_by),
    )
    for name, got, wanted in facts:
        if got != wanted:
            return f"post {post.id} has {name} {got!r}, expected {wanted!r}"
    if not post.images or not all(image.variants for image in post.images):
        return f"post {post.id} shows an image without variants"
    return None


def variant_differs(answer: httpx.Response, image: Image, width: int, kind: str) -> str | None:
    """Decode a downloaded variant: it must be what its URL promised, and free to be kept for ever."""
    url = answer.url
    if answer.headers.get("content-type") != f"image/{kind}":
        return f"{url} has content type {answer.headers.get('content-type')}"
    if "immutable" not in answer.headers.get("cache-control", ""):
        return f"{url} may not be kept: cache-control {answer.headers.get('cache-control')!r}"
    try:
        with Picture.open(io.BytesIO(answer.content)) as picture:
            picture.load()
            found = (str(picture.format).lower(), picture.width, picture.height)
    except OSError as error:
        return f"{url} cannot be decoded: {error}"
    promised = (kind, width, max(1, round(image.height * width / image.width)))
    return None if found == promised else f"{url} is {found}, promised was {promised}"
