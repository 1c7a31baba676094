"""Who may moderate, and what hiding an account means: to everybody else it is as good as deleted, until it is shown.

A hidden account has the tombstone of a deleted one in the directory, which every read of users, and of what they
wrote, obeys. It still logs in, sees its own profile, exports and deletes what it has; it cannot post or comment.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from fanfold.contracts.events import AccountShown
from fanfold.kit.audience import Standing
from fanfold.kit.db import SQLAlchemyError
from fanfold.kit.errors import Conflict, NotFound
from fanfold.kit.moderation import HIDE, SHOW
from fanfold.kit.outbox import Outbox
from fanfold.profile import repository
from fanfold.profile.models import outbox

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from sqlmodel.ext.asyncio.session import AsyncSession

    from fanfold.kit.audience import Audience
    from fanfold.kit.db import Database
    from fanfold.kit.moderation import Desk
    from fanfold.profile.directory import Directory
    from fanfold.profile.models import User
    from fanfold.profile.revocations import Revocations


class AccountModeration:
    """Hides accounts and shows them again."""

    def __init__(self, database: Database, directory: Directory, desk: Desk, audience: Audience) -> None:
        self._database = database
        self._directory = directory
        self._desk = desk
        self._audience = audience
        self._outbox = Outbox(outbox)

    async def check(self, viewer: UUID, subject_id: UUID) -> None:
        """Refuse who cannot see the account.

        Raises:
            NotFound: There is none, as far as the viewer is told.
        """
        if (await self._audience.standings(viewer, (subject_id,)))[subject_id] is Standing.ABSENT:
            raise _not_found()

    async def find(self, user_id: UUID) -> User:
        """One account, hidden or not; NotFound if there is none."""
        async with self._database.reading() as session:
            user = await repository.get_user(session, user_id)
        if user is None:
            raise _not_found()
        return user

    async def hide(self, moderator_id: UUID, subject_id: UUID, reason: str) -> None:
        """No read that begins after this returns shows the account or anything it wrote. Safe to repeat.

        Raises:
            NotFound: No such account.
            Conflict: It has a role.
        """
        try:
            async with self._database.transaction() as session:
                user = await _locked(session, subject_id)
                if user.role:
                    raise Conflict(f"The account is a {user.role}: its role goes first.", kind="has-a-role")
                if user.hidden_at is None:
                    user.hidden_at = datetime.now(UTC)
                    await self._desk.record(session, moderator_id, HIDE, subject_id, reason)
                await self._directory.bury(subject_id)
        except SQLAlchemyError:
            await self._directory.forget(subject_id)
            raise

    async def show(self, moderator_id: UUID, subject_id: UUID, reason: str) -> None:
        """Reads show the account again; feeds when they were rebuilt. Safe to repeat.

        Raises:
            NotFound: No such account.
        """
        try:
            async with self._database.transaction() as session:
                user = await _locked(session, subject_id)
                if user.hidden_at is None:
                    return
                user.hidden_at = None
                await self._desk.record(session, moderator_id, SHOW, subject_id, reason)
                await self._outbox.add(session, AccountShown(user_id=subject_id))
                await self._directory.put(user)
        except SQLAlchemyError:
            await self._directory.forget(subject_id)
            raise


class Roles:
    """Gives and takes roles: a command of the operators, no route. Both stand in the log, without a moderator."""

    def __init__(self, database: Database, revocations: Revocations, desk: Desk) -> None:
        self._database = database
        self._revocations = revocations
        self._desk = desk

    async def grant(self, username: str, role: str, reason: str) -> None:
        """Give a role; tokens have it from the next login or refresh on.

        Raises:
            NotFound: No such user.
            Conflict: The account is hidden.
        """
        async with self._database.transaction() as session:
            user = await _named(session, username)
            if user.hidden_at is not None:
                raise Conflict(f"The account {username} is hidden.")
            if user.role != role:
                user.role = role
                await self._desk.record(session, None, "grant", user.id, reason)

    async def revoke(self, username: str, reason: str) -> None:
        """Take the role, and end all sessions: no token has it any more, within 10 s.

        Raises:
            NotFound: No such user.
            ValkeyUnavailableError: Gateways could not be told; nothing was changed.
        """
        async with self._database.transaction() as session:
            user = await _named(session, username)
            if not user.role:
                return
            user.role = ""
            await self._desk.record(session, None, "revoke", user.id, reason)
            now = datetime.fromtimestamp(time.time(), UTC)
            await self._revocations.announce(await repository.revoke_all(session, user.id, now, but=None))

    async def holders(self) -> Sequence[User]:
        """Users with a role, by name."""
        async with self._database.reading() as session:
            return await repository.with_roles(session)


async def _locked(session: AsyncSession, user_id: UUID) -> User:
    user = await repository.get_user(session, user_id, lock=True)
    if user is None:
        raise _not_found()
    return user


async def _named(session: AsyncSession, username: str) -> User:
    user = await repository.get_user_named(session, username.lower())
    if user is None:
        raise NotFound(f"There is no user {username}.")
    return user


def _not_found() -> NotFound:
    return NotFound("There is no such user.", kind="user-not-found")
