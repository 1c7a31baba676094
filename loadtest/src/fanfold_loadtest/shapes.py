"""What the API answers, as far as this client reads it. Unknown fields are skipped: servers may add some."""

from __future__ import annotations

from datetime import datetime
from typing import Generic, TypeVar

import msgspec

Item = TypeVar("Item")


class Account(msgspec.Struct, frozen=True):
    """A registered user."""

    id: str
    username: str


class Tokens(msgspec.Struct, frozen=True):
    """A login."""

    access_token: str
    user_id: str
    expires_in: int
    refresh_token: str


class Variants(msgspec.Struct, frozen=True):
    """The encoded sizes of a photo: each width in each format. `url` is a URI template of `width` and `format`."""

    url: str
    widths: list[int]
    formats: list[str]

    def url_of(self, width: int, kind: str) -> str:
        """URL of one variant."""
        return self.url.replace("{width}", str(width)).replace("{format}", kind)


class Image(msgspec.Struct, frozen=True):
    """A photo: uploaded, or in a post."""

    id: str
    width: int
    height: int
    blurhash: str
    variants: Variants | None
    status: str = "ready"
    failure: str | None = None


class Author(msgspec.Struct, frozen=True):
    """A user beside a post."""

    id: str
    username: str


class Post(msgspec.Struct, frozen=True):
    """A post as its reader sees it."""

    id: str
    author: Author
    caption: str
    images: list[Image]
    like_count: int
    comment_count: int
    liked_by_me: bool
    created_at: datetime


class Comment(msgspec.Struct, frozen=True):
    """A comment."""

    id: str
    text: str
    author: Author


class Page(msgspec.Struct, Generic[Item], frozen=True):
    """One page of a list; `next_cursor` is null at the end."""

    items: list[Item]
    next_cursor: str | None = None


class Problem(msgspec.Struct, frozen=True):
    """RFC 9457 problem details."""

    type: str = "about:blank"
    status: int = 0
    detail: str = ""
    request_id: str = ""
