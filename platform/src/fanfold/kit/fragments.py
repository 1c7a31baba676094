"""Posts as JSON in pieces, each made once and remembered: a page is then joined from them, not encoded.

What differs between two answers that show a post is its author's fragment, its counts and one word for the reader's
like. Pieces are remembered beside the blob they were made of: another blob, other pieces, so nothing is ever stale.
Addresses of photos that expire (`fanfold.kit.media`) are put in when a post is joined, for the period under way.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Generic, TypeVar

import msgspec

from fanfold.contracts.blobs import CountsBlob, PostBlob, UserBlob
from fanfold.kit.views import author_view, format_id, image_view

if TYPE_CHECKING:
    from collections.abc import Callable

    from fanfold.kit.media import MediaUrls

Made = TypeVar("Made")

LIMIT: Final = 10_000
"""Posts remembered, and as many authors and counts: some 3 kB each post."""
_encode = msgspec.json.Encoder().encode
_posts = msgspec.msgpack.Decoder(PostBlob)
_users = msgspec.msgpack.Decoder(UserBlob)
_counts = msgspec.msgpack.Decoder(CountsBlob)


class PostFragment:
    """The pieces of `PostView` that are the same for every reader."""

    __slots__ = ("_blob", "_closed", "_closed_until", "_head", "_media", "_middle", "_tail")

    def __init__(self, blob: bytes, media: MediaUrls) -> None:
        post = _posts.decode(blob)
        self._blob = blob
        self._media = media
        self._head = b'{"id":"%b","author":' % format_id(post.id).encode()
        self._middle = _middle(post, media, closed=False)
        self._tail = b',"created_at":%b}' % _encode(datetime.fromtimestamp(post.created_ms / 1000, UTC))
        self._closed = b""
        self._closed_until = 0.0

    def json(self, author: AuthorFragment, counts: bytes, *, liked: bool) -> bytes:
        """The whole post; ``author`` and ``counts`` are fragments too."""
        middle = self._signed() if author.closed else self._middle
        return b"".join((self._head, author.json, middle, counts, _LIKED if liked else _NOT_LIKED, self._tail))

    def _signed(self) -> bytes:
        """The middle with addresses that expire, made once a period."""
        now = time.time()
        if now >= self._closed_until:
            self._closed = _middle(_posts.decode(self._blob), self._media, closed=True)
            self._closed_until = self._media.turns_at(now)
        return self._closed


def _middle(post: PostBlob, media: MediaUrls, *, closed: bool) -> bytes:
    images = [image_view(image, media, closed=closed) for image in post.images]
    return b',"caption":%b,"images":%b,' % (_encode(post.caption), _encode(images))


class AuthorFragment:
    """A user beside a post. ``closed``: addresses of their photos expire."""

    __slots__ = ("closed", "json")

    def __init__(self, blob: bytes, media: MediaUrls) -> None:
        user = _users.decode(blob)
        self.json = _encode(author_view(user, media))
        self.closed = media.closed(private=user.private)


class CountsFragment:
    """Counts of a post, and when they were counted (Unix milliseconds)."""

    __slots__ = ("counted_ms", "json")

    def __init__(self, blob: CountsBlob) -> None:
        self.json = counts_json(blob.likes, blob.comments)
        self.counted_ms = blob.counted_ms


def counts_json(likes: int, comments: int) -> bytes:
    """A fragment of counts."""
    return b'"like_count":%d,"comment_count":%d' % (likes, comments)


_LIKED: Final = b',"liked_by_me":true'
_NOT_LIKED: Final = b',"liked_by_me":false'


class Remembered(Generic[Made]):
    """What was made of blobs, by the id of their thing. The oldest goes first when there are too many.

    Args:
        make: Of a blob; raises msgspec.DecodeError.
        limit: How many are kept.
    """

    def __init__(self, make: Callable[[bytes], Made], limit: int = LIMIT) -> None:
        self._make = make
        self._limit = limit
        self._known: dict[bytes, tuple[bytes, Made]] = {}

    def of(self, identifier: bytes, blob: bytes) -> Made:
        """What ``blob`` makes.

        Raises:
            msgspec.DecodeError: It is no blob of this kind, or of another version.
        """
        known = self._known.get(identifier)
        if known is not None and known[0] == blob:
            return known[1]
        made = self._make(blob)
        if len(self._known) >= self._limit:
            del self._known[next(iter(self._known))]
        self._known[identifier] = (blob, made)
        return made


class Fragments:
    """What hydration remembers.

    Args:
        media: Addresses of photos.
    """

    def __init__(self, media: MediaUrls, limit: int = LIMIT) -> None:
        self.media = media
        self.posts = Remembered(lambda blob: PostFragment(blob, media), limit)
        self.authors = Remembered(lambda blob: AuthorFragment(blob, media), limit)
        self.counts = Remembered(lambda blob: CountsFragment(_counts.decode(blob)), limit)
