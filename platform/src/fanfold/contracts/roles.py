"""What some users may do beyond others. A role stands in the access token and in the signed identity behind it."""

from __future__ import annotations

from typing import Final

MODERATOR: Final = "moderator"
"""Reads reports, and hides and shows posts and accounts."""
ROLES: Final = (MODERATOR,)
