"""Settings of the profile service."""

from __future__ import annotations

from pydantic import Field

from fanfold.kit.settings import Settings


class ProfileSettings(Settings):
    """``FANFOLD_*`` variables beyond the common ones."""

    access_token_seconds: int = Field(default=900, ge=30, le=3600)
    """Life of an access token; gateways verify it without asking anybody."""
    session_days: int = Field(default=30, ge=1, le=400)
    """A session ends this long after its last refresh."""
    sessions_per_user: int = Field(default=50, ge=1, le=1000)
    """Beyond it the longest unused session ends when a new one begins."""
    password_threads: int = Field(default=2, ge=1, le=64)
    """Passwords hashed at once; each takes one core and 19 MiB for tens of milliseconds."""
    password_queue: int = Field(default=100, ge=0, le=10_000)
    """Passwords that may wait for a thread; more are answered with 503."""
    login_window_seconds: int = Field(default=300, ge=1, le=86_400)
    login_attempts_per_pair: int = Field(default=10, ge=1)
    """Failed logins of one username from one address a window."""
    login_attempts_per_user: int = Field(default=100, ge=1)
    """Failed logins of one username a window, from anywhere."""
    login_attempts_per_address: int = Field(default=300, ge=1)
    """Failed logins from one address a window, whatever the username: many people may share an address."""
