"""Events that the activity service hears."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fanfold.contracts.events import GROUPS, AccountDeleted, AnyEvent, PostDeleted

if TYPE_CHECKING:
    from fanfold.activity.service import ActivityService

GROUP: Final = "activity"
TOPICS: Final = tuple(topic for topic, groups in GROUPS.items() if GROUP in groups)


class ActivityEvents:
    """Deletes what belongs to deleted posts and accounts."""

    def __init__(self, service: ActivityService) -> None:
        self._service = service

    async def handle(self, event: AnyEvent) -> None:
        """Idempotent."""
        match event:
            case PostDeleted():
                await self._service.forget_post(event.post_id)
            case AccountDeleted():
                await self._service.forget_user(event.user_id)
