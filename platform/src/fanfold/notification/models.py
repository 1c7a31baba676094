"""Tables of the notification room, all by user first: one user's reads and writes touch one partition."""

from __future__ import annotations

from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import Column, DateTime, Index, Text, UniqueConstraint
from sqlmodel import Field, SQLModel

SCHEMA: Final = "notification"


class Notification(SQLModel, table=True):
    """`actor_id` did something that concerns `user_id`. Ids of one user grow in the order of commits.

    `subject_id` is what is told at most once of one actor: the liked post or comment, the new comment, the post that
    mentions, the follower.
    """

    __tablename__ = "notification"
    __table_args__ = (
        UniqueConstraint("user_id", "kind", "actor_id", "subject_id", name="notification_once"),
        Index("notification_post_idx", "post_id"),
        Index("notification_actor_idx", "actor_id"),
        {"schema": SCHEMA},
    )

    user_id: UUID = Field(primary_key=True)
    id: UUID = Field(primary_key=True)
    kind: str = Field(sa_column=Column(Text, nullable=False))
    actor_id: UUID
    subject_id: UUID
    post_id: UUID | None = None
    comment_id: UUID | None = None
    created_at: datetime = Field(sa_column=Column(DateTime(timezone=True), nullable=False))


class ReadMarker(SQLModel, table=True):
    """`user_id` has seen all notifications up to `up_to`."""

    __tablename__ = "read_marker"
    __table_args__ = ({"schema": SCHEMA},)

    user_id: UUID = Field(primary_key=True)
    up_to: UUID


class Muted(SQLModel, table=True):
    """`user_id` wants no notifications of this kind: neither in the list nor on the socket."""

    __tablename__ = "muted"
    __table_args__ = ({"schema": SCHEMA},)

    user_id: UUID = Field(primary_key=True)
    kind: str = Field(sa_column=Column(Text, primary_key=True))
