"""HTTP shapes of the notification room."""

from __future__ import annotations

from datetime import datetime
from typing import Literal
from uuid import UUID

from pydantic import StrictBool

from fanfold.contracts.api import Author, Model

Kind = Literal["like", "comment", "follow", "follow_request", "follow_approved", "mention"]


class Notification(Model):
    """Somebody did something that concerns you. The same JSON arrives on the WebSocket.

    `post_id` is null for a follow, a request to follow and its approval; `comment_id` names the new comment, or the
    comment that was liked.
    """

    id: UUID
    kind: Kind
    actor: Author
    post_id: UUID | None
    comment_id: UUID | None
    created_at: datetime
    read: bool


class NotificationPage(Model):
    """One page. `unread` counts all your unread notifications, 100 at most."""

    items: list[Notification]
    next_cursor: str | None = None
    unread: int


class ReadUpTo(Model):
    """Everything up to this notification was seen."""

    up_to: UUID


class Preferences(Model):
    """Which kinds you want to be told of."""

    like: bool = True
    comment: bool = True
    follow: bool = True
    follow_request: bool = True
    follow_approved: bool = True
    mention: bool = True


class PreferencesChange(Model):
    """What is left out, or null, stays as it is."""

    like: StrictBool | None = None
    comment: StrictBool | None = None
    follow: StrictBool | None = None
    follow_request: StrictBool | None = None
    follow_approved: StrictBool | None = None
    mention: StrictBool | None = None
