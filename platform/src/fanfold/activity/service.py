"""Decisions of the activity service: who may like, comment and delete, and what of it is told."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final
from uuid import UUID
from weakref import WeakValueDictionary

from fanfold.activity import repository
from fanfold.activity.models import COMMENT, LIKE, POST, Activity, Comment, outbox
from fanfold.contracts.events import Commented, Liked
from fanfold.contracts.ids import id_millis, new_id
from fanfold.kit.errors import Forbidden, NotFound
from fanfold.kit.outbox import Outbox

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Sequence
    from typing import Any

    from sqlmodel.ext.asyncio.session import AsyncSession

    from fanfold.activity.counts import Counts
    from fanfold.activity.liked import Liked as LikedPosts
    from fanfold.activity.parents import Posts
    from fanfold.kit.audience import Audience
    from fanfold.kit.db import Database

EXCERPT: Final = 100
"""Characters of a comment that its event carries."""
BATCH: Final = 500
"""Rows that go in one transaction when a post or an account is deleted."""


class ActivityService:
    """Rows and their events first, then what readers see of them."""

    def __init__(self, database: Database, posts: Posts, audience: Audience, counts: Counts, liked: LikedPosts) -> None:
        self._database = database
        self._posts = posts
        self._audience = audience
        self._counts = counts
        self._liked = liked
        self._outbox = Outbox(outbox)
        self._turns: WeakValueDictionary[tuple[UUID, UUID], asyncio.Lock] = WeakValueDictionary()

    async def like_post(self, user_id: UUID, post_id: UUID) -> None:
        """Like a post; liking it again changes nothing. The user's next read shows it.

        Raises:
            NotFound: No such post.
        """
        owner_id = await self._posts.seen_by(user_id, post_id)
        async with self._turn(user_id, post_id):
            added = await self._add_like(user_id, POST, post_id, owner_id, post_id)
            self._database.wrote(user_id)
            await self._liked.add(user_id, post_id)
            if added:
                await self._counts.changed(post_id, likes=1)

    async def unlike_post(self, user_id: UUID, post_id: UUID) -> None:
        """Take a like back; without one, nothing changes."""
        async with self._turn(user_id, post_id):
            async with self._database.transaction() as session:
                removed = await repository.remove_like(session, user_id, POST, post_id)
            self._database.wrote(user_id)
            await self._liked.remove(user_id, post_id)
            if removed:
                await self._counts.changed(post_id, likes=-1)

    async def like_comment(self, user_id: UUID, comment_id: UUID) -> None:
        """Like a comment; liking it again changes nothing.

        Raises:
            NotFound: No such comment.
        """
        async with self._database.reading() as session:
            comment = await repository.get_comment(session, comment_id)
        if comment is None or await self._audience.apart(user_id, (comment.user_id,)):
            raise _no_comment()
        await self._posts.seen_by(user_id, comment.post_id)
        await self._add_like(user_id, COMMENT, comment_id, comment.user_id, comment.post_id)
        self._database.wrote(user_id)

    async def unlike_comment(self, user_id: UUID, comment_id: UUID) -> None:
        """Take a like back; without one, nothing changes."""
        async with self._database.transaction() as session:
            await repository.remove_like(session, user_id, COMMENT, comment_id)
        self._database.wrote(user_id)

    async def comment(self, comment_id: UUID, user_id: UUID, post_id: UUID, text: str) -> Comment:
        """Comment on a post; if it was done already (a repeated request), the comment stays as it is.

        Raises:
            NotFound: No such post.
        """
        owner_id = await self._posts.seen_by(user_id, post_id)
        comment = Comment(id=comment_id, post_id=post_id, user_id=user_id, text=text, created_at=_made_at(comment_id))
        async with self._database.transaction() as session:
            added = await repository.add_comment(session, comment)
            if added:
                event = Commented(
                    activity_id=comment_id,
                    comment_id=comment_id,
                    user_id=user_id,
                    owner_id=owner_id,
                    post_id=post_id,
                    excerpt=text[:EXCERPT],
                )
                await self._outbox.add(session, event)
        self._database.wrote(user_id)
        if added:
            await self._counts.changed(post_id, comments=1)
        return comment

    async def delete_comment(self, user_id: UUID, comment_id: UUID) -> None:
        """Delete a comment: its author may, and the author of the post.

        Raises:
            NotFound: No such comment, or the post above it was deleted, as far as the user is told.
            Forbidden: It is neither the user's nor under a post of theirs.
        """
        async with self._database.reading() as session:
            comment = await repository.get_comment(session, comment_id)
        if comment is None:
            raise _no_comment()
        if user_id != comment.user_id and user_id != await self._posts.seen_by(user_id, comment.post_id):
            raise Forbidden("Only its author, or the author of the post, may delete a comment.")
        async with self._database.transaction() as session:
            removed = await repository.remove_comments(session, [comment_id])
        self._database.wrote(user_id)
        if removed:
            await self._counts.changed(comment.post_id, comments=-1)

    async def likers(self, viewer: UUID, post_id: UUID, limit: int, before: UUID | None) -> list[tuple[UUID, UUID]]:
        """(activity id, user id) of a post's newest likes below ``before``, one more than ``limit`` if there is.

        Raises:
            NotFound: No such post.
        """
        await self._posts.seen_by(viewer, post_id)
        below = before or repository.NEWEST
        return await self._database.browse(
            lambda session: repository.likers(session, post_id, below, limit + 1), by=viewer
        )

    async def comments(self, viewer: UUID, post_id: UUID, limit: int, before: UUID | None) -> Sequence[Comment]:
        """A post's newest comments below ``before``, one more than ``limit`` if there is.

        Raises:
            NotFound: No such post.
        """
        await self._posts.seen_by(viewer, post_id)
        below = before or repository.NEWEST
        return await self._database.browse(
            lambda session: repository.comments(session, post_id, below, limit + 1), by=viewer
        )

    async def comment_likes(self, user_id: UUID, comment_ids: Sequence[UUID]) -> tuple[dict[UUID, int], set[UUID]]:
        """Likes of each comment, and those that the user likes."""

        async def read(session: AsyncSession) -> tuple[dict[UUID, int], set[UUID]]:
            likes = await repository.comment_likes(session, comment_ids)
            return likes, await repository.liked_among(session, user_id, COMMENT, comment_ids)

        return await self._database.browse(read, by=user_id)

    async def apart(self, viewer: UUID, others: Iterable[UUID]) -> set[UUID]:
        """Those of others whose likes and comments ``viewer`` does not see, because one blocks the other."""
        return await self._audience.apart(viewer, others)

    async def forget_post(self, post_id: UUID) -> None:
        """Delete what belongs to a deleted post. Safe to repeat."""
        await self._remove_comments(lambda session: repository.some_comments_of_post(session, post_id, BATCH))
        removed = BATCH
        while removed == BATCH:
            async with self._database.transaction() as session:
                removed = await repository.remove_some_of_post(session, post_id, BATCH)
        await self._counts.forget([post_id])

    async def forget_user(self, user_id: UUID) -> None:
        """Delete the likes and comments of a deleted account. Safe to repeat."""
        await self._remove_comments(lambda session: repository.some_comments_of_user(session, user_id, BATCH))
        while True:
            async with self._database.transaction() as session:
                parents = await repository.remove_some_likes_of_user(session, user_id, BATCH)
            if not parents:
                break
            await self._counts.forget(parents)
        await self._liked.drop(user_id)

    async def _remove_comments(self, some: Callable[[Any], Coroutine[Any, Any, Sequence[UUID]]]) -> None:
        while True:
            async with self._database.transaction() as session:
                post_ids = await repository.remove_comments(session, await some(session))
            if not post_ids:
                return
            await self._counts.forget(post_ids)

    async def _add_like(self, user_id: UUID, parent_type: str, parent_id: UUID, owner_id: UUID, post_id: UUID) -> bool:
        like_id = new_id()
        like = Activity(
            id=like_id,
            kind=LIKE,
            parent_type=parent_type,
            parent_id=parent_id,
            user_id=user_id,
            created_at=_made_at(like_id),
        )
        async with self._database.transaction() as session:
            added = await repository.add_like(session, like)
            if added:
                event = Liked(
                    activity_id=like_id,
                    user_id=user_id,
                    owner_id=owner_id,
                    parent_type=parent_type,
                    parent_id=parent_id,
                    post_id=post_id,
                )
                await self._outbox.add(session, event)
        return added

    def _turn(self, user_id: UUID, post_id: UUID) -> asyncio.Lock:
        """Like and unlike of one user reach the mirror in the order of their commits; one replica serves a user."""
        return self._turns.setdefault((user_id, post_id), asyncio.Lock())


def _made_at(identifier: UUID) -> datetime:
    return datetime.fromtimestamp(id_millis(identifier) / 1000, UTC)


def _no_comment() -> NotFound:
    return NotFound("There is no such comment.", kind="comment-not-found")
