"""Messages on a user's channel (`keys.notifications`) that are in no list: JSON without an ``id``.

Notifications themselves are published there too, as ``GET /v1/notifications`` shows them.
"""

from __future__ import annotations

from typing import Literal
from uuid import UUID

import msgspec


class Poll(msgspec.Struct, frozen=True):
    """Not all notifications are pushed now: ask for the list every `interval` seconds, as long as it says so."""

    interval: int
    kind: Literal["poll"] = "poll"


class NewPost(msgspec.Struct, frozen=True):
    """Somebody you follow has posted: it is in the feed."""

    post_id: UUID
    author_id: UUID
    kind: Literal["post"] = "post"


def poll(interval: int) -> bytes:
    """``{"interval": seconds, "kind": "poll"}``."""
    return msgspec.json.encode(Poll(interval))


def new_post(post_id: UUID, author_id: UUID) -> bytes:
    """``{"post_id": …, "author_id": …, "kind": "post"}``."""
    return msgspec.json.encode(NewPost(post_id, author_id))
