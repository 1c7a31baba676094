"""Following and unfollowing, lists of both, and what fan-out and feeds need of them.

What makes an unfollow final (no feed read after its 204 shows the author):

1. The row is deleted and committed, with an ``Unfollowed`` event, before anything else. A feed rebuilt and a list of
   followers read from here on do not hold the pair; nothing here is answered from a cache.
2. Then the feed service is told, and the 204 is given only after it answered. It drops the cached feed, and pushes with
   an older list of followers are refused by a feed rebuilt later.
3. If it does not answer, the client gets 503: the row is gone, but the promise is not made. Sending it again deletes
   nothing and tells the feed service again. Nobody sending it again, the event does, later.

A follow asks less: its 204 says that the row is there. A feed that was not told hears of it by the event.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from fanfold.contracts import internal
from fanfold.contracts.api import Author, Page
from fanfold.contracts.events import Followed, Unfollowed
from fanfold.follow import repository
from fanfold.follow.models import Follow, outbox
from fanfold.kit.errors import Conflict, NotFound, Unavailable, Unprocessable
from fanfold.kit.logging import get_logger
from fanfold.kit.outbox import Outbox
from fanfold.kit.web import read_id

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from sqlmodel.ext.asyncio.session import AsyncSession

    from fanfold.follow.celebrities import Celebrities, FollowerTotals
    from fanfold.follow.settings import FollowSettings
    from fanfold.kit.db import Database
    from fanfold.kit.pagination import CursorCodec
    from fanfold.kit.peers import Peers
    from fanfold.kit.users import Users

    Newest = Callable[[AsyncSession, UUID, UUID | None, int], Awaitable[Sequence[tuple[UUID, UUID]]]]

log = get_logger(__name__)

ID_BYTES = 16
PURGE_BATCH = 1_000
"""Follows deleted in one transaction when an account goes: its locks are short."""


class Follows:
    """What users do.

    Args:
        database: Where follows are.
        users: Who exists, and how they look.
        peers: To tell the feed service.
        celebrities: Marks to be kept.
        settings: With ``following_limit``.
    """

    def __init__(
        self, database: Database, users: Users, peers: Peers, celebrities: Celebrities, settings: FollowSettings
    ) -> None:
        self._database = database
        self._users = users
        self._peers = peers
        self._celebrities = celebrities
        self._limit = settings.following_limit
        self._outbox = Outbox(outbox)

    async def follow(self, follower_id: UUID, followee_id: UUID) -> None:
        """Make sure that one follows the other.

        Raises:
            Unprocessable: They are the same.
            NotFound: There is no such followee.
            Conflict: The follower follows as many as one may.
        """
        if follower_id == followee_id:
            raise Unprocessable("You cannot follow yourself.", kind="follow-self")
        if not await self._users.exists(followee_id):
            raise NotFound("There is no such user to follow.")
        async with self._database.transaction() as session:
            added = await repository.add(session, follower_id, followee_id)
            if added:
                await self._check_limit(session, follower_id)
                await self._outbox.add(session, Followed(follower_id=follower_id, followee_id=followee_id))
        if added:
            await self._celebrities.settle(followee_id)
        change = internal.FollowChange(follower_id.bytes, followee_id.bytes)
        try:
            await self._peers.call(internal.FEED_FOLLOW, change)
        except Unavailable as error:
            log.warning("feed_not_told_of_follow", error=error.detail)

    async def unfollow(self, follower_id: UUID, followee_id: UUID) -> None:
        """Make sure that one does not follow the other, and that no later feed read shows it.

        Raises:
            Unavailable: The follow is gone, but the feed service did not confirm: to be sent again.
        """
        async with self._database.transaction() as session:
            removed = await repository.remove(session, follower_id, followee_id)
            if removed:
                await self._outbox.add(session, Unfollowed(follower_id=follower_id, followee_id=followee_id))
        if removed:
            await self._celebrities.settle(followee_id)
        change = internal.FollowChange(follower_id.bytes, followee_id.bytes)
        try:
            await self._peers.call(internal.FEED_UNFOLLOW, change)
        except Unavailable as error:
            raise Unavailable(
                "You follow them no more, but your feed may show their posts a little longer: send this again.",
                kind="unfollow-unconfirmed",
            ) from error

    async def get(self, follower_id: UUID, followee_id: UUID) -> Follow:
        """One follow; NotFound if there is none."""
        async with self._database.reading() as session:
            follow = await repository.get(session, follower_id, followee_id)
        if follow is None:
            raise NotFound("You do not follow this user.")
        return follow

    async def purge(self, user_id: UUID) -> None:
        """Remove a deleted account's follows, both sides. Safe to repeat."""
        async with self._database.transaction() as session:
            await repository.mark_celebrity(session, user_id, celebrity=False)
        deleted = 1
        while deleted:
            async with self._database.transaction() as session:
                deleted = await repository.delete_some(session, user_id, PURGE_BATCH)

    async def _check_limit(self, session: AsyncSession, follower_id: UUID) -> None:
        if await repository.count_following(session, follower_id) > self._limit:
            raise Conflict(f"You follow {self._limit} people, the most there may be; unfollow somebody first.")


class Lists:
    """Pages of followers and followees, newest first.

    Args:
        database: Where follows are.
        users: How they look.
        cursors: Of both kinds of list.
    """

    def __init__(self, database: Database, users: Users, *, followers: CursorCodec, following: CursorCodec) -> None:
        self._database = database
        self._users = users
        self._followers = followers
        self._following = following

    async def followers(self, user_id: UUID, cursor: str | None, limit: int) -> Page[Author]:
        """Who follows a user; NotFound if there is no such user."""
        return await self._page(repository.newest_followers, self._followers, user_id, cursor, limit)

    async def following(self, user_id: UUID, cursor: str | None, limit: int) -> Page[Author]:
        """Whom a user follows; NotFound if there is no such user."""
        return await self._page(repository.newest_followees, self._following, user_id, cursor, limit)

    async def _page(
        self, newest: Newest, codec: CursorCodec, user_id: UUID, cursor: str | None, limit: int
    ) -> Page[Author]:
        before = codec.decode(cursor)
        if not await self._users.exists(user_id):
            raise NotFound("There is no such user.")
        async with self._database.reading() as session:
            rows = await newest(session, user_id, before, limit + 1)
        shown = rows[:limit]
        authors = await self._users.authors(other for _, other in shown)
        # Somebody deleted a moment ago is left out, so a page may be shorter than asked for.
        items = [authors[other] for _, other in shown if other in authors]
        return Page(items=items, next_cursor=codec.encode(shown[-1][0]) if len(rows) > limit else None)


class Graph:
    """Follows as fan-out and feeds read them: concatenated ids, always from the tables.

    Args:
        database: Where follows are.
        celebrities: Marks to be kept.
        totals: Counts of followers.
    """

    def __init__(self, database: Database, celebrities: Celebrities, totals: FollowerTotals) -> None:
        self._database = database
        self._celebrities = celebrities
        self._totals = totals

    async def followers(self, query: internal.FollowersQuery) -> internal.FollowersPage:
        """One page of followers; the first one settles whether the user is a celebrity."""
        if not 1 <= query.limit <= internal.FOLLOWERS_PAGE:
            raise Unprocessable(f"A page has 1 to {internal.FOLLOWERS_PAGE} followers; {query.limit} were asked for.")
        user_id, first = read_id(query.user_id), not query.after
        after = UUID(int=0) if first else read_id(query.after)
        async with self._database.reading() as session:
            page = await repository.followers_page(session, user_id, after, query.limit)
            marked = await repository.is_celebrity(session, user_id)
        count = len(page) // ID_BYTES
        total = count if first and count < query.limit else await self._totals.get(user_id)
        celebrity = await self._celebrities.mark(user_id, total, was=marked) if first else marked
        return internal.FollowersPage(page, total, celebrity)

    async def followees(self, query: internal.FolloweesQuery) -> internal.Followees:
        """Everybody a user follows, split as their posts reach the feed."""
        async with self._database.reading() as session:
            pushed, celebrities = await repository.followees(session, read_id(query.user_id))
        return internal.Followees(pushed, celebrities)
