"""HTTP of the feed room: the feed itself, and what the follow service tells it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from uuid import UUID

from fastapi import APIRouter, Response

from fanfold.contracts import internal
from fanfold.contracts.api import Page, Post
from fanfold.feed.repository import ID_BYTES
from fanfold.kit.hot import HotRoute, page_target
from fanfold.kit.views import encode_page
from fanfold.kit.web import PAGE_LIMIT, CurrentUser, CursorText, Limit, internal_route, read_id

if TYPE_CHECKING:
    from fanfold.feed.service import FeedService
    from fanfold.kit.hydrate import Hydrator
    from fanfold.kit.pagination import CursorCodec

FEED_PATH: Final = "/v1/feed"
CACHE_CONTROL: Final = "private, no-store"
"""Another moment, another feed: and nobody else's."""


class FeedPages:
    """Pages as JSON: the one body of both ways in, `feed_router` and `hot_feed`."""

    def __init__(self, service: FeedService, hydrator: Hydrator, cursors: CursorCodec) -> None:
        self._service = service
        self._hydrator = hydrator
        self._cursors = cursors

    async def read(self, user_id: UUID, limit: int, cursor: str | None) -> bytes:
        """A page of posts, newest first.

        Deleted posts are left out, so a page may be shorter than asked for; the cursor is that of its last reference.

        Raises:
            BadRequest: Not a cursor of this list.
            Unavailable: The feed cannot be read now.
        """
        window = await self._service.page(user_id, limit, self._cursors.decode(cursor))
        hydrated = await self._hydrator.hydrate(window.members, user_id)
        if hydrated.gone:
            await self._service.forget(user_id, hydrated.gone)
        following = None
        if window.more and window.members:
            following = self._cursors.encode(UUID(bytes=window.members[-1][:ID_BYTES]))
        return encode_page(hydrated.posts, following)


def feed_router(pages: FeedPages) -> APIRouter:
    """``GET /v1/feed``."""
    router = APIRouter(tags=["feed"])

    @router.get(FEED_PATH, response_model=Page[Post])
    async def read_feed(user_id: CurrentUser, limit: Limit = PAGE_LIMIT, cursor: CursorText = None) -> Response:
        """Your home feed: posts of those you follow and your own, newest first, down to the first post."""
        body = await pages.read(user_id, limit, cursor)
        return Response(body, media_type="application/json", headers={"cache-control": CACHE_CONTROL})

    return router


def hot_feed(pages: FeedPages) -> HotRoute:
    """The same route in front of FastAPI: the most frequent read of all."""

    async def answer(user_id: UUID, limit: bytes | None, cursor: bytes | None) -> bytes:
        return await pages.read(user_id, int(limit or PAGE_LIMIT), cursor.decode() if cursor else None)

    lines = f"cache-control: {CACHE_CONTROL}\r\n".encode()
    return HotRoute(FEED_PATH, page_target(FEED_PATH.encode()), answer, lines)


def internal_router(service: FeedService) -> APIRouter:
    """What the follow service tells: after its commit, before its answer."""
    router = APIRouter()

    async def change(told: internal.FollowChange) -> internal.Done:
        await service.invalidate(read_id(told.follower_id))
        return internal.Done()

    internal_route(router, internal.FEED_FOLLOW, change)
    internal_route(router, internal.FEED_UNFOLLOW, change)
    return router
