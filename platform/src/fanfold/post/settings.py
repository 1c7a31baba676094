"""Settings of the post service."""

from __future__ import annotations

from pydantic import Field

from fanfold.kit.settings import Settings


class PostSettings(Settings):
    """``FANFOLD_*`` variables beyond the common ones."""

    timeline_length: int = Field(default=100, ge=1, le=120)
    """Newest posts of an author kept in Valkey, at least the feed's length; more is read from SQL. Up to 128 entries a
    sorted set stays a listpack (Valkey's zset-max-listpack-entries)."""
    timeline_seconds: int = Field(default=24 * 3600, ge=60)
    """Time to live of a timeline since its last change."""
    post_blob_seconds: int = Field(default=7 * 24 * 3600, ge=60)
    """Time to live of a packed post."""
