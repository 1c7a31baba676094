"""Live notifications: published to the user's channel, for whoever listens; throttled where they come in crowds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fanfold.contracts import keys, live

if TYPE_CHECKING:
    from uuid import UUID

    from fanfold.kit.valkey import Valkey
    from fanfold.notification.settings import NotificationSettings


HINT_MILLISECONDS: Final = 1_000


class Pushes:
    """Counts pushes to each user in windows of some seconds, for all workers together.

    When a window is full the user is told to poll instead, and nothing more is pushed until the next. A poll that is
    answered with the longer interval proves that the window is a new one: nothing was left out since. The hint is
    repeated with later notifications, once a second, for who connects while the window is full.
    """

    def __init__(self, valkey: Valkey, settings: NotificationSettings) -> None:
        self._valkey = valkey
        self._limit = settings.pushes_per_window
        self._window = settings.window_seconds
        self._poll_seconds = settings.crowded_poll_seconds

    async def push(self, user_id: UUID, payload: bytes) -> None:
        """Publish one notification, unless the user's window is full."""
        rate = keys.notification_rate(user_id)
        answers = await self._valkey.pipeline([("INCR", rate), ("EXPIRE", rate, self._window, "NX")])
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        count = int(answers[0])
        channel = keys.notifications(user_id)
        if count <= self._limit:
            await self._valkey.execute("PUBLISH", channel, payload)
        elif await self._valkey.execute("SET", keys.notification_hint(user_id), 1, "NX", "PX", HINT_MILLISECONDS):
            await self._valkey.execute("PUBLISH", channel, live.poll(self._poll_seconds))

    async def crowded(self, user_id: UUID) -> bool:
        """Whether the user's window is full: something may have been left out."""
        return int(await self._valkey.execute("GET", keys.notification_rate(user_id)) or 0) > self._limit
