"""The follow room's SQL. Every function works in the caller's session."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from sqlalchemy import and_, delete, func, literal, or_, tuple_
from sqlalchemy import select as sa_select
from sqlalchemy.dialects.postgresql import BYTEA, aggregate_order_by, insert
from sqlmodel import col, select

from fanfold.contracts.ids import new_id
from fanfold.follow.models import Block, Celebrity, Follow, Follower, FollowRequest
from fanfold.kit.export import part

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from sqlmodel.ext.asyncio.session import AsyncSession

EXPORTED: Final = {
    "following": part(Follow, "follower_id"),
    "followers": part(Follower, "followee_id"),
    "follow-requests": part(FollowRequest, "follower_id"),
    "blocks": part(Block, "blocker_id"),
}
"""What an archive of an account has of this room."""

_NOTHING = literal(b"", BYTEA)
_PAIR_LOCK = 0x0FFC
_BLOCKER_LOCK = 0x0FFD
"""First keys of two-key advisory locks; the second is a hash of who is meant."""


async def lock_pair(session: AsyncSession, one: UUID, other: UUID) -> None:
    """Until the transaction ends nobody else changes what is between the two, whoever of them it begins with.

    First in a transaction: what it reads after it has seen all that was committed by those before. A follow that met a
    block could else be committed beside it, for neither sees a row that the other has not committed yet.
    """
    pair = "".join(sorted((str(one), str(other))))
    await session.exec(select(func.pg_advisory_xact_lock(_PAIR_LOCK, func.hashtext(pair))))


async def lock_blocker(session: AsyncSession, user_id: UUID) -> None:
    """Until the transaction ends nobody else changes whom the user blocks. Before `lock_pair`, if both are wanted."""
    await session.exec(select(func.pg_advisory_xact_lock(_BLOCKER_LOCK, func.hashtext(str(user_id)))))


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
    entries = select(col(Follower.follower_id)).where(Follower.followee_id == followee_id).limit(at_most).subquery()
    return (await session.exec(select(func.count()).select_from(entries))).one()


async def newest_followers(
    session: AsyncSession, user_id: UUID, before: UUID | None, limit: int
) -> Sequence[tuple[UUID, UUID]]:
    """Follow id and follower, newest first, older than follow ``before``."""
    query = select(Follower.id, Follower.follower_id).where(Follower.followee_id == user_id)
    return await _newest(session, query, before, limit, Follower.id)


async def newest_followees(
    session: AsyncSession, user_id: UUID, before: UUID | None, limit: int
) -> Sequence[tuple[UUID, UUID]]:
    """Follow id and followee, newest first, older than follow ``before``."""
    query = select(Follow.id, Follow.followee_id).where(Follow.follower_id == user_id)
    return await _newest(session, query, before, limit, Follow.id)


async def _newest(
    session: AsyncSession, query: Any, before: UUID | None, limit: int, identifier: Any
) -> Sequence[tuple[UUID, UUID]]:
    if before is not None:
        query = query.where(col(identifier) < before)
    rows: Sequence[tuple[UUID, UUID]] = (await session.exec(query.order_by(col(identifier).desc()).limit(limit))).all()
    return rows


async def followers_page(session: AsyncSession, user_id: UUID, after: UUID, limit: int) -> bytes:
    """Followers above ``after`` in id order, as concatenated 16-byte ids.

    The server joins them: one value comes over the wire and no row object is made, 5,000 times a page.
    """
    page = (
        select(col(Follower.follower_id).label("member"))
        .where(Follower.followee_id == user_id, col(Follower.follower_id) > after)
        .order_by(col(Follower.follower_id))
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
    """Delete up to ``limit`` follows, requests and blocks of each side of a user; how many."""
    follow = (col(Follow.follower_id), col(Follow.followee_id))
    asked = (col(FollowRequest.follower_id), col(FollowRequest.followee_id))
    blocks = (col(Block.blocker_id), col(Block.blocked_id))
    ways: list[tuple[Any, Any, Any, Any]] = [
        (Follow, follow, follow, follow[0]),
        (Follow, follow, (col(Follower.follower_id), col(Follower.followee_id)), col(Follower.followee_id)),
        *((FollowRequest, asked, asked, side) for side in asked),
        *((Block, blocks, blocks, side) for side in blocks),
    ]
    deleted = 0
    for table, key, found, side in ways:
        some = sa_select(*found).where(side == user_id).limit(limit)
        deleted += (await session.exec(delete(table).where(tuple_(*key).in_(some)))).rowcount
    return deleted


async def following_among(session: AsyncSession, user_id: UUID, others: Collection[UUID]) -> Sequence[UUID]:
    """Whom of the others the user follows."""
    query = select(Follow.followee_id).where(Follow.follower_id == user_id, col(Follow.followee_id).in_(others))
    return (await session.exec(query)).all()


async def add_request(session: AsyncSession, follower_id: UUID, followee_id: UUID) -> bool:
    """Insert a request; whether it is new."""
    row = {"follower_id": follower_id, "followee_id": followee_id, "id": new_id(), "created_at": datetime.now(UTC)}
    result = await session.exec(insert(FollowRequest).values(row).on_conflict_do_nothing())
    return result.rowcount == 1


async def remove_request(session: AsyncSession, follower_id: UUID, followee_id: UUID) -> bool:
    """Delete a request; whether there was one."""
    result = await session.exec(
        delete(FollowRequest).where(
            col(FollowRequest.follower_id) == follower_id, col(FollowRequest.followee_id) == followee_id
        )
    )
    return result.rowcount == 1


async def newest_requests(
    session: AsyncSession, user_id: UUID, before: UUID | None, limit: int
) -> Sequence[tuple[UUID, UUID]]:
    """Request id and who asks to follow the user, newest first, older than request ``before``."""
    query = select(FollowRequest.id, FollowRequest.follower_id).where(FollowRequest.followee_id == user_id)
    return await _newest(session, query, before, limit, FollowRequest.id)


async def newest_sent_requests(
    session: AsyncSession, user_id: UUID, before: UUID | None, limit: int
) -> Sequence[tuple[UUID, UUID]]:
    """Request id and whom the user asks to follow, newest first, older than request ``before``."""
    query = select(FollowRequest.id, FollowRequest.followee_id).where(FollowRequest.follower_id == user_id)
    return await _newest(session, query, before, limit, FollowRequest.id)


async def add_block(session: AsyncSession, blocker_id: UUID, blocked_id: UUID) -> bool:
    """Insert a block; whether it is new."""
    row = {"blocker_id": blocker_id, "blocked_id": blocked_id, "id": new_id(), "created_at": datetime.now(UTC)}
    result = await session.exec(insert(Block).values(row).on_conflict_do_nothing())
    return result.rowcount == 1


async def remove_block(session: AsyncSession, blocker_id: UUID, blocked_id: UUID) -> None:
    """Delete a block."""
    await session.exec(delete(Block).where(col(Block.blocker_id) == blocker_id, col(Block.blocked_id) == blocked_id))


async def get_block(session: AsyncSession, blocker_id: UUID, blocked_id: UUID) -> Block | None:
    """One block."""
    return await session.get(Block, (blocker_id, blocked_id))


async def blockers(session: AsyncSession, one: UUID, other: UUID) -> Sequence[UUID]:
    """Which of the two block each other."""
    query = select(Block.blocker_id).where(
        or_(
            and_(col(Block.blocker_id) == one, col(Block.blocked_id) == other),
            and_(col(Block.blocker_id) == other, col(Block.blocked_id) == one),
        )
    )
    return (await session.exec(query)).all()


async def newest_blocks(
    session: AsyncSession, user_id: UUID, before: UUID | None, limit: int
) -> Sequence[tuple[UUID, UUID]]:
    """Block id and whom the user blocks, newest first, older than block ``before``."""
    query = select(Block.id, Block.blocked_id).where(Block.blocker_id == user_id)
    return await _newest(session, query, before, limit, Block.id)


async def blocked(session: AsyncSession, user_ids: Collection[UUID]) -> dict[UUID, bytes]:
    """Whom each of the users blocks, as concatenated 16-byte ids."""
    joined = func.string_agg(func.uuid_send(col(Block.blocked_id)), _NOTHING)
    query = select(Block.blocker_id, joined).where(col(Block.blocker_id).in_(user_ids)).group_by(col(Block.blocker_id))
    found = dict((await session.exec(query)).all())
    return {user_id: found.get(user_id, b"") for user_id in user_ids}
