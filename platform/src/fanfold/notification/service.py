"""What users read of their notifications, and what events make of them."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, NamedTuple
from uuid import UUID

from fanfold.contracts import events, internal, keys
from fanfold.contracts.ids import first_id
from fanfold.kit.errors import Unprocessable
from fanfold.notification import repository
from fanfold.notification.drafts import draft, mentions
from fanfold.notification.schemas import Notification, NotificationPage, Preferences

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from fanfold.kit.audience import Audience
    from fanfold.kit.db import Database, Row
    from fanfold.kit.fanin import FanIn
    from fanfold.kit.pagination import CursorCodec
    from fanfold.kit.peers import Peers
    from fanfold.kit.users import Users
    from fanfold.notification.drafts import Draft
    from fanfold.notification.push import Pushes
    from fanfold.notification.repository import State
    from fanfold.notification.schemas import PreferencesChange


REPEAT: Final = timedelta(minutes=5)
"""An event that comes again within this was perhaps committed, but not pushed, by a worker that died: so it is pushed
again. Listeners drop what they have by its id."""


class Asked(NamedTuple):
    """One request for the list: newest first below ``cursor``, or oldest first above ``after``."""

    user_id: UUID
    limit: int
    cursor: str | None = None
    after: UUID | None = None


class Inbox:
    """The reading side.

    Args:
        fan_in: Hears users' channels, for long polls.
    """

    def __init__(
        self, database: Database, users: Users, audience: Audience, cursors: CursorCodec, fan_in: FanIn
    ) -> None:
        self._database = database
        self._users = users
        self._audience = audience
        self._cursors = cursors
        self._fan_in = fan_in

    async def state(self, user_id: UUID) -> State:
        """Equal states give equal lists, but for names that changed and notifications that went."""
        async with self._database.reading() as session:
            return await repository.state(session, user_id)

    async def read(self, asked: Asked) -> NotificationPage:
        """One page.

        Raises:
            BadRequest: Not a cursor of this list.
        """
        before = self._cursors.decode(asked.cursor)
        if before is not None:  # below what is new; the list's top and what comes after an id miss nothing committed
            rows = await self._database.browse(
                lambda session: repository.page(session, asked.user_id, before, asked.limit + 1)
            )
        async with self._database.reading() as session:
            if asked.after is not None:
                rows = await repository.after(session, asked.user_id, asked.after, asked.limit)
            elif before is None:
                rows = await repository.page(session, asked.user_id, before, asked.limit + 1)
            up_to = (await repository.state(session, asked.user_id)).up_to
            unread = await repository.unread(session, asked.user_id, up_to)
        shown = rows[: asked.limit]
        following = self._cursors.encode(shown[-1].id) if len(rows) > asked.limit else None
        # Blocks take out what was told before them; what was being told meanwhile is left out here.
        apart = await self._audience.apart(asked.user_id, [row.actor_id for row in shown])
        items = await show(self._users, [row for row in shown if row.actor_id not in apart], up_to)
        return NotificationPage(items=items, next_cursor=following, unread=unread)

    async def wait(self, user_id: UUID, seen: State, seconds: float) -> None:
        """Until the user's state is no longer ``seen``, or ``seconds`` have passed."""
        ear = _Ear()
        channel = keys.notifications(user_id)
        self._fan_in.listen(channel, ear)
        try:
            async with asyncio.timeout(seconds):
                while True:
                    await ear.heard.wait()
                    ear.heard.clear()
                    if await self.state(user_id) != seen:
                        return
        except TimeoutError:
            return
        finally:
            self._fan_in.leave(channel, ear)

    async def mark_read(self, user_id: UUID, up_to: UUID) -> None:
        """Everything up to ``up_to`` was seen.

        Raises:
            Unprocessable: It is above the newest notification: what is not there yet was not seen.
        """
        async with self._database.transaction() as session:
            if up_to > (await repository.state(session, user_id)).newest:
                raise Unprocessable("up_to is newer than your newest notification: send the id of one you have seen.")
            await repository.mark_read(session, user_id, up_to)

    async def preferences(self, user_id: UUID) -> Preferences:
        """Which kinds the user wants to be told of."""
        async with self._database.reading() as session:
            muted = await repository.muted(session, user_id)
        return Preferences(**dict.fromkeys(muted & Preferences.model_fields.keys(), False))

    async def prefer(self, user_id: UUID, change: PreferencesChange) -> Preferences:
        """Change some of it; it counts for what happens from here on."""
        async with self._database.transaction() as session:
            for kind, wanted in change.model_dump(exclude_none=True).items():
                await repository.mute(session, user_id, kind, wanted=wanted)
        return await self.preferences(user_id)


class _Ear:
    """Wakes a long poll: when the channel is open, for what came just before, and by each message."""

    def __init__(self) -> None:
        self.heard = asyncio.Event()

    def on_subscribed(self) -> None:
        self.heard.set()

    def on_published(self, _: bytes) -> None:
        self.heard.set()


class Notifier:
    """The writing side: rows for those an event concerns, then a push to who is there."""

    def __init__(  # noqa: PLR0913, PLR0917 - what it works with
        self, database: Database, users: Users, audience: Audience, peers: Peers, pushes: Pushes, keep: timedelta
    ) -> None:
        self._database = database
        self._users = users
        self._audience = audience
        self._peers = peers
        self._pushes = pushes
        self._keep = keep

    async def handle(self, event: events.AnyEvent) -> None:
        """One event; idempotent."""
        match event:
            case events.PostCreated() if event.mentioned_usernames:
                for told in mentions(event, await self._mentioned(event.mentioned_usernames)):
                    await self._tell(told)
            case events.PostDeleted():
                async with self._database.transaction() as session:
                    await repository.forget_post(session, event.post_id)
            case events.Blocked():
                async with self._database.transaction() as session:
                    await repository.forget_pair(session, event.blocker_id, event.blocked_id)
            case events.AccountDeleted():
                async with self._database.transaction() as session:
                    await repository.forget_user(session, event.user_id)
            case _:
                told_one = draft(event)
                if told_one is not None:
                    await self._tell(told_one)

    async def _mentioned(self, usernames: list[str]) -> list[UUID]:
        answer = await self._peers.call(internal.USER_IDS, internal.Usernames(usernames[: internal.MAX_BATCH]))
        return [UUID(bytes=user_id) for user_id in answer.ids.values()]

    async def _tell(self, told: Draft) -> None:
        if not await self._may_know(told):
            return
        async with self._database.transaction() as session:
            if told.kind in await repository.muted(session, told.user_id):
                return
            now = datetime.now(UTC)
            row = await repository.add(session, told, now)
            await repository.trim(session, told.user_id, first_id(int((now - self._keep).timestamp() * 1000)))
        if row.created_at < datetime.now(UTC) - REPEAT:
            return  # liked, unliked and liked again: told once
        for shown in await show(self._users, [row], repository.NONE):
            await self._pushes.push(told.user_id, shown.model_dump_json().encode())

    async def _may_know(self, told: Draft) -> bool:
        """Not of somebody a block is between, nor of a post that its reader may not open."""
        if told.kind == "mention":
            return await self._audience.admits(told.user_id, told.actor_id)
        return not await self._audience.apart(told.user_id, (told.actor_id,))


async def show(users: Users, rows: Sequence[Row[Any]], up_to: UUID) -> list[Notification]:
    """Rows as users see them; what deleted accounts did is left out."""
    authors = await users.authors(row.actor_id for row in rows)
    return [
        Notification(
            id=row.id,
            kind=row.kind,
            actor=authors[row.actor_id],
            post_id=row.post_id,
            comment_id=row.comment_id,
            created_at=row.created_at,
            read=row.id <= up_to,
        )
        for row in rows
        if row.actor_id in authors
    ]
