"""Events that the follow service hears."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fanfold.contracts.events import AccountDeleted, AnyEvent

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from uuid import UUID


class AccountEvents:
    """Removes what is held of deleted accounts.

    Args:
        purge: Called with the account; idempotent.
    """

    def __init__(self, purge: Callable[[UUID], Awaitable[None]]) -> None:
        self._purge = purge

    async def handle(self, event: AnyEvent) -> None:
        """One event of the topic accounts."""
        if isinstance(event, AccountDeleted):
            await self._purge(event.user_id)
