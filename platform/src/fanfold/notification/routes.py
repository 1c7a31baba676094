"""HTTP of the notification room."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final
from uuid import UUID

import xxhash
from fastapi import APIRouter, Header, Query, Response

from fanfold.kit.errors import BadRequest
from fanfold.kit.preconditions import matches
from fanfold.kit.web import PAGE_LIMIT, CurrentUser, CursorText, Limit
from fanfold.notification.schemas import NotificationPage, Preferences, PreferencesChange, ReadUpTo
from fanfold.notification.service import Asked
from fanfold.notification.settings import MAX_WAIT_SECONDS

if TYPE_CHECKING:
    from fanfold.notification.push import Pushes
    from fanfold.notification.repository import State
    from fanfold.notification.service import Inbox
    from fanfold.notification.settings import NotificationSettings

CACHE_CONTROL: Final = "private, no-cache"
"""Kept by the client, asked about each time."""

After = Annotated[UUID | None, Query(description="Answer what came after this notification, oldest first.")]
Wait = Annotated[
    float, Query(ge=0, le=MAX_WAIT_SECONDS, description="Seconds to wait for something new before answering.")
]
IfNoneMatch = Annotated[str | None, Header(max_length=256)]


def notifications_router(inbox: Inbox, pushes: Pushes, settings: NotificationSettings) -> APIRouter:
    """Public routes under ``/v1/notifications``."""
    router = APIRouter(prefix="/v1/notifications", tags=["notification"])

    @router.get(
        "",
        response_model=NotificationPage,
        responses={304: {"description": "Nothing has changed since the answer with this ETag."}},
    )
    async def read_notifications(  # noqa: PLR0913 - one parameter a query field
        *,
        user_id: CurrentUser,
        limit: Limit = PAGE_LIMIT,
        cursor: CursorText = None,
        after: After = None,
        wait: Wait = 0,
        if_none_match: IfNoneMatch = None,
    ) -> Response:
        """Your notifications, newest first; with `after`, those you missed, oldest first.

        Poll with `If-None-Match` as often as the header `Poll-Interval` says (seconds). With `wait` the answer comes
        when there is something that the ETag, or `after`, does not know of: for clients without a WebSocket.
        """
        if cursor is not None and after is not None:
            raise BadRequest("Send either cursor or after: one goes back in time, the other forward.")
        asked = Asked(user_id, limit, cursor, after)
        state = await inbox.state(user_id)
        if wait and not _has_news(asked, state, if_none_match):
            await inbox.wait(user_id, state, wait)
        # In this order: what was not pushed before the look at the crowd is in the list read after it.
        seconds = settings.crowded_poll_seconds if await pushes.crowded(user_id) else settings.poll_seconds
        state = await inbox.state(user_id)
        etag = entity_tag(asked, state)
        head = {"etag": etag, "cache-control": CACHE_CONTROL, "poll-interval": str(seconds)}
        if matches(if_none_match, etag):
            return Response(status_code=304, headers=head)
        page = await inbox.read(asked)
        return Response(page.model_dump_json(), media_type="application/json", headers=head)

    @router.put("/read", status_code=204)
    async def mark_read(seen: ReadUpTo, user_id: CurrentUser) -> None:
        """Mark everything up to a notification as read. Going back does nothing."""
        await inbox.mark_read(user_id, seen.up_to)

    @router.get("/preferences")
    async def read_preferences(user_id: CurrentUser) -> Preferences:
        """Which kinds of notifications you get."""
        return await inbox.preferences(user_id)

    @router.patch("/preferences")
    async def change_preferences(user_id: CurrentUser, change: PreferencesChange) -> Preferences:
        """Choose which kinds you get, in the list and on the socket. It counts for what happens from now on."""
        return await inbox.prefer(user_id, change)

    return router


def _has_news(asked: Asked, state: State, if_none_match: str | None) -> bool:
    """Whether a long poll has something to answer at once."""
    if asked.after is not None:
        return state.newest > asked.after
    return not matches(if_none_match, entity_tag(asked, state))


def entity_tag(asked: Asked, state: State) -> str:
    """Weak: the actors' names may change without it (RFC 9110, section 8.8.1)."""
    known = f"{state.newest}{state.up_to}{asked.limit}{asked.cursor}{asked.after}"
    return f'W/"{xxhash.xxh3_64_hexdigest(known.encode())}"'
