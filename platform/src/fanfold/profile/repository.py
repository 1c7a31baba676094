"""The profile room's SQL. Every function works in the caller's session."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import delete, or_, update
from sqlmodel import col, select

from fanfold.kit.export import part
from fanfold.profile.models import Credential, Session, User, report

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime
    from uuid import UUID

    from sqlmodel.ext.asyncio.session import AsyncSession

    from fanfold.profile.tokens import RefreshToken


EXPORTED: Final = {
    "user": part(User, "id"),
    "sessions": part(Session, "user_id", without=("family_hash", "refresh_hash")),
    "reports-of-users": part(report, "reporter_id"),
}
"""What an archive of an account has of this room."""


async def add_user(session: AsyncSession, user: User, password_hash: str) -> None:
    """Insert a user.

    Raises:
        IntegrityError: The username is taken.
    """
    session.add(user)
    await session.flush()
    session.add(Credential(user_id=user.id, password_hash=password_hash))
    await session.flush()


async def get_user(session: AsyncSession, user_id: UUID, *, lock: bool = False) -> User | None:
    """One user; with ``lock`` nobody else changes the row until the transaction ends."""
    return await session.get(User, user_id, with_for_update=lock)


async def get_users(session: AsyncSession, user_ids: Collection[UUID]) -> Sequence[User]:
    """Those that exist and are not hidden, in no order."""
    query = select(User).where(col(User.id).in_(user_ids), col(User.hidden_at).is_(None))
    return (await session.exec(query)).all()


async def get_users_named(session: AsyncSession, usernames: Collection[str]) -> Sequence[User]:
    """Those that exist and are not hidden, in no order."""
    query = select(User).where(col(User.username).in_(usernames), col(User.hidden_at).is_(None))
    return (await session.exec(query)).all()


async def get_user_named(session: AsyncSession, username: str) -> User | None:
    """One user, hidden or not; nobody else changes the row until the transaction ends."""
    return (await session.exec(select(User).where(User.username == username).with_for_update())).one_or_none()


async def with_roles(session: AsyncSession) -> Sequence[User]:
    """Users that have a role, by name: a few."""
    return (await session.exec(select(User).where(User.role != "").order_by(User.username))).all()


async def role_of(session: AsyncSession, user_id: UUID) -> str:
    """The user's role; empty for most."""
    return (await session.exec(select(User.role).where(User.id == user_id))).one_or_none() or ""


async def get_credential(session: AsyncSession, user_id: UUID) -> Credential | None:
    """How the user logs in."""
    return await session.get(Credential, user_id)


async def find_credential(session: AsyncSession, username: str) -> Credential | None:
    """How the user of this name logs in."""
    query = select(Credential).join(User, col(User.id) == col(Credential.user_id)).where(User.username == username)
    return (await session.exec(query)).one_or_none()


async def still_has_hash(session: AsyncSession, user_id: UUID, password_hash: str) -> bool:
    """Whether this is the user's hash now; then it stays so until the transaction ends.

    A login verifies for tens of milliseconds: without this one with the old password could begin a session after a
    change of the password has ended all others.
    """
    query = select(Credential.user_id).where(Credential.user_id == user_id, Credential.password_hash == password_hash)
    return (await session.exec(query.with_for_update())).first() is not None


async def set_password_hash(session: AsyncSession, user_id: UUID, password_hash: str) -> None:
    """Replace the hash: of the same password (its parameters were out of date), or of another."""
    await session.exec(update(Credential).where(col(Credential.user_id) == user_id).values(password_hash=password_hash))


async def delete_user(session: AsyncSession, user_id: UUID) -> None:
    """Delete the user with password and sessions."""
    await session.exec(delete(User).where(col(User.id) == user_id))


async def get_sessions(session: AsyncSession, user_id: UUID) -> Sequence[Session]:
    """All sessions of a user that are still stored, oldest first."""
    return (await session.exec(select(Session).where(Session.user_id == user_id).order_by(col(Session.id)))).all()


async def get_session(session: AsyncSession, user_id: UUID, session_id: UUID) -> Session | None:
    """One session."""
    return await session.get(Session, (user_id, session_id))


async def rotate_session(
    session: AsyncSession, *, old: RefreshToken, new: RefreshToken, now: datetime, expires_at: datetime
) -> bool:
    """Put ``new`` in the place of ``old``; whether ``old`` was the good token of a session still alive.

    Of two that try at once with one token, one succeeds: the other waits for the row and finds it changed.
    """
    result = await session.exec(
        update(Session)
        .where(
            col(Session.user_id) == old.user_id,
            col(Session.id) == old.session_id,
            col(Session.family_hash) == old.family_hash,
            col(Session.refresh_hash) == old.secret_hash,
            col(Session.revoked_at).is_(None),
            col(Session.expires_at) > now,
        )
        .values(refresh_hash=new.secret_hash, refreshed_at=now, expires_at=expires_at)
    )
    return result.rowcount == 1


async def revoke_session(session: AsyncSession, user_id: UUID, session_id: UUID, now: datetime) -> None:
    """End one session; one that has ended keeps its first moment."""
    await session.exec(
        update(Session)
        .where(col(Session.user_id) == user_id, col(Session.id) == session_id, col(Session.revoked_at).is_(None))
        .values(revoked_at=now)
    )


async def revoke_all(session: AsyncSession, user_id: UUID, now: datetime, *, but: UUID | None) -> Sequence[UUID]:
    """End all sessions but one; which ended."""
    result = await session.exec(
        update(Session)
        .where(
            col(Session.user_id) == user_id, col(Session.id).is_distinct_from(but), col(Session.revoked_at).is_(None)
        )
        .values(revoked_at=now)
        .returning(col(Session.id))
    )
    return [session_id for (session_id,) in result.all()]


async def revoke_beyond(session: AsyncSession, user_id: UUID, keep: int, now: datetime) -> Sequence[UUID]:
    """End all but the ``keep`` most lately refreshed sessions; which ended."""
    surplus = (
        select(Session.id)
        .where(Session.user_id == user_id, col(Session.revoked_at).is_(None))
        .order_by(col(Session.refreshed_at).desc(), col(Session.id).desc())
        .offset(keep)
    )
    result = await session.exec(
        update(Session)
        .where(col(Session.user_id) == user_id, col(Session.id).in_(surplus))
        .values(revoked_at=now)
        .returning(col(Session.id))
    )
    return [session_id for (session_id,) in result.all()]


async def revoked_since(session: AsyncSession, moment: datetime) -> Sequence[tuple[UUID, datetime]]:
    """Sessions revoked after ``moment``, and when."""
    query = select(Session.id, Session.revoked_at).where(col(Session.revoked_at) > moment)
    return [(session_id, revoked_at) for session_id, revoked_at in await session.exec(query) if revoked_at is not None]


async def delete_ended_sessions(session: AsyncSession, user_id: UUID, before: datetime) -> None:
    """Delete the user's sessions that were revoked or expired before ``before``."""
    await session.exec(
        delete(Session).where(
            col(Session.user_id) == user_id,
            or_(col(Session.revoked_at) < before, col(Session.expires_at) < before),
        )
    )
