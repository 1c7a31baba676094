"""HTTP shapes of the profile service."""

from __future__ import annotations

import unicodedata
from datetime import datetime
from typing import Annotated, Final
from uuid import UUID

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, StrictBool

from fanfold.contracts.api import Model
from fanfold.contracts.names import USERNAME

RESERVED: Final = frozenset(
    (
        "about",
        "admin",
        "administrator",
        "api",
        "everyone",
        "fanfold",
        "help",
        "moderator",
        "root",
        "security",
        "support",
    )
)
"""Names that would be taken for the platform's own voice."""


def _username(value: str) -> str:
    name = value.lower()
    if not USERNAME.fullmatch(name):
        raise ValueError("use 3 to 30 letters (a-z), digits, underscores, and single dots between them")
    if name in RESERVED:
        raise ValueError("this name is reserved; take another")
    return name


def _line(value: str) -> str:
    """Trimmed, in NFC, without control or invisible formatting characters (which fake other names)."""
    text = unicodedata.normalize("NFC", value).strip()
    if any(unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co") for character in text.replace("\u200d", "")):
        raise ValueError("leave out control and invisible characters")
    return text


def _text(value: str) -> str:
    return "\n".join(_line(line) for line in value.strip().splitlines())


def _shorten(value: object) -> object:
    """Refuse absurd lengths before any work is done on them."""
    if isinstance(value, str) and len(value) > _ABSURD:
        raise ValueError(f"at most {_ABSURD} characters")
    return value


_ABSURD: Final = 1_000
NewUsername = Annotated[
    str,
    BeforeValidator(_shorten),
    AfterValidator(_username),
    Field(description="3 to 30 of a-z, 0-9, _ and single dots"),
]
DisplayName = Annotated[str, BeforeValidator(_shorten), AfterValidator(_line), Field(min_length=1, max_length=50)]
Bio = Annotated[str, BeforeValidator(_shorten), AfterValidator(_text), Field(max_length=300)]
Password = Annotated[SecretStr, Field(max_length=_ABSURD)]
GivenName = Annotated[str, Field(min_length=1, max_length=100)]


class User(Model):
    """A user. `bio` may be empty, `picture_url` null. `private`: only followers see what they post."""

    id: UUID
    username: str
    display_name: str
    bio: str
    picture_url: str | None
    private: bool
    created_at: datetime


class NewAccount(Model):
    """Registration. `display_name` is the username where left out."""

    username: NewUsername
    password: Annotated[Password, Field(description="8 to 128 characters, none of the most used passwords")]
    display_name: DisplayName | None = None


class ProfileChange(Model):
    """What is left out, or null, stays as it is.

    `private`: only those you let follow you see your posts. Who follows you already stays. When an account becomes
    public, all requests to follow it are granted.
    """

    display_name: DisplayName | None = None
    bio: Bio | None = None
    private: StrictBool | None = None


class PictureChoice(Model):
    """One of the caller's own images."""

    image_id: UUID


class Farewell(Model):
    """Deleting an account takes its password again."""

    password: Password


class PasswordChange(Model):
    """A new password takes the current one."""

    current_password: Password
    new_password: Annotated[Password, Field(description="8 to 128 characters, none of the most used passwords")]


class Login(Model):
    """Username and password."""

    username: GivenName
    password: Password


class Refresh(Model):
    """The refresh token of the answer before; each is good once."""

    refresh_token: Annotated[SecretStr, Field(min_length=1, max_length=300)]


class Tokens(Model):
    """A session's tokens. `expires_in`: seconds until the access token ends."""

    access_token: str
    token_type: str = "Bearer"  # noqa: S105 - the scheme's name, RFC 6750
    expires_in: int
    refresh_token: str
    user_id: UUID


class ActiveSession(Model):
    """A login that has not ended. `current`: the one that asks."""

    id: UUID
    created_at: datetime
    refreshed_at: datetime
    expires_at: datetime
    current: bool
