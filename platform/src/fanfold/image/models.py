"""Tables of the image room: references and facts about pictures; their bytes live in the object store only."""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import CheckConstraint, Column, DateTime, ForeignKey, Index, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel

from fanfold.contracts.blobs import VariantsBlob
from fanfold.kit.outbox import outbox_table

SCHEMA: Final = "image"
PENDING: Final = "pending"
READY: Final = "ready"
FAILED: Final = "failed"

# Part of every media path: a change of what variants look like changes it, and with it every URL.
_RECIPE: Final = b"fanfold-media/1"

outbox = outbox_table(SCHEMA)


class Image(SQLModel, table=True):
    """One picture of one owner. The same bytes sent twice by an owner are one row."""

    __tablename__ = "image"
    __table_args__ = (
        UniqueConstraint("owner_id", "sha256", name="image_owner_content_key"),
        UniqueConstraint("media", name="image_media_key"),
        CheckConstraint("status IN ('pending', 'ready', 'failed')", name="image_status_check"),
        Index("image_unused_idx", "unused_since", postgresql_where=text("unused_since IS NOT NULL")),
        {"schema": SCHEMA},
    )

    id: UUID = Field(primary_key=True)
    owner_id: UUID
    sha256: str
    """Of the original's bytes, hex."""
    media: str
    """First part of its variants' paths: `media_digest`."""
    status: str = PENDING
    failure: str = ""
    """Why it failed, for its owner."""
    attempts: int = 0
    """Times that making variants broke the process doing it."""
    format: str
    original_size: int
    width: int
    height: int
    blurhash: str
    variants: list[tuple[int, int, str]] = Field(default=[], sa_column=Column(JSONB, nullable=False))
    """Width, height and format of each; the path follows from them."""
    created_at: datetime = Field(sa_column=Column(DateTime(timezone=True), nullable=False))
    unused_since: datetime | None = Field(default=None, sa_column=Column(DateTime(timezone=True), nullable=True))
    """Since when nothing uses it; null while something does."""

    @property
    def original_key(self) -> str:
        """Key of the original in the object store."""
        return original_key(self.sha256, self.id)

    @property
    def media_prefix(self) -> str:
        """Prefix of its variants' keys in the object store."""
        return media_key(self.media, "")


class ImageUse(SQLModel, table=True):
    """Something that shows a picture: a post, or its owner's profile."""

    __tablename__ = "image_use"
    __table_args__ = (Index("image_use_user_idx", "used_by"), {"schema": SCHEMA})

    image_id: UUID = Field(
        sa_column=Column(ForeignKey(f"{SCHEMA}.image.id", ondelete="CASCADE"), primary_key=True, nullable=False)
    )
    used_by: UUID = Field(primary_key=True)


class Upload(SQLModel, table=True):
    """An object that is about to be stored: written before it, so that no crash leaves one that nobody knows of."""

    __tablename__ = "upload"
    __table_args__ = (Index("upload_expires_idx", "expires_at"), {"schema": SCHEMA})

    id: UUID = Field(primary_key=True)
    owner_id: UUID
    object_key: str
    expires_at: datetime = Field(sa_column=Column(DateTime(timezone=True), nullable=False))
    image_id: UUID | None = None
    """The picture that a completed presigned upload became."""


def original_key(sha256: str, image_id: UUID) -> str:
    """Object key of an original."""
    return f"originals/{sha256}/{image_id}"


def media_key(media: str, name: str) -> str:
    """Object key of a variant; also its path under the media base URL, after ``media/``."""
    return f"media/{media}/{name}"


def variants_of(image: Image) -> VariantsBlob | None:
    """What there is of a picture; None until it is ready. `render` makes every width in every format, so named."""
    if not image.variants:
        return None
    widths = list(dict.fromkeys(width for width, _, _ in image.variants))
    formats = list(dict.fromkeys(kind for _, _, kind in image.variants))
    return VariantsBlob(f"{image.media}/{{width}}.{{format}}", widths, formats)


def media_digest(sha256: str, image_id: UUID) -> str:
    """Content hash in variants' paths: of the original's bytes, the picture's id and how variants are made.

    The id keeps a path from being guessed by whoever has the same photo, and from ever being used again.
    """
    return hashlib.sha256(_RECIPE + image_id.bytes + sha256.encode("ascii")).hexdigest()
