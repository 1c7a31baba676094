"""Accounts and sessions: what may be done, in which order, and what others are told of it."""

from __future__ import annotations

import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from fanfold.contracts.events import AccountDeleted, PrivacyChanged
from fanfold.kit.db import IntegrityError, SQLAlchemyError
from fanfold.kit.errors import Conflict, Forbidden, NotFound, Unauthorized
from fanfold.kit.logging import get_logger
from fanfold.kit.outbox import Outbox
from fanfold.kit.preconditions import Precondition, entity_tag
from fanfold.profile import passwords, repository
from fanfold.profile.models import Session, User, outbox
from fanfold.profile.throttle import Attempt
from fanfold.profile.tokens import RefreshToken

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Mapping, Sequence
    from uuid import UUID

    from sqlmodel.ext.asyncio.session import AsyncSession

    from fanfold.kit.db import Database
    from fanfold.kit.keyring import Keyring
    from fanfold.kit.moderation import Desk
    from fanfold.profile.directory import Directory
    from fanfold.profile.passwords import Hasher
    from fanfold.profile.pictures import Pictures
    from fanfold.profile.revocations import Revocations
    from fanfold.profile.schemas import PasswordChange
    from fanfold.profile.settings import ProfileSettings
    from fanfold.profile.throttle import LoginThrottle
    from fanfold.profile.tokens import AccessTokens

log = get_logger(__name__)

ENDED_SESSIONS_DAYS = 30
"""How long an ended session is kept for its user to see."""


ANYTHING = Precondition()


@dataclass(frozen=True, slots=True)
class Issued:
    """What a login or refresh gives."""

    access_token: str
    expires_in: int
    refresh_token: str
    user_id: UUID


@dataclass(frozen=True, slots=True)
class Parts:
    """What the services work with."""

    settings: ProfileSettings
    database: Database
    directory: Directory
    hasher: Hasher
    throttle: LoginThrottle
    tokens: AccessTokens
    refresh_keys: Keyring
    revocations: Revocations
    pictures: Pictures
    desk: Desk


class Accounts:
    """Users: made, changed, looked up, deleted."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._database = parts.database
        self._outbox = Outbox(outbox)

    async def register(self, user_id: UUID, username: str, password: str, display_name: str | None) -> User:
        """A new account with this id, or the one that an earlier attempt made.

        Raises:
            Unprocessable: The password is too weak.
            Conflict: The username is taken.
        """
        passwords.check(password, username)
        password_hash = await self._parts.hasher.hash(password)
        user = User(id=user_id, username=username, display_name=display_name or username, created_at=_now())
        try:
            async with self._database.transaction() as session:
                await repository.add_user(session, user, password_hash)
        except IntegrityError as error:
            async with self._database.reading() as session:
                made = await repository.get_user(session, user_id)
            if made is None:
                raise Conflict(f"The username {username} is taken; try another.", kind="username-taken") from error
            return made
        return user

    async def get(self, user_id: UUID) -> User:
        """One user; NotFound if there is none."""
        async with self._database.reading() as session:
            return _found(await repository.get_user(session, user_id))

    async def named(self, usernames: Collection[str]) -> Sequence[User]:
        """Users by name, in no order; unknown names are left out."""
        async with self._database.reading() as session:
            return await repository.get_users_named(session, {name.lower() for name in usernames})

    async def blobs(self, user_ids: Collection[UUID]) -> dict[bytes, bytes]:
        """Packed users by id, put into Valkey where missing."""
        async with self._database.reading() as session:
            users = await repository.get_users(session, user_ids)
        return await self._parts.directory.refill(users)

    async def change(self, user_id: UUID, values: Mapping[str, str | bool], expected: Precondition = ANYTHING) -> User:
        """Change these fields.

        Raises:
            NotFound: There is no such user.
            PreconditionFailed: The profile is not as expected.
        """
        async with self._changing(user_id) as (session, user):
            expected.check(revision(user))
            was_private = user.private
            for field, value in values.items():
                setattr(user, field, value)
            if user.private != was_private:
                changed_ms = int(time.time() * 1000)
                event = PrivacyChanged(user_id=user_id, private=user.private, changed_ms=changed_ms)
                await self._outbox.add(session, event)
        return user

    async def set_picture(self, user_id: UUID, image_id: UUID) -> User:
        """Show one of the user's own images as their picture.

        Raises:
            PeerProblem: No such image, not theirs, or it failed (422).
            Unavailable: The image service does not answer.
        """
        path = await self._parts.pictures.claim(user_id, image_id)
        async with self._changing(user_id) as (_, user):
            user.picture_id, user.picture_path = image_id, path
        # Ready between the claim and our commit: then its event found nothing to complete.
        return user if path else await self.complete_picture(user_id, image_id) or user

    async def complete_picture(self, user_id: UUID, image_id: UUID) -> User | None:
        """Take the path of a picture whose variants may be there now; None if there was nothing to take."""
        async with self._database.reading() as session:
            known = await repository.get_user(session, user_id)
        if known is None or known.picture_id != image_id or known.picture_path:
            return None
        path = await self._parts.pictures.path(image_id)
        async with self._changing(user_id) as (_, user):
            if user.picture_id == image_id:
                user.picture_path = path
        return user

    async def remove_picture(self, user_id: UUID) -> None:
        """Show none; done as well if there was none."""
        async with self._changing(user_id) as (_, user):
            user.picture_id, user.picture_path = None, ""

    async def delete(self, user_id: UUID, password: str, address: str) -> None:
        """Delete the account; every service is told to remove what it holds.

        Raises:
            Forbidden: The password is wrong.
            TooManyRequests: Too many wrong ones.
        """
        async with self._database.reading() as session:
            user = _found(await repository.get_user(session, user_id))
            credential = await repository.get_credential(session, user_id)
        attempt = Attempt(user.username, address)
        await self._parts.throttle.take(attempt)
        matches, _ = await self._parts.hasher.verify(password, credential.password_hash if credential else None)
        if not matches:
            raise _wrong_password()
        await self._parts.throttle.succeed(attempt)
        async with self._locked(user_id) as (session, _):
            await self._outbox.add(session, AccountDeleted(user_id=user_id))
            # Before the commit: if nobody can be told, nothing is deleted; told for nothing is a new login at worst.
            await self._parts.revocations.announce(
                [item.id for item in await repository.get_sessions(session, user_id)]
            )
            await self._parts.desk.forget_reporter(session, user_id)
            await repository.delete_user(session, user_id)
            await self._parts.directory.bury(user_id)

    @asynccontextmanager
    async def _locked(self, user_id: UUID) -> AsyncIterator[tuple[AsyncSession, User]]:
        """A transaction that holds the user's row. If it fails, the directory forgets what it was told."""
        try:
            async with self._database.transaction() as session:
                yield session, _found(await repository.get_user(session, user_id, lock=True))
        except SQLAlchemyError:
            await self._parts.directory.forget(user_id)
            raise

    @asynccontextmanager
    async def _changing(self, user_id: UUID) -> AsyncIterator[tuple[AsyncSession, User]]:
        """The user's row, locked; what the block changes is committed and put into the directory."""
        async with self._locked(user_id) as (session, user):
            yield session, user
            await session.flush()
            await self._parts.directory.put(user)


class Sessions:
    """Logins and what keeps them alive."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._database = parts.database
        self._life = timedelta(days=parts.settings.session_days)

    async def login(self, session_id: UUID, username: str, password: str, address: str) -> Issued:
        """A new session with this id, in the place of one whose tokens an earlier attempt could not hand out.

        Raises:
            Unauthorized: Wrong; whether the username exists cannot be told from the answer or the time it takes.
            TooManyRequests: Too many failures.
        """
        attempt = Attempt(username.lower(), address)
        await self._parts.throttle.take(attempt)
        while True:
            async with self._database.reading() as session:
                credential = await repository.find_credential(session, attempt.username)
            known = credential.password_hash if credential else None
            matches, renewed = await self._parts.hasher.verify(password, known)
            if credential is None or known is None or not matches:
                raise _wrong()
            user_id = credential.user_id
            try:
                async with self._database.transaction() as session:
                    if not await repository.still_has_hash(session, user_id, known):
                        continue  # changed while it was verified, or deleted: looked at anew
                    if renewed is not None:
                        await repository.set_password_hash(session, user_id, renewed)
                    issued = await self._open(session, user_id, session_id)
            except IntegrityError as error:  # deleted meanwhile
                raise _wrong() from error
            await self._parts.throttle.succeed(attempt)
            return issued

    async def refresh(self, attempt_id: UUID, text: str) -> Issued:
        """New tokens for an old refresh token, which is good no more but for this attempt.

        An old token of the session that comes again was stolen, or the new one was: the session ends for both
        (RFC 9700, section 4.14.2).

        Raises:
            Unauthorized: Not a good token.
        """
        old = RefreshToken.parse(text)
        if old is None:
            raise _ended()
        now = _now()
        new = old.next(self._parts.refresh_keys, attempt_id)
        async with self._database.transaction() as session:
            if await repository.rotate_session(session, old=old, new=new, now=now, expires_at=now + self._life):
                return self._issue(new, now, await repository.role_of(session, old.user_id))
            known = await repository.get_session(session, old.user_id, old.session_id)
            alive = known is not None and known.revoked_at is None and known.expires_at > now
            if alive and known is not None and old.belongs_to(known.family_hash):
                if new.is_good(known.refresh_hash):  # this attempt was carried out, and its answer lost
                    return self._issue(new, now, await repository.role_of(session, old.user_id))
                await repository.revoke_session(session, old.user_id, old.session_id, now)
                await self._parts.revocations.announce([old.session_id])
                log.warning("refresh_reused", session_id=str(old.session_id))
        raise _ended()

    async def change_password(self, user_id: UUID, session_id: UUID, change: PasswordChange, address: str) -> None:
        """Take another password. All sessions end but the one that asks.

        Raises:
            Forbidden: The current password is wrong.
            Unprocessable: The new one is too weak.
            TooManyRequests: Too many wrong ones.
        """
        async with self._database.reading() as session:
            user = _found(await repository.get_user(session, user_id))
            credential = await repository.get_credential(session, user_id)
        new = change.new_password.get_secret_value()
        passwords.check(new, user.username)
        attempt = Attempt(user.username, address)
        await self._parts.throttle.take(attempt)
        known = credential.password_hash if credential else None
        matches, _ = await self._parts.hasher.verify(change.current_password.get_secret_value(), known)
        if known is None or not matches:
            raise _wrong_password()
        await self._parts.throttle.succeed(attempt)
        password_hash = await self._parts.hasher.hash(new)
        async with self._database.transaction() as session:
            if not await repository.still_has_hash(session, user_id, known):
                raise _wrong_password()  # somebody was faster
            await repository.set_password_hash(session, user_id, password_hash)
            ended = await repository.revoke_all(session, user_id, _now(), but=session_id)
            await self._parts.revocations.announce(ended)
        log.info("password_changed", user_id=str(user_id), sessions_ended=len(ended))

    async def active(self, user_id: UUID) -> list[Session]:
        """The user's sessions that have not ended, newest first."""
        now = _now()
        async with self._database.reading() as session:
            stored = await repository.get_sessions(session, user_id)
        return [item for item in reversed(stored) if item.revoked_at is None and item.expires_at > now]

    async def logout_everywhere(self, user_id: UUID) -> None:
        """End all sessions of a user, as `logout` ends one. Safe to repeat."""
        async with self._database.transaction() as session:
            ended = await repository.revoke_all(session, user_id, _now(), but=None)
            await self._parts.revocations.announce(ended)

    async def logout(self, user_id: UUID, session_id: UUID) -> None:
        """End a session: its refresh token at once, its access tokens when gateways have heard. Safe to repeat."""
        async with self._database.transaction() as session:
            await repository.revoke_session(session, user_id, session_id, _now())
            await self._parts.revocations.announce([session_id])

    async def _open(self, session: AsyncSession, user_id: UUID, session_id: UUID) -> Issued:
        now = _now()
        token = RefreshToken.new(user_id, session_id)
        await repository.delete_ended_sessions(session, user_id, now - timedelta(days=ENDED_SESSIONS_DAYS))
        surplus = await repository.revoke_beyond(session, user_id, self._parts.settings.sessions_per_user - 1, now)
        await self._parts.revocations.announce(surplus)
        await session.merge(
            Session(
                user_id=user_id,
                id=token.session_id,
                family_hash=token.family_hash,
                refresh_hash=token.secret_hash,
                created_at=now,
                refreshed_at=now,
                expires_at=now + self._life,
            )
        )
        return self._issue(token, now, await repository.role_of(session, user_id))

    def _issue(self, token: RefreshToken, now: datetime, role: str) -> Issued:
        tokens = self._parts.tokens
        return Issued(
            access_token=tokens.sign(token.user_id, token.session_id, int(now.timestamp()), role),
            expires_in=tokens.lifetime,
            refresh_token=str(token),
            user_id=token.user_id,
        )


def revision(user: User) -> str:
    """Tag of what a user may edit of their profile."""
    return entity_tag(user.display_name, user.bio, user.private, user.picture_id)


def _now() -> datetime:
    return datetime.fromtimestamp(time.time(), UTC)


def _found(user: User | None) -> User:
    if user is None:
        raise NotFound("There is no such user.")
    return user


def _wrong() -> Unauthorized:
    return Unauthorized("The username or the password is wrong.", kind="wrong-credentials")


def _wrong_password() -> Forbidden:
    return Forbidden("The password is wrong; everything stays as it is.", kind="wrong-password")


def _ended() -> Unauthorized:
    return Unauthorized("This refresh token is not good any more; log in again.", kind="session-ended")
