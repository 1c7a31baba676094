"""Tables of the follow room."""

from __future__ import annotations

from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import Column, DateTime, Index, text
from sqlmodel import Field, SQLModel

from fanfold.kit.outbox import outbox_table

SCHEMA: Final = "follow"

outbox = outbox_table(SCHEMA)


class Follow(SQLModel, table=True):
    """`follower_id` follows `followee_id`: what is asked by who follows. No count of it is stored anywhere.

    The primary key gives one user's followees (few: bounded by a setting, so that sorting them by time is cheap). The
    two indexes serve the version before this, which runs beside while an upgrade rolls; `Follower` replaces them.
    """

    __tablename__ = "follow"
    __table_args__ = (
        Index("follow_followee_idx", "followee_id", "follower_id", unique=True),
        Index("follow_newest_idx", "followee_id", text("id DESC")),
        {"schema": SCHEMA},
    )

    follower_id: UUID = Field(primary_key=True)
    followee_id: UUID = Field(primary_key=True)
    id: UUID
    """UUIDv7: the order of lists, and their cursors' position."""
    created_at: datetime = Field(sa_column=Column(DateTime(timezone=True), nullable=False))


class Follower(SQLModel, table=True):
    """The same follows once more, by who is followed. Nobody writes here: triggers on `follow` do, with every follow.

    Split by user, each of the two tables answers its side's questions from one place. The primary key gives the
    followers in id order for fan-out, without touching the table, the index the newest followers.
    """

    __tablename__ = "follower"
    __table_args__ = (
        Index("follower_newest_idx", "followee_id", text("id DESC")),
        {"schema": SCHEMA},
    )

    followee_id: UUID = Field(primary_key=True)
    follower_id: UUID = Field(primary_key=True)
    id: UUID
    """As in `Follow`."""
    created_at: datetime = Field(sa_column=Column(DateTime(timezone=True), nullable=False))


class FollowRequest(SQLModel, table=True):
    """`follower_id` asks to follow the private account `followee_id`. Granted it becomes a `Follow`."""

    __tablename__ = "follow_request"
    __table_args__ = (
        Index("follow_request_newest_idx", "followee_id", text("id DESC")),
        {"schema": SCHEMA},
    )

    follower_id: UUID = Field(primary_key=True)
    followee_id: UUID = Field(primary_key=True)
    id: UUID
    """UUIDv7: the order of lists, and which requests are older than a change of privacy."""
    created_at: datetime = Field(sa_column=Column(DateTime(timezone=True), nullable=False))


class Block(SQLModel, table=True):
    """`blocker_id` wants nothing to do with `blocked_id`: what one of them does the other does not see."""

    __tablename__ = "block"
    __table_args__ = (
        Index("block_blocked_idx", "blocked_id"),
        {"schema": SCHEMA},
    )

    blocker_id: UUID = Field(primary_key=True)
    blocked_id: UUID = Field(primary_key=True)
    id: UUID
    """UUIDv7: the order of the list."""
    created_at: datetime = Field(sa_column=Column(DateTime(timezone=True), nullable=False))


class Celebrity(SQLModel, table=True):
    """A user whose posts are pulled, not pushed. Derived from counts of `Follow`: see `fanfold.follow.celebrities`.

    A few rows in all, so a sharded database keeps a copy beside every partition of `Follow`.
    """

    __tablename__ = "celebrity"
    __table_args__ = {"schema": SCHEMA}

    user_id: UUID = Field(primary_key=True)
    since: datetime = Field(sa_column=Column(DateTime(timezone=True), nullable=False))
