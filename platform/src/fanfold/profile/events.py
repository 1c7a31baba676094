"""Events that the profile service hears."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fanfold.contracts.events import AnyEvent, ImageReady

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from uuid import UUID


class ImageEvents:
    """Completes profile pictures whose variants were still being made when they were chosen.

    Args:
        complete: Called with owner and image.
    """

    def __init__(self, complete: Callable[[UUID, UUID], Awaitable[object]]) -> None:
        self._complete = complete

    async def handle(self, event: AnyEvent) -> None:
        """Idempotent: the picture is what the image service says it is."""
        if isinstance(event, ImageReady):
            await self._complete(event.owner_id, event.image_id)
