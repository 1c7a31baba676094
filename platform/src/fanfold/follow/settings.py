"""Settings of the follow service."""

from __future__ import annotations

from pydantic import Field

from fanfold.kit.settings import Settings


class FollowSettings(Settings):
    """``FANFOLD_*`` variables beyond the common ones."""

    following_limit: int = Field(default=7_500, ge=1)
    """Most people one user follows. Bounds the rebuild of a feed, which merges the posts of all of them."""
    blocks_limit: int = Field(default=1_000, ge=1, le=10_000)
    """Most people one user blocks. Bounds what others read of it: 16 bytes each."""
    follower_total_seconds: float = Field(default=5.0, ge=0, le=60)
    """How long a follower count is believed: counting a million index entries takes a tenth of a second."""
