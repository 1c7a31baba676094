"""Settings of the activity service."""

from __future__ import annotations

from pydantic import Field

from fanfold.kit.settings import Settings


class ActivitySettings(Settings):
    """``FANFOLD_*`` variables beyond the common ones."""

    counts_seconds: int = Field(default=600, ge=10)
    """Time to live of cached counts: fresh for `COUNTS_FRESH_MS` of it, then only better than none."""
    liked_length: int = Field(default=1_000, ge=1, le=10_000)
    """Newest liked posts of a user kept in Valkey; of older posts the activity service is asked."""
    liked_seconds: int = Field(default=3_600, ge=60)
    """Time to live of what a user likes, since the last change."""
