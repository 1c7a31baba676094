"""What rooms hold about a user, for the archive that the user may have: pages of rows, and photos in pieces."""

from __future__ import annotations

from typing import Final

import msgspec

from fanfold.contracts.internal import Endpoint

ROWS: Final = 2_000
"""Rows a page."""
PIECE: Final = 1 << 20
"""Bytes of a photo a call."""


class RowsQuery(msgspec.Struct, frozen=True):
    """Rows about `user_id` of one `part`, above `after` (empty: from the first)."""

    user_id: bytes
    part: str
    after: bytes = b""


class Rows(msgspec.Struct, frozen=True):
    """JSON objects, oldest first. `after`: where the next page begins; empty: there is none."""

    rows: list[bytes]
    after: bytes = b""


class PieceQuery(msgspec.Struct, frozen=True):
    """At most `PIECE` bytes of the original of a photo of `user_id`, from `offset` on."""

    user_id: bytes
    image_id: bytes
    offset: int = 0


class Piece(msgspec.Struct, frozen=True):
    """Some bytes of a photo of `size` bytes in all. `name`: id and format. A deleted photo has no size."""

    name: str
    size: int
    data: bytes


PARTS: Final[dict[str, tuple[str, ...]]] = {
    "profile": ("user", "sessions", "reports-of-users"),
    "follow": ("following", "followers", "follow-requests", "blocks"),
    "post": ("posts", "reports-of-posts"),
    "activity": ("likes", "comments"),
    "notification": ("notifications", "muted"),
    "image": ("images",),
}
"""Parts of the archive, one file each, by the room that has them."""

ROWS_OF: Final = {room: Endpoint(room, "/internal/export", RowsQuery, Rows) for room in PARTS}
PHOTO: Final = Endpoint("image", "/internal/export/photo", PieceQuery, Piece)
