"""Settings of the notification service and worker."""

from __future__ import annotations

from typing import Final

from pydantic import Field

from fanfold.kit.settings import Settings

MAX_WAIT_SECONDS: Final = 25
"""Longest long poll: proxies and mobile networks commonly cut connections that are idle for 30 s."""


class NotificationSettings(Settings):
    """``FANFOLD_*`` variables beyond the common ones."""

    poll_seconds: int = Field(default=60, ge=1)
    """How often a client without a socket should ask."""
    crowded_poll_seconds: int = Field(default=10, ge=1)
    """The same while a user gets more notifications than are pushed, as celebrities do."""
    pushes_per_window: int = Field(default=20, ge=1)
    """Most pushes to one user in `window_seconds`; the rest is polled."""
    window_seconds: int = Field(default=10, ge=1)
    notification_days: int = Field(default=90, ge=1)
    """Older ones go when their user is told something new: lists end, and what grows without use does not grow."""
