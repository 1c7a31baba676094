"""Blocks: what one of the two does the other does not see.

A block ends the follows and requests between the two in its own transaction, and both feeds are told before it is
answered: it is final as an unfollow is, whatever is in flight. All other reads ask `fanfold.kit.audience`, which knows
who blocks whom from strings in Valkey. A string is written before its transaction commits, by one transaction of a
blocker at a time, and refilled only where there is none: so none is older than the last commit.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from fanfold.contracts import internal, keys
from fanfold.contracts.events import Blocked
from fanfold.follow import repository
from fanfold.follow.models import Block, outbox
from fanfold.kit.db import SQLAlchemyError
from fanfold.kit.errors import Conflict, NotFound, Unprocessable
from fanfold.kit.outbox import Outbox
from fanfold.kit.web import check_batch, read_id

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from uuid import UUID

    from sqlmodel.ext.asyncio.session import AsyncSession

    from fanfold.follow.service import Follows
    from fanfold.kit.db import Database
    from fanfold.kit.users import Users
    from fanfold.kit.valkey import Valkey

KEEP_SECONDS: Final = 24 * 3600
"""Bounds how long a string could be wrong after a crash between its writing and the commit."""
_ID_BYTES: Final = 16


class Blocks:
    """What users do, and what other services ask.

    Args:
        database: Where blocks are.
        valkey: Where others read them.
        users: Who exists.
        follows: To end those between the two.
        limit: Most people one user blocks: so long is the string that others read.
    """

    def __init__(self, database: Database, valkey: Valkey, users: Users, follows: Follows, limit: int) -> None:
        self._database = database
        self._valkey = valkey
        self._users = users
        self._follows = follows
        self._limit = limit
        self._outbox = Outbox(outbox)

    async def block(self, blocker_id: UUID, blocked_id: UUID) -> None:
        """Make sure that one blocks the other, and that no later read of either shows the other.

        Raises:
            Unprocessable: They are the same.
            NotFound: There is no such user.
            Conflict: The user blocks as many as one may.
            Unavailable: The block is there, but a feed did not confirm: to be sent again.
        """
        if blocker_id == blocked_id:
            raise Unprocessable("You cannot block yourself.", kind="block-self")
        if not await self._users.exists(blocked_id):
            raise NotFound("There is no such user.", kind="user-not-found")
        ways = ((blocker_id, blocked_id), (blocked_id, blocker_id))
        async with self._changing(blocker_id) as session:
            await repository.lock_pair(session, blocker_id, blocked_id)
            if await repository.add_block(session, blocker_id, blocked_id):
                await self._outbox.add(session, Blocked(blocker_id=blocker_id, blocked_id=blocked_id))
            removed = [await self._follows.remove(session, *way) for way in ways]
        for way, was in zip(ways, removed, strict=True):
            await self._follows.end(*way, removed=was)

    async def unblock(self, blocker_id: UUID, blocked_id: UUID) -> None:
        """End a block; follows do not come back. Without a block, nothing changes."""
        async with self._changing(blocker_id) as session:
            await repository.remove_block(session, blocker_id, blocked_id)

    async def get(self, blocker_id: UUID, blocked_id: UUID) -> Block:
        """One block; NotFound if there is none."""
        async with self._database.reading() as session:
            block = await repository.get_block(session, blocker_id, blocked_id)
        if block is None:
            raise NotFound("You do not block this user.", kind="not-blocked")
        return block

    async def purge(self, user_id: UUID) -> None:
        """A deleted account blocks nobody any more: its rows are gone."""
        await self._valkey.execute("UNLINK", keys.blocks(user_id))

    async def batch(self, asked: internal.Ids) -> internal.Blobs:
        """Whom each of some users blocks, put into Valkey where it is missing."""
        check_batch(len(asked.ids))
        async with self._database.reading() as session:
            found = await repository.blocked(session, [read_id(user_id) for user_id in asked.ids])
        await self._valkey.all(
            [("SET", keys.blocks(user_id), ids, "EX", KEEP_SECONDS, "NX") for user_id, ids in found.items()]
        )
        return internal.Blobs({user_id.bytes: ids for user_id, ids in found.items()})

    @asynccontextmanager
    async def _changing(self, blocker_id: UUID) -> AsyncIterator[AsyncSession]:
        """A transaction that changes whom a user blocks. If it fails, others ask again."""
        try:
            async with self._database.transaction() as session:
                await repository.lock_blocker(session, blocker_id)
                yield session
                ids = (await repository.blocked(session, (blocker_id,)))[blocker_id]
                if len(ids) > self._limit * _ID_BYTES:
                    raise Conflict(f"You block {self._limit} people, the most there may be.", kind="too-many-blocks")
                await self._valkey.execute("SET", keys.blocks(blocker_id), ids, "EX", KEEP_SECONDS)
        except SQLAlchemyError:
            await self._valkey.execute("UNLINK", keys.blocks(blocker_id))
            raise
