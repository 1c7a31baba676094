"""Tables of the activity room: one row per like and per comment, the comments' texts beside, and no counters."""

from __future__ import annotations

from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import CheckConstraint, Column, DateTime, Index, Text, desc, text
from sqlmodel import Field, SQLModel

from fanfold.kit.outbox import outbox_table

SCHEMA: Final = "activity"
LIKE: Final = "like"
COMMENT: Final = "comment"
POST: Final = "post"

outbox = outbox_table(SCHEMA)


def _moment() -> Column[datetime]:
    return Column(DateTime(timezone=True), nullable=False)


class Activity(SQLModel, table=True):
    """A user liked or commented on a post or comment. A comment's activity has the id of the comment."""

    __tablename__ = "activity"
    __table_args__ = (
        CheckConstraint("kind IN ('like', 'comment')", name="activity_kind_check"),
        CheckConstraint("parent_type IN ('post', 'comment')", name="activity_parent_type_check"),
        # Counts, and who did it, newest first.
        Index("activity_parent_idx", "parent_type", "parent_id", "kind", desc("id")),
        # One like per user and parent; and what a user liked, newest parents first.
        Index(
            "activity_like_key",
            "user_id",
            "parent_type",
            desc("parent_id"),
            unique=True,
            postgresql_where=text("kind = 'like'"),
        ),
        {"schema": SCHEMA},
    )

    id: UUID = Field(primary_key=True)
    kind: str = Field(sa_column=Column(Text, nullable=False))
    """`LIKE` or `COMMENT`."""
    parent_type: str = Field(sa_column=Column(Text, nullable=False))
    """`POST` or `COMMENT`."""
    parent_id: UUID
    user_id: UUID
    created_at: datetime = Field(sa_column=_moment())


class Comment(SQLModel, table=True):
    """What a user wrote under a post. Flat: comments have no replies."""

    __tablename__ = "comment"
    __table_args__ = (
        Index("comment_post_idx", "post_id", desc("id")),
        Index("comment_user_idx", "user_id", desc("id")),
        {"schema": SCHEMA},
    )

    id: UUID = Field(primary_key=True)
    post_id: UUID
    user_id: UUID
    text: str = Field(sa_column=Column(Text, nullable=False))
    created_at: datetime = Field(sa_column=_moment())
