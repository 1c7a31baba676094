"""Requests to follow private accounts: granted, denied, and granted all at once when the account becomes public.

The last is what people know from Instagram. It reaches those who asked before the change; who asks after it follows
at once, or asks an account that is private again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from uuid import UUID

from fanfold.contracts.events import FollowApproved
from fanfold.follow import repository
from fanfold.follow.models import outbox
from fanfold.kit.errors import Conflict, NotFound
from fanfold.kit.outbox import Outbox

if TYPE_CHECKING:
    from fanfold.follow.celebrities import Celebrities
    from fanfold.follow.service import Follows
    from fanfold.kit.db import Database

BATCH: Final = 500
"""Requests read at once when an account becomes public."""


class Requests:
    """What the owner of a private account does with who asks.

    Args:
        database: Where requests are.
        follows: Makes follows of them.
        celebrities: Marks to be kept.
    """

    def __init__(self, database: Database, follows: Follows, celebrities: Celebrities) -> None:
        self._database = database
        self._follows = follows
        self._celebrities = celebrities
        self._outbox = Outbox(outbox)

    async def approve(self, user_id: UUID, follower_id: UUID) -> None:
        """Let somebody follow who asked to. Safe to repeat.

        Raises:
            NotFound: They do not ask, any more or at all.
            Conflict: They follow as many as one may.
        """
        if not await self._grant(user_id, follower_id):
            async with self._database.reading() as session:
                if await repository.get(session, follower_id, user_id) is None:
                    raise NotFound("This user does not ask to follow you.", kind="no-follow-request")
        await self._follows.tell_feed(follower_id, user_id)

    async def deny(self, user_id: UUID, follower_id: UUID) -> None:
        """Forget that somebody asked; they may ask again, and are not told. Without a request, nothing changes."""
        async with self._database.transaction() as session:
            await repository.lock_pair(session, follower_id, user_id)
            await repository.remove_request(session, follower_id, user_id)

    async def approve_all(self, user_id: UUID, before_ms: int) -> None:
        """Grant what was asked before a moment (Unix time). Safe to repeat."""
        before: UUID | None = UUID(int=before_ms << 80)
        while before is not None:
            async with self._database.reading() as session:
                found = await repository.newest_requests(session, user_id, before, BATCH)
            for _, follower_id in found:
                try:
                    await self._grant(user_id, follower_id)
                except Conflict:  # follows as many as one may: stays asking
                    continue
            before = found[-1][0] if len(found) == BATCH else None

    async def _grant(self, user_id: UUID, follower_id: UUID) -> bool:
        """Make a follow of a request; False if there is none."""
        async with self._database.transaction() as session:
            await repository.lock_pair(session, follower_id, user_id)
            if not await repository.remove_request(session, follower_id, user_id):
                return False
            await self._follows.add(session, follower_id, user_id)
            await self._outbox.add(session, FollowApproved(follower_id=follower_id, followee_id=user_id))
        await self._celebrities.settle(user_id)
        return True
