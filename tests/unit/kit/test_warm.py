"""Whole posts are remembered beside the blobs they were made of, and given for pages that lack nothing."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import msgspec
import pytest

from fanfold.contracts import keys
from fanfold.contracts.blobs import CountsBlob, PostBlob, UserBlob
from fanfold.contracts.ids import id_millis, new_id
from fanfold.kit.fragments import Fragments
from fanfold.kit.media import MediaUrls
from fanfold.kit.warm import WarmPosts

pack = msgspec.msgpack.encode
COUNTED = 1_000


class Page:
    """A page of one post, as Valkey would answer it."""

    def __init__(self, limit: int = 100) -> None:
        self.warm = WarmPosts(Fragments(MediaUrls("/media/")), limit)
        self.post_id, self.author_id = new_id().bytes, new_id().bytes
        self.post: bytes | None = self.caption("before")
        self.user: bytes | None = pack(UserBlob(self.author_id, "ann", "Ann", ""))
        self.counts: bytes | None = pack(CountsBlob(5, 4, COUNTED))
        self.scores: list[Any] = [b"0", None]

    def caption(self, text: str) -> bytes:
        return pack(PostBlob(self.post_id, self.author_id, text, 1_700_000_000_000, []))

    def read(self, oldest_ms: float = 0) -> dict[str, Any] | None:
        blobs = ([self.post], {self.author_id: self.user}, [self.counts])
        found = self.warm.page([self.post_id + self.author_id], [self.post_id], blobs, self.scores, oldest_ms)
        return None if found is None else json.loads(found[0])

    def must_read(self) -> dict[str, Any]:
        found = self.read()
        assert found is not None
        return found


def test_another_blob_makes_another_text() -> None:
    page = Page()
    first = page.must_read()
    assert (first["caption"], first["author"]["username"], first["like_count"]) == ("before", "ann", 5)
    page.post = page.caption("after")
    assert page.must_read()["caption"] == "after"
    page.user = pack(UserBlob(page.author_id, "bea", "Bea", ""))
    assert page.must_read()["author"]["username"] == "bea"
    page.counts = pack(CountsBlob(6, 4, COUNTED))
    assert page.must_read()["like_count"] == 6


def test_likes_are_the_readers_own() -> None:
    page = Page()
    assert page.must_read()["liked_by_me"] is False
    page.scores = [b"0", b"17"]
    assert page.must_read()["liked_by_me"] is True
    page.counts = pack(CountsBlob(9, 4, COUNTED))
    assert (page.must_read()["like_count"], page.must_read()["liked_by_me"]) == (9, True)
    page.scores = [b"0", None]
    assert page.must_read()["liked_by_me"] is False


@pytest.mark.parametrize("part", ["post", "user", "counts"])
@pytest.mark.parametrize("value", [None, keys.TOMBSTONE, b"\xc1 no blob"])
def test_a_page_that_lacks_something_is_for_others(part: str, value: bytes | None) -> None:
    page = Page()
    page.must_read()
    setattr(page, part, value)
    assert page.read() is None


def test_counts_that_are_too_old_are_for_others() -> None:
    page = Page()
    assert page.read(oldest_ms=COUNTED) is not None
    assert page.read(oldest_ms=COUNTED + 1) is None


def test_a_like_that_cannot_be_known_is_for_others() -> None:
    page = Page()
    millis = id_millis(UUID(bytes=page.post_id))
    page.scores = [None, None]
    assert page.read() is None
    page.scores = [str(millis).encode(), None]
    assert page.read() is None
    page.scores = [str(millis - 1).encode(), None]
    assert page.must_read()["liked_by_me"] is False
    page.scores = [str(millis).encode(), str(millis).encode()]
    assert page.must_read()["liked_by_me"] is True


def test_the_oldest_is_forgotten() -> None:
    page = Page(limit=1)
    page.must_read()
    page.post_id, page.author_id = new_id().bytes, new_id().bytes
    page.post, page.user = page.caption("other"), pack(UserBlob(page.author_id, "cid", "Cid", ""))
    assert page.must_read()["caption"] == "other"
