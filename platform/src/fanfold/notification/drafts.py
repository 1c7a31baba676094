"""From events to notifications: whom an event concerns, and what to tell them. No I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from fanfold.contracts.events import Commented, FollowApproved, Followed, FollowRequested, Liked, PostCreated

if TYPE_CHECKING:
    from collections.abc import Iterable
    from uuid import UUID

    from fanfold.contracts.events import AnyEvent
    from fanfold.notification.schemas import Kind

LIKED_COMMENT: Final = "comment"
"""`Liked.parent_type` of a comment."""


class Draft(NamedTuple):
    """A notification to be; equal drafts are told once, but for their post and comment."""

    user_id: UUID
    kind: Kind
    actor_id: UUID
    subject_id: UUID
    post_id: UUID | None = None
    comment_id: UUID | None = None


def draft(event: AnyEvent) -> Draft | None:
    """What one event tells one person; None when it tells nobody, or only the one who did it."""
    match event:
        case Liked():
            comment = event.parent_id if event.parent_type == LIKED_COMMENT else None
            found = Draft(event.owner_id, "like", event.user_id, event.parent_id, event.post_id, comment)
        case Commented():
            found = Draft(event.owner_id, "comment", event.user_id, event.comment_id, event.post_id, event.comment_id)
        case Followed():
            found = Draft(event.followee_id, "follow", event.follower_id, event.follower_id)
        case FollowRequested():
            found = Draft(event.followee_id, "follow_request", event.follower_id, event.follower_id)
        case FollowApproved():
            found = Draft(event.follower_id, "follow_approved", event.followee_id, event.followee_id)
        case _:
            return None
    return found if found.user_id != found.actor_id else None


def mentions(event: PostCreated, user_ids: Iterable[UUID]) -> list[Draft]:
    """What a post tells those it mentions."""
    return [
        Draft(user_id, "mention", event.author_id, event.post_id, event.post_id)
        for user_id in user_ids
        if user_id != event.author_id
    ]
