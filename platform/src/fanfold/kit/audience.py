"""Who may see whom: blocks in both directions, and private accounts.

Home feeds ask nobody: what may not be seen is not followed, and a block ends the follows before it is answered. All
other reads ask here: two pipelines of strings in Valkey, and one call of the follow service if a private account is
among those asked about. What Valkey has not, its owner is asked for; while it does not answer, nothing is shown.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Final
from uuid import UUID

from fanfold.contracts import internal, keys
from fanfold.kit.errors import Forbidden, NotFound

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from fanfold.kit.peers import Peers
    from fanfold.kit.users import Users
    from fanfold.kit.valkey import Valkey

_ID: Final = 16


class Standing(Enum):
    """How one user stands to another."""

    OPEN = "open"
    """Sees everything that the other shows to anybody, or to followers."""
    PRIVATE = "private"
    """The account is private and not followed: its name and picture are seen, its posts and lists are not."""
    BLOCKS = "blocks"
    """Blocks the other."""
    ABSENT = "absent"
    """There is no such user; or they block the one who asks, who is told the same."""


class Audience:
    """Answers for one viewer at a time.

    Args:
        valkey: Where the follow service keeps who blocks whom.
        peers: How to reach the follow service.
        users: Who exists, and who is private.
    """

    def __init__(self, valkey: Valkey, peers: Peers, users: Users) -> None:
        self._valkey = valkey
        self._peers = peers
        self._users = users

    async def standings(self, viewer: UUID, others: Iterable[UUID]) -> dict[UUID, Standing]:
        """How ``viewer`` stands to each of the others. To oneself: `Standing.OPEN`.

        Raises:
            Unavailable: Something is not in Valkey and its owner does not answer.
            ValkeyUnavailableError: Valkey does not answer.
        """
        found = dict.fromkeys(others, Standing.OPEN)
        asked = found.keys() - {viewer}
        users = await self._users.blobs(asked)
        # Only of users that are there: else asking for invented ids would fill Valkey.
        blocks = await self._blocks({viewer, *users} if users else ())
        for other in asked:
            if other not in users or _holds(blocks[other], viewer):
                found[other] = Standing.ABSENT
            elif _holds(blocks[viewer], other):
                found[other] = Standing.BLOCKS
            elif users[other].private:
                found[other] = Standing.PRIVATE
        private = [other.bytes for other, standing in found.items() if standing is Standing.PRIVATE]
        for start in range(0, len(private), internal.MAX_BATCH):
            query = internal.FollowingQuery(viewer.bytes, private[start : start + internal.MAX_BATCH])
            for followed in (await self._peers.call(internal.FOLLOWING, query)).ids:
                found[UUID(bytes=followed)] = Standing.OPEN
        return found

    async def admitted(self, viewer: UUID, authors: Collection[UUID]) -> set[UUID]:
        """Those whose posts ``viewer`` may see; errors as `standings`."""
        standings = await self.standings(viewer, authors)
        return {author for author, standing in standings.items() if standing is Standing.OPEN}

    async def admits(self, viewer: UUID, author: UUID) -> bool:
        """Whether ``viewer`` may see the posts of one author; errors as `standings`."""
        return author in await self.admitted(viewer, (author,))

    async def apart(self, viewer: UUID, others: Iterable[UUID]) -> set[UUID]:
        """Those who block ``viewer`` or are blocked: what they write under posts of others is not shown.

        Errors as `standings`.
        """
        asked = set(others) - {viewer}
        if not asked:
            return set()
        blocks = await self._blocks({viewer, *asked})
        return {other for other in asked if _holds(blocks[other], viewer) or _holds(blocks[viewer], other)}

    async def check(self, viewer: UUID, user_id: UUID) -> None:
        """Refuse ``viewer`` who may not see what the user posts, and whom they follow.

        Raises:
            NotFound: There is no such user, as far as the viewer is told.
            Forbidden: The account is private, or the viewer blocks it.
        """
        standing = (await self.standings(viewer, (user_id,)))[user_id]
        if standing is Standing.ABSENT:
            raise NotFound("There is no such user.", kind="user-not-found")
        if standing is Standing.BLOCKS:
            raise Forbidden("You block this user; end the block to see more.", kind="user-blocked")
        if standing is Standing.PRIVATE:
            raise Forbidden("This account is private: ask to follow it to see more.", kind="account-private")

    async def _blocks(self, user_ids: Collection[UUID]) -> dict[UUID, bytes]:
        values = await self._valkey.all([("GET", keys.blocks(user_id)) for user_id in user_ids])
        found = dict(zip(user_ids, values, strict=True))
        missing = [user_id.bytes for user_id, value in found.items() if value is None]
        for start in range(0, len(missing), internal.MAX_BATCH):
            answer = await self._peers.call(internal.BLOCKS, internal.Ids(missing[start : start + internal.MAX_BATCH]))
            found.update((UUID(bytes=user_id), ids) for user_id, ids in answer.blobs.items())
        return found


def _holds(ids: bytes, user_id: UUID) -> bool:
    """Whether concatenated ids hold one; a match across the border of two is none."""
    at = ids.find(user_id.bytes)
    while at > 0 and at % _ID:
        at = ids.find(user_id.bytes, at + 1)
    return at >= 0
