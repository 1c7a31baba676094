"""Tables of the post room: references to images only, and no counters."""

from __future__ import annotations

from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import Column, DateTime, ForeignKey, Index, Text, Uuid, desc
from sqlmodel import Field, SQLModel

from fanfold.kit.moderation import log_table, report_table
from fanfold.kit.outbox import outbox_table

SCHEMA: Final = "post"

outbox = outbox_table(SCHEMA)
report = report_table(SCHEMA, "post")
moderation_log = log_table(SCHEMA)


def _post_id() -> Column[UUID]:
    return Column(Uuid, ForeignKey(f"{SCHEMA}.post.id", ondelete="CASCADE"), primary_key=True)


class Post(SQLModel, table=True):
    """A post. `id` is a UUIDv7, so that the index on author and id is the author's timeline."""

    __tablename__ = "post"
    __table_args__ = (Index("post_author_idx", "author_id", desc("id")), {"schema": SCHEMA})

    id: UUID = Field(primary_key=True)
    author_id: UUID
    caption: str = Field(sa_column=Column(Text, nullable=False))
    created_at: datetime = Field(sa_column=Column(DateTime(timezone=True), nullable=False))
    edited_at: datetime | None = Field(default=None, sa_column=Column(DateTime(timezone=True)))
    version: int = 1
    """Grows with every change of what readers see, that of an image included."""
    hidden_at: datetime | None = Field(default=None, sa_column=Column(DateTime(timezone=True)))
    """Since then only its author sees it: moderators have hidden it."""


class PostImage(SQLModel, table=True):
    """A post shows an image, at `position` from 0."""

    __tablename__ = "post_image"
    __table_args__ = (Index("post_image_image_idx", "image_id"), {"schema": SCHEMA})

    post_id: UUID = Field(sa_column=_post_id())
    position: int = Field(primary_key=True)
    image_id: UUID
    alt_text: str = Field(sa_column=Column(Text, nullable=False))


class PostTag(SQLModel, table=True):
    """A post's caption has a tag."""

    __tablename__ = "post_tag"
    __table_args__ = (Index("post_tag_post_idx", "post_id"), {"schema": SCHEMA})

    tag: str = Field(sa_column=Column(Text, primary_key=True))
    post_id: UUID = Field(sa_column=_post_id())
