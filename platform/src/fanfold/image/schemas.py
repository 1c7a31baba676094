"""HTTP shapes of the image room."""

from __future__ import annotations

from datetime import datetime
from typing import Literal
from uuid import UUID

from fanfold.contracts.api import Model, Variants


class ImageView(Model):
    """A picture. Width and height in pixels, upright. ``variants`` is null until ``status`` is ready."""

    id: UUID
    status: Literal["pending", "ready", "failed"]
    width: int
    height: int
    blurhash: str
    variants: Variants | None
    failure: str | None = None
    created_at: datetime


class UploadTicket(Model):
    """A direct way to the object store: POST ``fields`` and then ``file`` as multipart/form-data to ``url``.

    Then complete the upload. ``expires_at``: until when the form may be used; ``max_bytes``: largest file taken.
    """

    id: UUID
    url: str
    fields: dict[str, str]
    max_bytes: int
    expires_at: datetime
