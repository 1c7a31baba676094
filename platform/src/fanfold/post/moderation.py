"""What hiding a post means: to everybody but its author and the moderators it is as good as deleted, until it is shown.

The row says what is true. A hidden post has the tombstone of a deleted one, which every read of posts obeys, and is
left out where posts are read from SQL. Tombstone and row change under the lock of the row; dropping the tombstone is
always safe, because whoever misses a blob asks for the row.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from fanfold.contracts.events import PostShown
from fanfold.kit.db import SQLAlchemyError
from fanfold.kit.errors import NotFound
from fanfold.kit.moderation import HIDE, SHOW
from fanfold.kit.outbox import Outbox
from fanfold.post import repository
from fanfold.post.models import outbox

if TYPE_CHECKING:
    from uuid import UUID

    from sqlmodel.ext.asyncio.session import AsyncSession

    from fanfold.kit.audience import Audience
    from fanfold.kit.db import Database
    from fanfold.kit.moderation import Desk
    from fanfold.post.cache import PostCache
    from fanfold.post.models import Post
    from fanfold.post.service import PostService
    from fanfold.post.timelines import Timelines


class PostModeration:
    """Hides posts and shows them again."""

    def __init__(  # noqa: PLR0913, PLR0917 - the parts of one decision
        self,
        database: Database,
        cache: PostCache,
        timelines: Timelines,
        desk: Desk,
        service: PostService,
        audience: Audience,
    ) -> None:
        self._database = database
        self._cache = cache
        self._timelines = timelines
        self._desk = desk
        self._service = service
        self._audience = audience
        self._outbox = Outbox(outbox)

    async def check(self, viewer: UUID, subject_id: UUID) -> None:
        """Refuse who cannot see the post.

        Raises:
            NotFound: There is none, as far as the viewer is told.
        """
        author_id = await self._service.author(subject_id)
        if not await self._audience.admits(viewer, author_id):
            raise _not_found()

    async def hide(self, moderator_id: UUID, subject_id: UUID, reason: str) -> None:
        """No read that begins after this returns shows the post. Safe to repeat.

        Raises:
            NotFound: No such post.
        """
        try:
            async with self._database.transaction() as session:
                post = await _locked(session, subject_id)
                if post.hidden_at is None:
                    await repository.set_hidden(session, subject_id, datetime.now(UTC))
                    await self._desk.record(session, moderator_id, HIDE, subject_id, reason)
                await self._cache.bury([subject_id])
        except SQLAlchemyError:
            await self._cache.forget([subject_id])
            raise
        await self._timelines.remove(subject_id, post.author_id)

    async def show(self, moderator_id: UUID, subject_id: UUID, reason: str) -> None:
        """Reads show the post again, feeds when fan-out has brought it there. Safe to repeat.

        Raises:
            NotFound: No such post.
        """
        async with self._database.transaction() as session:
            post = await _locked(session, subject_id)
            if post.hidden_at is None:
                return
            await repository.set_hidden(session, subject_id, None)
            await self._desk.record(session, moderator_id, SHOW, subject_id, reason)
            await self._outbox.add(session, PostShown(post_id=subject_id, author_id=post.author_id))
        await self.restore(subject_id)

    async def restore(self, post_id: UUID) -> None:
        """Put a post that is shown again where reads look for it, unless it was hidden or deleted since.

        Safe to repeat.
        """
        async with self._database.transaction() as session:
            post = await repository.lock(session, post_id)
            if post is not None and post.hidden_at is None:
                await self._cache.forget([post_id])
                await self._timelines.add(post_id, post.author_id)

    async def forget_reporter(self, user_id: UUID) -> None:
        """Delete what a deleted account has reported. Safe to repeat."""
        async with self._database.transaction() as session:
            await self._desk.forget_reporter(session, user_id)


async def _locked(session: AsyncSession, post_id: UUID) -> Post:
    post = await repository.lock(session, post_id)
    if post is None:
        raise _not_found()
    return post


def _not_found() -> NotFound:
    return NotFound("There is no such post.", kind="post-not-found")
