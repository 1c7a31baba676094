"""HTTP shapes of the follow service."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from fanfold.contracts.api import Model


class Blocked(Model):
    """The caller blocks `user_id` since `created_at`."""

    user_id: UUID
    created_at: datetime


class Following(Model):
    """The caller follows `user_id` since `created_at`."""

    user_id: UUID
    created_at: datetime
