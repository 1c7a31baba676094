"""Packed values in Valkey: the data's owner writes them, readers decode them; a missing one is asked of the owner.

MessagePack arrays (field names are not stored). New fields go to the end, with a default: old readers skip them.
"""

from __future__ import annotations

from typing import Final

import msgspec

COUNTS_FRESH_MS: Final = 5_000
"""Counts older than this are asked for again."""


class VariantsBlob(msgspec.Struct, frozen=True, array_like=True):
    """The encoded sizes of a photo: each of `widths` (pixels, rising) in each of `formats` (smallest files first).

    `path` is a URI template of `width` and `format`, immutable and content-hashed, relative to the media base URL.
    """

    path: str
    widths: list[int]
    formats: list[str]

    def path_of(self, width: int, kind: str) -> str:
        """Path of one variant."""
        return self.path.replace("{width}", str(width)).replace("{format}", kind)


class ImageBlob(msgspec.Struct, frozen=True, array_like=True):
    """A photo as a post shows it. Sizes in pixels; `variants` is missing until the worker has made them."""

    id: bytes
    width: int
    height: int
    blurhash: str
    alt_text: str
    variants: VariantsBlob | None


class PostBlob(msgspec.Struct, frozen=True, array_like=True):
    """A post without what changes: counts, likes and the author's name have blobs of their own.

    `version` grows with every change, so that a late writer does not overwrite a newer blob.
    """

    id: bytes
    author_id: bytes
    caption: str
    created_ms: int
    images: list[ImageBlob]
    edited_ms: int = 0
    version: int = 0


class UserBlob(msgspec.Struct, frozen=True, array_like=True):
    """A user beside a post or comment. `picture_path` is relative to the media base URL, or empty.

    `private`: only followers see their posts.
    """

    id: bytes
    username: str
    display_name: str
    picture_path: str
    private: bool = False


class CountsBlob(msgspec.Struct, frozen=True, array_like=True):
    """Counts of one post, as `SELECT COUNT` said at `counted_ms` (Unix time), with this service's changes since.

    Kept longer than `COUNTS_FRESH_MS`: better old counts than none while the activity service does not answer.
    """

    likes: int
    comments: int
    counted_ms: int = 0
