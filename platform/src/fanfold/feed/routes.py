"""HTTP of the feed room: the feed itself, and what the follow service tells it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final, NamedTuple
from uuid import UUID

from fastapi import APIRouter, Header, Response
from xxhash import xxh3_64_hexdigest

from fanfold.contracts import internal
from fanfold.contracts.api import Page, Post
from fanfold.feed.stored import ID_BYTES
from fanfold.kit.hot import HotRoute, Reply, page_target
from fanfold.kit.preconditions import matches
from fanfold.kit.views import encode_page
from fanfold.kit.web import PAGE_LIMIT, CurrentUser, CursorText, Limit, internal_route, read_id

if TYPE_CHECKING:
    from fanfold.feed.service import FeedService
    from fanfold.feed.window import Window
    from fanfold.kit.hydrate import Hydrator
    from fanfold.kit.pagination import CursorCodec

FEED_PATH: Final = "/v1/feed"
CACHE_CONTROL: Final = "private, no-store"
"""Another moment, another feed: and nobody else's. Clients that poll keep the tag."""

IfNoneMatch = Annotated[str | None, Header(max_length=256)]


class Reading(NamedTuple):
    """A page; no body when the client has it: then nothing but its references was read."""

    tag: str
    body: bytes | None


class FeedPages:
    """Pages as JSON: the one body of both ways in, `feed_router` and `hot_feed`.

    Args:
        poll_seconds: How often clients are told to ask for new posts that nothing else tells of.
    """

    def __init__(self, service: FeedService, hydrator: Hydrator, cursors: CursorCodec, poll_seconds: int) -> None:
        self._service = service
        self._hydrator = hydrator
        self._cursors = cursors
        self.poll_seconds = poll_seconds

    async def read(self, user_id: UUID, limit: int, cursor: str | None, had: str | None) -> Reading:
        """A page of posts, newest first. ``had``: tags that the client has.

        Deleted posts are left out, so a page may be shorter than asked for; the cursor is that of its last reference.

        Raises:
            BadRequest: Not a cursor of this list.
            Unavailable: The feed cannot be read now.
        """
        window = await self._service.page(user_id, limit, self._cursors.decode(cursor))
        tag = _tag(window)
        if had and matches(had, tag):
            return Reading(tag, None)
        hydrated = await self._hydrator.hydrate(window.members, user_id)
        if hydrated.gone:
            await self._service.forget(user_id, hydrated.gone)
        following = None
        if window.more and window.members:
            following = self._cursors.encode(UUID(bytes=window.members[-1][:ID_BYTES]))
        return Reading(tag, encode_page(hydrated.posts, following))


def _tag(window: Window) -> str:
    """Weak: it names the posts, in order; their captions and counts change without it."""
    return f'W/"{xxh3_64_hexdigest(b"".join(window.members) + bytes((window.more,)))}"'


def feed_router(pages: FeedPages) -> APIRouter:
    """``GET /v1/feed``."""
    router = APIRouter(tags=["feed"])

    @router.get(
        FEED_PATH,
        response_model=Page[Post],
        responses={304: {"description": "The posts are those of the answer with this ETag."}},
    )
    async def read_feed(
        user_id: CurrentUser, limit: Limit = PAGE_LIMIT, cursor: CursorText = None, if_none_match: IfNoneMatch = None
    ) -> Response:
        """Your home feed: posts of those you follow and your own, newest first, down to the first post.

        For new posts ask again with `If-None-Match`, as often as the header `Poll-Interval` says (seconds). The ETag
        names the posts: their captions and counts may change without it.
        """
        tag, body = await pages.read(user_id, limit, cursor, if_none_match)
        head = {"etag": tag, "cache-control": CACHE_CONTROL, "poll-interval": str(pages.poll_seconds)}
        if body is None:
            return Response(status_code=304, headers=head)
        return Response(body, media_type="application/json", headers=head)

    return router


def hot_feed(pages: FeedPages) -> HotRoute:
    """The same route in front of FastAPI: the most frequent read of all."""

    async def answer(user_id: UUID, had: bytes, limit: bytes | None, cursor: bytes | None) -> Reply:
        before = cursor.decode() if cursor else None
        tag, body = await pages.read(user_id, int(limit or PAGE_LIMIT), before, had.decode("latin-1"))
        line = b"etag: %b\r\n" % tag.encode()
        return Reply(b"", line, 304) if body is None else Reply(body, line)

    lines = f"cache-control: {CACHE_CONTROL}\r\npoll-interval: {pages.poll_seconds}\r\n".encode()
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
