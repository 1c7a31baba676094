"""The only SQL of the notification room."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy import Table, delete, func, select
from sqlalchemy.dialects.postgresql import insert

from fanfold.contracts.ids import new_id
from fanfold.kit.export import Part, part
from fanfold.notification.models import Muted, Notification, ReadMarker

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import ColumnElement, Row, Select
    from sqlmodel.ext.asyncio.session import AsyncSession

    from fanfold.notification.drafts import Draft

UNREAD_LIMIT: Final = 100
"""Counting stops here: nobody reads the difference, and a celebrity has millions."""
NONE: Final = UUID(int=0)
_LOCK_CLASS: Final = 0x0FFB  # first key of the two-key advisory lock; the second is the user's hash

_notification: Table = Notification.metadata.tables["notification.notification"]
_muted: Table = Muted.metadata.tables["notification.muted"]
_marker: Table = ReadMarker.metadata.tables["notification.read_marker"]


EXPORTED: Final = {
    "notifications": part(_notification, "user_id"),
    # A few rows, which one page holds: their key need not tell them apart.
    "muted": Part(lambda user_id: select(_muted).where(_muted.c.user_id == user_id), _muted.c.user_id),
}
"""What an archive of an account has of this room."""


class State(NamedTuple):
    """Where a user stands: the newest notification and the newest seen, `NONE` where there is none."""

    newest: UUID
    up_to: UUID


async def add(session: AsyncSession, draft: Draft, created_at: datetime) -> Row[Any]:
    """Insert one notification; the row, or that of before if it was told before.

    Writers of one user take turns, and each takes an id above the last one committed: a reader who has seen an id has
    seen, or can no longer be overtaken by, all below it. Without that, a notification whose writer commits late, or
    whose clock is behind, would be skipped by a reader who resumes after a newer one.
    """
    connection = await session.connection()
    await connection.execute(select(func.pg_advisory_xact_lock(_LOCK_CLASS, func.hashtext(str(draft.user_id)))))
    last = (await state(session, draft.user_id)).newest
    identifier = new_id()
    if identifier <= last:
        identifier = UUID(int=last.int + 1)
    statement = (
        insert(_notification)
        .values(id=identifier, created_at=created_at, **draft._asdict())
        .on_conflict_do_nothing(constraint="notification_once")
        .returning(*_notification.c)
    )
    added = (await connection.execute(statement)).one_or_none()
    return added or (await connection.execute(_told(draft))).one()


async def trim(session: AsyncSession, user_id: UUID, before: UUID) -> None:
    """Delete what a user was told below an id: one range of the primary key, mostly empty."""
    connection = await session.connection()
    columns = _notification.c
    await connection.execute(delete(_notification).where(columns.user_id == user_id, columns.id < before))


def _told(draft: Draft) -> Select[Any]:
    columns = _notification.c
    return select(_notification).where(
        columns.user_id == draft.user_id,
        columns.kind == draft.kind,
        columns.actor_id == draft.actor_id,
        columns.subject_id == draft.subject_id,
    )


async def page(session: AsyncSession, user_id: UUID, before: UUID | None, limit: int) -> list[Row[Any]]:
    """Newest first, below ``before``."""
    column = _notification.c.id
    return await _read(session, user_id, limit, column.desc(), None if before is None else column < before)


async def after(session: AsyncSession, user_id: UUID, seen: UUID, limit: int) -> list[Row[Any]]:
    """Oldest first, above ``seen``."""
    column = _notification.c.id
    return await _read(session, user_id, limit, column.asc(), column > seen)


async def _read(
    session: AsyncSession,
    user_id: UUID,
    limit: int,
    order: ColumnElement[Any],
    bound: ColumnElement[bool] | None,
) -> list[Row[Any]]:
    statement = select(_notification).where(_notification.c.user_id == user_id).order_by(order).limit(limit)
    if bound is not None:
        statement = statement.where(bound)
    connection = await session.connection()
    return list((await connection.execute(statement)).all())


async def state(session: AsyncSession, user_id: UUID) -> State:
    """One row of two index lookups: cheap enough for every poll."""
    newest = (
        select(_notification.c.id)
        .where(_notification.c.user_id == user_id)
        .order_by(_notification.c.id.desc())
        .limit(1)
        .scalar_subquery()
    )
    seen = select(_marker.c.up_to).where(_marker.c.user_id == user_id).scalar_subquery()
    connection = await session.connection()
    found = (await connection.execute(select(newest, seen))).one()
    return State(found[0] or NONE, found[1] or NONE)


async def unread(session: AsyncSession, user_id: UUID, up_to: UUID) -> int:
    """Notifications above ``up_to``, `UNREAD_LIMIT` at most."""
    above = (
        select(_notification.c.id)
        .where(_notification.c.user_id == user_id, _notification.c.id > up_to)
        .limit(UNREAD_LIMIT)
        .subquery()
    )
    connection = await session.connection()
    count: int = (await connection.execute(select(func.count()).select_from(above))).scalar_one()
    return count


async def mark_read(session: AsyncSession, user_id: UUID, up_to: UUID) -> None:
    """Move the marker forward; never back."""
    statement = insert(_marker).values(user_id=user_id, up_to=up_to)
    greatest = func.greatest(_marker.c.up_to, statement.excluded.up_to)
    connection = await session.connection()
    await connection.execute(statement.on_conflict_do_update(index_elements=["user_id"], set_={"up_to": greatest}))


async def muted(session: AsyncSession, user_id: UUID) -> set[str]:
    """Kinds of which the user wants to hear nothing."""
    connection = await session.connection()
    found = await connection.execute(select(_muted.c.kind).where(_muted.c.user_id == user_id))
    return set(found.scalars())


async def mute(session: AsyncSession, user_id: UUID, kind: str, *, wanted: bool) -> None:
    """Mute a kind, or hear of it again; safe to repeat."""
    connection = await session.connection()
    if wanted:
        await connection.execute(delete(_muted).where(_muted.c.user_id == user_id, _muted.c.kind == kind))
    else:
        await connection.execute(insert(_muted).values(user_id=user_id, kind=kind).on_conflict_do_nothing())


async def forget_post(session: AsyncSession, post_id: UUID) -> None:
    """Remove what was told of a post."""
    connection = await session.connection()
    await connection.execute(delete(_notification).where(_notification.c.post_id == post_id))


async def forget_pair(session: AsyncSession, one: UUID, other: UUID) -> None:
    """Remove what was told to either of two of the other."""
    columns = _notification.c
    connection = await session.connection()
    for user_id, actor_id in ((one, other), (other, one)):
        await connection.execute(delete(_notification).where(columns.user_id == user_id, columns.actor_id == actor_id))


async def forget_user(session: AsyncSession, user_id: UUID) -> None:
    """Remove what was told to a user and of a user."""
    connection = await session.connection()
    await connection.execute(delete(_notification).where(_notification.c.user_id == user_id))
    await connection.execute(delete(_notification).where(_notification.c.actor_id == user_id))
    await connection.execute(delete(_marker).where(_marker.c.user_id == user_id))
    await connection.execute(delete(_muted).where(_muted.c.user_id == user_id))
