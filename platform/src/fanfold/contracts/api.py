"""Public HTTP shapes that more than one service answers with (pydantic: they are also the OpenAPI schemas)."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Generic, Literal, TypeVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

Item = TypeVar("Item")


class Model(BaseModel):
    """Base: immutable, unknown fields refused, so that a client's typing error is told."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Page(Model, Generic[Item]):
    """One page of a list. `next_cursor` is null at the end; hand it back unchanged for the next page."""

    items: list[Item]
    next_cursor: str | None = None


class Variants(Model):
    """The encoded sizes of a photo: each of `widths` in each of `formats`, in the photo's proportions.

    `url` is a URI template (RFC 6570, level 1) of the variables `width` and `format`. One template for a dozen URLs:
    a page of a feed is a third of the size.
    """

    url: str = Field(examples=["/v1/media/images/1f0c/{width}.{format}"])
    widths: list[int] = Field(description="Pixels, smallest first.")
    formats: list[str] = Field(description="File formats (`image/…`), smallest files first.", examples=[["avif"]])


class PostImage(Model):
    """A photo in a post. `variants` is null while they are being made."""

    id: UUID
    width: int
    height: int
    blurhash: str
    alt_text: str
    variants: Variants | None


class Author(Model):
    """A user as others see them."""

    id: UUID
    username: str
    display_name: str
    picture_url: str | None


class Post(Model):
    """A post as `viewer` sees it."""

    id: UUID
    author: Author
    caption: str
    images: list[PostImage]
    like_count: int
    comment_count: int
    liked_by_me: bool
    created_at: datetime


Text = Annotated[str, Field(max_length=1_000, pattern=r"^[^\x00]*$")]
"""What people write to the moderators, or those into the log. PostgreSQL has no NUL."""


class NewReport(Model):
    """Why something should not be here."""

    reason: Literal["spam", "nudity", "hate", "violence", "harassment", "copyright", "other"]
    note: Text = ""


class Report(Model):
    """An open report. `subject_id`: what is reported."""

    id: UUID
    subject_id: UUID
    reporter_id: UUID
    reason: str
    note: str
    created_at: datetime


class Decision(Model):
    """Why a moderator decides so; it stands in the log."""

    reason: Annotated[Text, Field(min_length=1)]


class LogEntry(Model):
    """What a moderator did: `hide`, `show`, `dismiss`. By an operator's command, without one: `grant`, `revoke`."""

    id: UUID
    moderator_id: UUID | None
    action: str
    subject_id: UUID
    reason: str
    created_at: datetime


class Problem(BaseModel):
    """RFC 9457 problem details. `type` is stable; `errors` lists fields for validation problems."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    detail: str
    instance: str | None = None
    request_id: str | None = None
