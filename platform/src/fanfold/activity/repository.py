"""The activity room's SQL. Every function works in the caller's session."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final
from uuid import UUID

from sqlalchemy import delete, func
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, select

from fanfold.activity.models import COMMENT, LIKE, POST, Activity, Comment
from fanfold.kit.export import part

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from sqlmodel.ext.asyncio.session import AsyncSession

NEWEST: Final = UUID(int=(1 << 128) - 1)
"""Above every id."""


EXPORTED: Final = {"likes": part(Activity, "user_id", kind=LIKE), "comments": part(Comment, "user_id")}
"""What an archive of an account has of this room."""


async def add_like(session: AsyncSession, like: Activity) -> bool:
    """Add a like; False if the user likes the parent already."""
    query = insert(Activity).values(like.model_dump()).on_conflict_do_nothing().returning(col(Activity.id))
    return (await session.exec(query)).first() is not None


async def remove_like(session: AsyncSession, user_id: UUID, parent_type: str, parent_id: UUID) -> bool:
    """Remove a like; False if there is none."""
    query = delete(Activity).where(
        col(Activity.kind) == LIKE,
        col(Activity.user_id) == user_id,
        col(Activity.parent_type) == parent_type,
        col(Activity.parent_id) == parent_id,
    )
    return (await session.exec(query.returning(col(Activity.id)))).first() is not None


async def add_comment(session: AsyncSession, comment: Comment) -> bool:
    """Add a comment and its activity; False if one of this id is there already."""
    query = insert(Comment).values(comment.model_dump()).on_conflict_do_nothing().returning(col(Comment.id))
    if (await session.exec(query)).first() is None:
        return False
    activity = Activity(
        id=comment.id,
        kind=COMMENT,
        parent_type=POST,
        parent_id=comment.post_id,
        user_id=comment.user_id,
        created_at=comment.created_at,
    )
    await session.exec(insert(Activity).values(activity.model_dump()))
    return True


async def get_comment(session: AsyncSession, comment_id: UUID) -> Comment | None:
    """One comment."""
    return await session.get(Comment, comment_id)


async def remove_comments(session: AsyncSession, comment_ids: Collection[UUID]) -> list[UUID]:
    """Delete comments, their activities and likes; for each deleted one the post it stood under."""
    if not comment_ids:
        return []
    likes = (col(Activity.parent_type) == COMMENT, col(Activity.parent_id).in_(comment_ids))
    await session.exec(delete(Activity).where(*likes))
    await session.exec(delete(Activity).where(col(Activity.id).in_(comment_ids)))
    gone = await session.exec(delete(Comment).where(col(Comment.id).in_(comment_ids)).returning(col(Comment.post_id)))
    return list(gone.scalars())


async def comments(session: AsyncSession, post_id: UUID, before: UUID, limit: int) -> Sequence[Comment]:
    """Comments under a post below ``before``, newest first."""
    query = select(Comment).where(Comment.post_id == post_id, col(Comment.id) < before)
    return (await session.exec(query.order_by(col(Comment.id).desc()).limit(limit))).all()


async def likers(session: AsyncSession, post_id: UUID, before: UUID, limit: int) -> list[tuple[UUID, UUID]]:
    """(activity id, user id) of a post's likes below ``before``, newest first."""
    query = (
        select(Activity.id, Activity.user_id)
        .where(
            Activity.parent_type == POST,
            Activity.parent_id == post_id,
            Activity.kind == LIKE,
            col(Activity.id) < before,
        )
        .order_by(col(Activity.id).desc())
        .limit(limit)
    )
    return list((await session.exec(query)).all())


async def post_counts(session: AsyncSession, post_ids: Collection[UUID]) -> dict[UUID, tuple[int, int]]:
    """(likes, comments) of every post asked for."""
    found = await _counts(session, POST, post_ids)
    return {post_id: (found[post_id, LIKE], found[post_id, COMMENT]) for post_id in post_ids}


async def comment_likes(session: AsyncSession, comment_ids: Collection[UUID]) -> dict[UUID, int]:
    """Likes of every comment asked for."""
    found = await _counts(session, COMMENT, comment_ids)
    return {comment_id: found[comment_id, LIKE] for comment_id in comment_ids}


async def liked_among(
    session: AsyncSession, user_id: UUID, parent_type: str, parent_ids: Collection[UUID]
) -> set[UUID]:
    """Those that the user likes."""
    query = select(Activity.parent_id).where(
        Activity.kind == LIKE,
        Activity.user_id == user_id,
        Activity.parent_type == parent_type,
        col(Activity.parent_id).in_(parent_ids),
    )
    return set((await session.exec(query)).all())


async def newest_liked(session: AsyncSession, user_id: UUID, limit: int) -> Sequence[UUID]:
    """Posts that the user likes, newest posts first."""
    query = select(Activity.parent_id).where(
        Activity.kind == LIKE, Activity.user_id == user_id, Activity.parent_type == POST
    )
    return (await session.exec(query.order_by(col(Activity.parent_id).desc()).limit(limit))).all()


async def some_comments_of_post(session: AsyncSession, post_id: UUID, limit: int) -> Sequence[UUID]:
    """Ids of some comments under a post."""
    return (await session.exec(select(Comment.id).where(Comment.post_id == post_id).limit(limit))).all()


async def some_comments_of_user(session: AsyncSession, user_id: UUID, limit: int) -> Sequence[UUID]:
    """Ids of some comments that a user wrote."""
    return (await session.exec(select(Comment.id).where(Comment.user_id == user_id).limit(limit))).all()


async def remove_some_of_post(session: AsyncSession, post_id: UUID, limit: int) -> int:
    """Delete some activities of a post; how many."""
    some = select(Activity.id).where(Activity.parent_type == POST, Activity.parent_id == post_id).limit(limit)
    gone = await session.exec(delete(Activity).where(col(Activity.id).in_(some)).returning(col(Activity.id)))
    return len(gone.all())


async def remove_some_likes_of_user(session: AsyncSession, user_id: UUID, limit: int) -> list[UUID]:
    """Delete some of a user's likes; the parent of each."""
    some = select(Activity.id).where(Activity.user_id == user_id, Activity.kind == LIKE).limit(limit)
    gone = await session.exec(delete(Activity).where(col(Activity.id).in_(some)).returning(col(Activity.parent_id)))
    return list(gone.scalars())


async def _counts(session: AsyncSession, parent_type: str, parent_ids: Collection[UUID]) -> Counter[tuple[UUID, str]]:
    query = (
        select(Activity.parent_id, Activity.kind, func.count())
        .where(Activity.parent_type == parent_type, col(Activity.parent_id).in_(parent_ids))
        .group_by(col(Activity.parent_id), col(Activity.kind))
    )
    rows = (await session.exec(query)).all()
    return Counter({(parent_id, kind): count for parent_id, kind, count in rows})
