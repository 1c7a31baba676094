"""Following and unfollowing, lists of both, and what fan-out and feeds need of them.

What makes an unfollow final (no feed read after its 204 shows the author):

1. The row is deleted and committed, with an ``Unfollowed`` event, before anything else. A feed rebuilt and a list of
   followers read from here on do not hold the pair; nothing here is answered from a cache.
2. Then the feed service is told, and the 204 is given only after it answered. It drops the cached feed, and pushes with
   an older list of followers are refused by a feed rebuilt later.
3. If it does not answer, the client gets 503: the row is gone, but the promise is not made. Sending it again deletes
   nothing and tells the feed service again. Nobody sending it again, the event does, later.

A follow asks less: its 204 says that the row is there. A feed that was not told hears of it by the event.

Of a private account a follow makes a request (`fanfold.follow.requests`). All that changes something between two users
takes their lock first (`repository.lock_pair`), so that it meets a block, or an approval, entirely or not at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from fanfold.contracts import internal
from fanfold.contracts.api import Author, Page
from fanfold.contracts.events import Followed, FollowRequested, Unfollowed
from fanfold.follow import repository
from fanfold.follow.models import Follow, outbox
from fanfold.kit.errors import Conflict, NotFound, Unavailable, Unprocessable
from fanfold.kit.logging import get_logger
from fanfold.kit.outbox import Outbox
from fanfold.kit.pagination import CursorCodec
from fanfold.kit.web import check_batch, read_id

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from sqlmodel.ext.asyncio.session import AsyncSession

    from fanfold.follow.celebrities import Celebrities, FollowerTotals
    from fanfold.follow.settings import FollowSettings
    from fanfold.kit.audience import Audience
    from fanfold.kit.db import Database
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

    async def follow(self, follower_id: UUID, followee_id: UUID) -> bool:
        """Make sure that one follows the other, or asks to; True if follows.

        Raises:
            Unprocessable: They are the same.
            NotFound: There is no such followee, as far as the follower is told.
            Conflict: The follower blocks the followee, or follows as many as one may.
        """
        if follower_id == followee_id:
            raise Unprocessable("You cannot follow yourself.", kind="follow-self")
        while True:
            private = await self._is_private(followee_id)
            if not private or not await self._request(follower_id, followee_id):
                await self.establish(follower_id, followee_id)
                return True
            # Made public between the look and the request, an account has approved those it knew of: this one itself.
            if await self._is_private(followee_id):
                return False

    async def establish(self, follower_id: UUID, followee_id: UUID) -> None:
        """Make a follow that nobody needs to be asked for; raises as `follow`."""
        async with self._database.transaction() as session:
            await repository.lock_pair(session, follower_id, followee_id)
            await _check_blocks(session, follower_id, followee_id)
            added = await self.add(session, follower_id, followee_id)
        if added:
            await self._celebrities.settle(followee_id)
        await self.tell_feed(follower_id, followee_id)

    async def add(self, session: AsyncSession, follower_id: UUID, followee_id: UUID) -> bool:
        """Turn a request, if there is one, into a follow, in the caller's transaction; whether the follow is new.

        Raises:
            Conflict: The follower follows as many as one may.
        """
        await repository.remove_request(session, follower_id, followee_id)
        added = await repository.add(session, follower_id, followee_id)
        if added:
            await self._check_limit(session, follower_id)
            await self._outbox.add(session, Followed(follower_id=follower_id, followee_id=followee_id))
        return added

    async def tell_feed(self, follower_id: UUID, followee_id: UUID) -> None:
        """Tell the feed service of a new follow; if it does not answer, the event does."""
        try:
            await self._peers.call(internal.FEED_FOLLOW, internal.FollowChange(follower_id.bytes, followee_id.bytes))
        except Unavailable as error:
            log.warning("feed_not_told_of_follow", error=error.detail)

    async def unfollow(self, follower_id: UUID, followee_id: UUID) -> None:
        """Make sure that one neither follows the other nor asks to, and that no later feed read shows it.

        Raises:
            Unavailable: The follow is gone, but the feed service did not confirm: to be sent again.
        """
        async with self._database.transaction() as session:
            await repository.lock_pair(session, follower_id, followee_id)
            removed = await self.remove(session, follower_id, followee_id)
        await self.end(follower_id, followee_id, removed=removed)

    async def remove(self, session: AsyncSession, follower_id: UUID, followee_id: UUID) -> bool:
        """Delete follow and request in the caller's transaction; whether there was a follow. `end` comes after it."""
        await repository.remove_request(session, follower_id, followee_id)
        removed = await repository.remove(session, follower_id, followee_id)
        if removed:
            await self._outbox.add(session, Unfollowed(follower_id=follower_id, followee_id=followee_id))
        return removed

    async def end(self, follower_id: UUID, followee_id: UUID, *, removed: bool) -> None:
        """What must happen after the commit of `remove`, and before an answer; raises as `unfollow`."""
        if removed:
            await self._celebrities.settle(followee_id)
        change = internal.FollowChange(follower_id.bytes, followee_id.bytes)
        try:
            await self._peers.call(internal.FEED_UNFOLLOW, change)
        except Unavailable as error:
            raise Unavailable(
                "The follow is gone, but a feed may show its posts a little longer: send this again.",
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

    async def _is_private(self, user_id: UUID) -> bool:
        blob = (await self._users.blobs((user_id,))).get(user_id)
        if blob is None:
            raise _nobody()
        return blob.private

    async def _request(self, follower_id: UUID, followee_id: UUID) -> bool:
        """Make sure that one asks to follow the other; False if they follow already."""
        async with self._database.transaction() as session:
            await repository.lock_pair(session, follower_id, followee_id)
            await _check_blocks(session, follower_id, followee_id)
            if await repository.get(session, follower_id, followee_id) is not None:
                return False
            if await repository.add_request(session, follower_id, followee_id):
                await self._check_limit(session, follower_id)
                await self._outbox.add(session, FollowRequested(follower_id=follower_id, followee_id=followee_id))
        return True

    async def _check_limit(self, session: AsyncSession, follower_id: UUID) -> None:
        if await repository.count_following(session, follower_id) > self._limit:
            raise Conflict(f"You follow {self._limit} people, the most there may be; unfollow somebody first.")


async def _check_blocks(session: AsyncSession, follower_id: UUID, followee_id: UUID) -> None:
    blockers = await repository.blockers(session, follower_id, followee_id)
    if followee_id in blockers:
        raise _nobody()
    if blockers:
        raise Conflict("You block this user: end the block first.", kind="user-blocked")


def _nobody() -> NotFound:
    return NotFound("There is no such user to follow.", kind="user-not-found")


class Lists:
    """Pages of followers, followees, requests and blocks, newest first.

    Args:
        database: Where follows are.
        users: How they look.
        audience: Who may see them.
        cursor_key: Each list has cursors of its own.
    """

    def __init__(self, database: Database, users: Users, audience: Audience, cursor_key: str) -> None:
        self._database = database
        self._users = users
        self._audience = audience
        self._followers = CursorCodec(cursor_key, "followers")
        self._following = CursorCodec(cursor_key, "following")
        self._requests = CursorCodec(cursor_key, "follow-requests")
        self._sent = CursorCodec(cursor_key, "sent-follow-requests")
        self._blocks = CursorCodec(cursor_key, "blocks")

    async def followers(self, viewer: UUID, user_id: UUID, cursor: str | None, limit: int) -> Page[Author]:
        """Who follows a user.

        Raises:
            NotFound, Forbidden: As `Audience.check`.
        """
        return await self._open_page(repository.newest_followers, self._followers, (viewer, user_id), cursor, limit)

    async def following(self, viewer: UUID, user_id: UUID, cursor: str | None, limit: int) -> Page[Author]:
        """Whom a user follows; raises as `followers`."""
        return await self._open_page(repository.newest_followees, self._following, (viewer, user_id), cursor, limit)

    async def requests(self, user_id: UUID, cursor: str | None, limit: int) -> Page[Author]:
        """Who asks to follow a user."""
        return await self._page(repository.newest_requests, self._requests, user_id, cursor, limit)

    async def sent_requests(self, user_id: UUID, cursor: str | None, limit: int) -> Page[Author]:
        """Whom a user asks to follow."""
        return await self._page(repository.newest_sent_requests, self._sent, user_id, cursor, limit)

    async def blocks(self, user_id: UUID, cursor: str | None, limit: int) -> Page[Author]:
        """Whom a user blocks."""
        return await self._page(repository.newest_blocks, self._blocks, user_id, cursor, limit)

    async def _open_page(
        self, newest: Newest, codec: CursorCodec, who: tuple[UUID, UUID], cursor: str | None, limit: int
    ) -> Page[Author]:
        """A page of another's list, without those who are apart from the viewer. ``who``: viewer, and whose list."""
        viewer, user_id = who
        codec.decode(cursor)
        await self._audience.check(viewer, user_id)
        page = await self._page(newest, codec, user_id, cursor, limit)
        apart = await self._audience.apart(viewer, [item.id for item in page.items])
        return Page(items=[item for item in page.items if item.id not in apart], next_cursor=page.next_cursor)

    async def _page(
        self, newest: Newest, codec: CursorCodec, user_id: UUID, cursor: str | None, limit: int
    ) -> Page[Author]:
        before = codec.decode(cursor)
        if before is None:  # where people look for whom they have just followed
            async with self._database.reading() as session:
                rows = await newest(session, user_id, before, limit + 1)
        else:
            rows = await self._database.browse(lambda session: newest(session, user_id, before, limit + 1))
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

    async def following(self, query: internal.FollowingQuery) -> internal.Ids:
        """Whom of some others a user follows."""
        check_batch(len(query.others))
        others = [read_id(other) for other in query.others]
        async with self._database.reading() as session:
            found = await repository.following_among(session, read_id(query.user_id), others)
        return internal.Ids([user_id.bytes for user_id in found])
