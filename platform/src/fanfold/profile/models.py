"""Tables of the profile room. Passwords and sessions stand beside the user's own data; pictures are references."""

from __future__ import annotations

from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import Column, DateTime, ForeignKey, Index, LargeBinary, UniqueConstraint, Uuid, false, text
from sqlmodel import Field, SQLModel

from fanfold.kit.moderation import log_table, report_table
from fanfold.kit.outbox import outbox_table

SCHEMA: Final = "profile"

outbox = outbox_table(SCHEMA)
report = report_table(SCHEMA, "user")
moderation_log = log_table(SCHEMA)


def _moment(*, nullable: bool = False) -> Column[datetime]:
    return Column(DateTime(timezone=True), nullable=nullable)


def _owner(*, primary_key: bool = True) -> Column[UUID]:
    return Column(Uuid, ForeignKey(f"{SCHEMA}.user.id", ondelete="CASCADE"), primary_key=primary_key, nullable=False)


class User(SQLModel, table=True):
    """A user's profile."""

    __tablename__ = "user"
    __table_args__ = (UniqueConstraint("username", name="user_username_key"), {"schema": SCHEMA})

    id: UUID = Field(primary_key=True)
    username: str
    """Lower case."""
    display_name: str
    bio: str = ""
    picture_id: UUID | None = None
    """The image service's id."""
    picture_path: str = ""
    """Relative to the media base URL; empty while there is none, or while its variants are being made."""
    private: bool = Field(default=False, sa_column_kwargs={"server_default": false()})
    """Only followers see posts, and who follows and is followed."""
    created_at: datetime = Field(sa_column=_moment())
    role: str = Field(default="", sa_column_kwargs={"server_default": ""})
    """One of `fanfold.contracts.roles`, or none."""
    hidden_at: datetime | None = Field(default=None, sa_column=_moment(nullable=True))
    """Since then nobody else sees the account or anything of it: moderators have hidden it."""


class Credential(SQLModel, table=True):
    """How a user proves who they are."""

    __tablename__ = "credential"
    __table_args__ = {"schema": SCHEMA}

    user_id: UUID = Field(sa_column=_owner())
    password_hash: str
    """PHC string of argon2id."""


class Session(SQLModel, table=True):
    """One login and all tokens that came of it. Found by user and id: both are in every token."""

    __tablename__ = "session"
    __table_args__ = (
        # What gateways must refuse until the last access tokens have expired.
        Index("session_revoked_idx", "revoked_at", postgresql_where=text("revoked_at IS NOT NULL")),
        {"schema": SCHEMA},
    )

    user_id: UUID = Field(sa_column=_owner())
    id: UUID = Field(primary_key=True)
    family_hash: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    """SHA-256 of what all refresh tokens of this session share."""
    refresh_hash: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    """SHA-256 of the one refresh token that is good now."""
    created_at: datetime = Field(sa_column=_moment())
    refreshed_at: datetime = Field(sa_column=_moment())
    expires_at: datetime = Field(sa_column=_moment())
    revoked_at: datetime | None = Field(default=None, sa_column=_moment(nullable=True))
