"""Settings of the feed service and of its fan-out worker."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fanfold.contracts.internal import FOLLOWERS_PAGE
from fanfold.kit.settings import Settings


class FeedSettings(Settings):
    """What both sides of a feed, its reader and its writer, must agree on."""

    own_posts: bool = True
    """Whether a feed shows its user's own posts, as Instagram's home feed does."""
    celebrity_mode: Literal["pull", "batched"] = "pull"
    """Posts of celebrities: folded in on read, or pushed through the rate-limited lane like everybody's."""
    feed_ttl_seconds: int = Field(default=86_400, ge=60)
    """From a rebuild to the next: makes feeds evictable under ``volatile-lru``, and bounds how long drift can last."""
    feed_poll_seconds: int = Field(default=10, ge=1)
    """How often clients are told to look for posts of celebrities, which no socket tells of."""
    rebuilds: int = Field(default=32, ge=1, le=1_000)
    """Rebuilds at once in this process: what the database sees after a loss of the cache, for each replica."""


class FanoutSettings(FeedSettings):
    """What only the fan-out worker reads."""

    followers_page: int = Field(default=FOLLOWERS_PAGE, ge=1, le=FOLLOWERS_PAGE)
    """Followers a chunk: one message, one bounded piece of work."""
    small_lane_followers: int = Field(default=FOLLOWERS_PAGE, ge=1)
    """Authors with more followers use the large lane: its backlog never delays an author below."""
    announced_followers: int = Field(default=1_000, ge=0)
    """Posts of authors with more followers are not announced on their followers' sockets: their feeds are polled."""
    large_lane_rate: int = Field(default=200_000, ge=1)
    """Most deliveries a second on the large lane, for each worker: leaves the cache room for reads."""
