"""The follow room's SQL. Every function works in the caller's session."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import delete, func, literal, tuple_
from sqlalchemy.dialects.postgresql import BYTEA, aggregate_order_by, insert
from sqlmodel import col, select

from fanfold.contracts.ids import new_id
from fanfold.follow.models import Celebrity, Follow

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlmodel.ext.asyncio.session import AsyncSession

_NOTHING = literal(b"", BYTEA)


async def add(session: AsyncSession, follower_id: UUID, followee_id: UUID) -> bool:
    """Insert a follow; whether it is new."""
    row = {"follower_id": follower_id, "followee_id": followee_id, "id": new_id(), "created_at": datetime.now(UTC)}
    result = await session.exec(insert(Follow).values(row).on_conflict_do_nothing())
    return result.rowcount == 1


async def remove(session: AsyncSession, follower_id: UUID, followee_id: UUID) -> bool:
    """Delete a follow; whether there was one."""
    result = await session.exec(
        delete(Follow).where(col(Follow.follower_id) == follower_id, col(Follow.followee_id) == followee_id)
    )
    return result.rowcount == 1


async def get(session: AsyncSession, follower_id: UUID, followee_id: UUID) -> Follow | None:
    """One follow."""
    return await session.get(Follow, (follower_id, followee_id))


async def count_following(session: AsyncSession, follower_id: UUID) -> int:
    """How many people a user follows."""
    query = select(func.count()).select_from(Follow).where(Follow.follower_id == follower_id)
    return (await session.exec(query)).one()


async def count_followers(session: AsyncSession, followee_id: UUID, at_most: int | None = None) -> int:
    """How many follow a user, over the index alone; counting ends at ``at_most``."""
    entries = select(col(Follow.follower_id)).where(Follow.followee_id == followee_id).limit(at_most).subquery()
    return (await session.exec(select(func.count()).select_from(entries))).one()


async def newest_followers(
    session: AsyncSession, user_id: UUID, before: UUID | None, limit: int
) -> Sequence[tuple[UUID, UUID]]:
    """Follow id and follower, newest first, older than follow ``before``."""
    query = select(Follow.id, Follow.follower_id).where(Follow.followee_id == user_id)
    return await _newest(session, query, before, limit)


async def newest_followees(
    session: AsyncSession, user_id: UUID, before: UUID | None, limit: int
) -> Sequence[tuple[UUID, UUID]]:
    """Follow id and followee, newest first, older than follow ``before``."""
    query = select(Follow.id, Follow.followee_id).where(Follow.follower_id == user_id)
    return await _newest(session, query, before, limit)


async def _newest(session: AsyncSession, query: Any, before: UUID | None, limit: int) -> Sequence[tuple[UUID, UUID]]:
    if before is not None:
        query = query.where(col(Follow.id) < before)
    rows: Sequence[tuple[UUID, UUID]] = (await session.exec(query.order_by(col(Follow.id).desc()).limit(limit))).all()
    return rows


async def followers_page(session: AsyncSession, user_id: UUID, after: UUID, limit: int) -> bytes:
    """Followers above ``after`` in id order, as concatenated 16-byte ids.

    The server joins them: one value comes over the wire and no row object is made, 5,000 times a page.
    """
    page = (
        select(col(Follow.follower_id).label("member"))
        .where(Follow.followee_id == user_id, col(Follow.follower_id) > after)
        .order_by(col(Follow.follower_id))
        .limit(limit)
        .subquery()
    )
    joined = func.string_agg(func.uuid_send(page.c.member), aggregate_order_by(_NOTHING, page.c.member))
    return (await session.exec(select(joined))).one() or b""


async def followees(session: AsyncSession, user_id: UUID) -> tuple[bytes, bytes]:
    """Everybody a user follows, as concatenated 16-byte ids: those who are no celebrities, and those who are."""
    member = func.string_agg(func.uuid_send(col(Follow.followee_id)), _NOTHING)
    query = (
        select(
            member.filter(col(Celebrity.user_id).is_(None)),
            member.filter(col(Celebrity.user_id).is_not(None)),
        )
        .select_from(Follow)
        .outerjoin(Celebrity, col(Celebrity.user_id) == col(Follow.followee_id))
        .where(Follow.follower_id == user_id)
    )
    pushed, celebrities = (await session.exec(query)).one()
    return pushed or b"", celebrities or b""


async def is_celebrity(session: AsyncSession, user_id: UUID) -> bool:
    """Whether the user is marked."""
    return await session.get(Celebrity, user_id) is not None


async def mark_celebrity(session: AsyncSession, user_id: UUID, *, celebrity: bool) -> None:
    """Mark the user or take the mark away; safe to repeat."""
    if celebrity:
        row = {"user_id": user_id, "since": datetime.now(UTC)}
        await session.exec(insert(Celebrity).values(row).on_conflict_do_nothing())
    else:
        await session.exec(delete(Celebrity).where(col(Celebrity.user_id) == user_id))


async def delete_some(session: AsyncSession, user_id: UUID, limit: int) -> int:
    """Delete up to ``limit`` follows of each side of a user; how many."""
    deleted = 0
    for side in (Follow.follower_id, Follow.followee_id):
        some = select(Follow.follower_id, Follow.followee_id).where(side == user_id).limit(limit)
        key = tuple_(col(Follow.follower_id), col(Follow.followee_id))
        deleted += (await session.exec(delete(Follow).where(key.in_(some)))).rowcount
    return deleted
