"""HTTP shapes of the activity service."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final
from uuid import UUID

from pydantic import AfterValidator, Field

from fanfold.contracts.api import Author, Model
from fanfold.kit.text import free_text

MAX_TEXT: Final = 2_000


def _not_blank(value: str) -> str:
    if not value:
        raise ValueError("write something")
    return value


class NewComment(Model):
    """A comment to be."""

    text: Annotated[str, Field(max_length=MAX_TEXT), AfterValidator(free_text), AfterValidator(_not_blank)]


class Comment(Model):
    """A comment as its reader sees it."""

    id: UUID
    post_id: UUID
    author: Author
    text: str
    like_count: int
    liked_by_me: bool
    created_at: datetime
