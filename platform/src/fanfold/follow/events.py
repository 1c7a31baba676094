"""Events that the follow service hears."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fanfold.contracts.events import AccountDeleted, AnyEvent, PrivacyChanged

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from uuid import UUID


class AccountEvents:
    """Removes what is held of deleted accounts, and grants what was asked of those that become public.

    Args:
        purge: Called with the account; idempotent.
        approve_all: Called with the account, and the moment (Unix milliseconds) before which it was asked.
    """

    def __init__(
        self, purge: Callable[[UUID], Awaitable[None]], approve_all: Callable[[UUID, int], Awaitable[None]]
    ) -> None:
        self._purge = purge
        self._approve_all = approve_all

    async def handle(self, event: AnyEvent) -> None:
        """One event of the topic accounts."""
        match event:
            case AccountDeleted():
                await self._purge(event.user_id)
            case PrivacyChanged(private=False):
                await self._approve_all(event.user_id, event.changed_ms)
