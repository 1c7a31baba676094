"""Events that the post service hears, its own among them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fanfold.contracts.events import GROUPS, AccountDeleted, AnyEvent, ImageReady, PostCreated, PostDeleted, PostShown

if TYPE_CHECKING:
    from fanfold.post.moderation import PostModeration
    from fanfold.post.service import PostService

GROUP: Final = "post"
TOPICS: Final = tuple(topic for topic, groups in GROUPS.items() if GROUP in groups)


class PostEvents:
    """Keeps blobs and timelines true. Its own events repeat what a crash after the commit may have left undone."""

    def __init__(self, service: PostService, moderation: PostModeration) -> None:
        self._service = service
        self._moderation = moderation

    async def handle(self, event: AnyEvent) -> None:
        """Idempotent."""
        match event:
            case PostCreated():
                await self._service.announce(event.post_id, event.author_id)
            case PostDeleted():
                await self._service.retract(event.post_id, event.author_id)
            case PostShown():
                await self._moderation.restore(event.post_id)
            case ImageReady():
                await self._service.image_changed(event.image_id)
            case AccountDeleted():
                await self._service.delete_all(event.user_id)
                await self._moderation.forget_reporter(event.user_id)
