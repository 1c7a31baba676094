"""HTTP of the post room: posts, author timelines, tags, and what other services ask."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated
from uuid import UUID

from fastapi import APIRouter, Path, Response

from fanfold.contracts import internal
from fanfold.contracts.api import Page, Post
from fanfold.kit.errors import Forbidden, NotFound, Unprocessable
from fanfold.kit.idempotency import IdempotentRoute, ReservedId
from fanfold.kit.preconditions import Expected
from fanfold.kit.views import AuthorView, author_view, encode, encode_page, post_view
from fanfold.kit.web import PAGE_LIMIT, CurrentModerator, CurrentUser, CursorText, Limit, check_batch, internal_route
from fanfold.post.captions import MAX_TAG, normalize_tag
from fanfold.post.schemas import CaptionChange, NewPost

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fanfold.contracts.blobs import PostBlob
    from fanfold.kit.audience import Audience
    from fanfold.kit.hydrate import Hydrator
    from fanfold.kit.media import MediaUrls
    from fanfold.kit.pagination import CursorCodec
    from fanfold.kit.peers import Peers
    from fanfold.kit.users import Users
    from fanfold.post.service import PostService
    from fanfold.post.timelines import Timelines, Window

_ID = 16


class Answers:
    """Posts as JSON, hydrated for who reads them, and shown only to whom their authors' accounts are open."""

    def __init__(self, hydrator: Hydrator, users: Users, audience: Audience, peers: Peers, media: MediaUrls) -> None:
        self._hydrator = hydrator
        self._peers = peers
        self.users = users
        self.audience = audience
        self.media = media

    async def post(self, member: bytes, viewer: UUID, tag: str) -> Response:
        """One post; 404 when it was deleted meanwhile, or its author's account is closed to the viewer."""
        shown = [member] if await self.audience.admits(viewer, _author(member)) else []
        posts = (await self._hydrator.hydrate(shown, viewer)).posts
        if not posts:
            raise NotFound("There is no such post.", kind="post-not-found")
        answer = _json(posts[0])
        answer.headers["etag"] = tag
        return answer

    async def stored(self, blob: PostBlob, viewer: UUID) -> Response:
        """A post that is not for everybody, as its row tells it; likes and comments stand still while it is hidden."""
        author_id = UUID(bytes=blob.author_id)
        author = (await self.users.authors([author_id])).get(author_id)
        shown = AuthorView(str(author_id), "", "", None)  # of a hidden account
        if author is not None:
            shown = AuthorView(str(author_id), author.username, author.display_name, author.picture_url)
        query = internal.ActivityQuery(viewer.bytes, [blob.id])
        answer = await self._peers.call(internal.ACTIVITY, query)
        counts = answer.counts.get(blob.id, (0, 0))
        liked = blob.id in answer.liked
        return _json(encode(post_view(blob, shown, self.media, closed=True, counts=counts, liked=liked)))

    async def mixed_page(self, window: Window, viewer: UUID, cursors: CursorCodec) -> Response:
        """A page of posts of many authors: those are left out whose accounts are closed to the viewer."""
        admitted = await self.audience.admitted(viewer, {_author(member) for member in window.members})
        shown = [member for member in window.members if _author(member) in admitted]
        return await self.page(window, viewer, cursors, shown)

    async def page(
        self, window: Window, viewer: UUID, cursors: CursorCodec, shown: Sequence[bytes] | None = None
    ) -> Response:
        """A page of posts; its cursor is that of the last reference, shown or not."""
        posts = (await self._hydrator.hydrate(window.members if shown is None else shown, viewer)).posts
        cursor = cursors.encode(UUID(bytes=window.members[-1][:_ID])) if window.more else None
        return _json(encode_page(posts, cursor))


def posts_router(service: PostService, answers: Answers) -> APIRouter:
    """Public routes under ``/v1/posts``."""
    router = APIRouter(prefix="/v1/posts", tags=["post"], route_class=IdempotentRoute)

    @router.post("", status_code=201, response_model=Post)
    async def create_post(new: NewPost, user_id: CurrentUser, post_id: ReservedId) -> Response:
        """Post one to ten of your own images. Those still being made ready appear without variants at first."""
        author = (await answers.users.blobs([user_id])).get(user_id)
        if author is None:
            raise Forbidden("This account does not exist any more.")
        blob = await service.create(post_id, user_id, new)
        media = answers.media
        closed = media.closed(private=author.private)
        view = post_view(blob, author_view(author, media), media, closed=closed, counts=(0, 0), liked=False)
        return _json(encode(view), 201)

    @router.get("/{post_id}", response_model=Post)
    async def read_post(post_id: UUID, user_id: CurrentUser) -> Response:
        """One post. Its `ETag` goes into `If-Match` of an edit; what others add, as likes, does not change it.

        A post that moderators have hidden is there for its author only.
        """
        try:
            member, tag = await service.found(post_id)
        except NotFound:
            blob, hidden = await service.stored(post_id)
            if not hidden or blob.author_id != user_id.bytes:
                raise
            return await answers.stored(blob, user_id)
        return await answers.post(member, user_id, tag)

    @router.patch("/{post_id}", response_model=Post)
    async def edit_post(post_id: UUID, change: CaptionChange, user_id: CurrentUser, expected: Expected) -> Response:
        """Change the caption of your own post. With `If-Match` only the one you have read."""
        tag = await service.edit(post_id, user_id, change.caption, expected)
        return await answers.post(post_id.bytes + user_id.bytes, user_id, tag)

    @router.delete("/{post_id}", status_code=204)
    async def delete_post(post_id: UUID, user_id: CurrentUser) -> None:
        """Delete your own post, with its comments and likes. It is gone from all feeds when this answers."""
        await service.delete(post_id, user_id)

    return router


def moderators_router(service: PostService, answers: Answers) -> APIRouter:
    """What moderators read."""
    router = APIRouter(prefix="/v1/moderation", tags=["post"])

    @router.get("/posts/{post_id}", response_model=Post)
    async def read_post_as_moderator(post_id: UUID, moderator_id: CurrentModerator) -> Response:
        """One post, hidden or not, whoever may see it. For moderators."""
        blob, _ = await service.stored(post_id)
        return await answers.stored(blob, moderator_id)

    return router


def lists_router(timelines: Timelines, answers: Answers, by_author: CursorCodec, by_tag: CursorCodec) -> APIRouter:
    """Public pages of posts."""
    router = APIRouter(prefix="/v1", tags=["post"])

    @router.get("/users/{author_id}/posts", response_model=Page[Post])
    async def list_posts_of_user(
        author_id: UUID, user_id: CurrentUser, limit: Limit = PAGE_LIMIT, cursor: CursorText = None
    ) -> Response:
        """A user's posts, newest first."""
        before = by_author.decode(cursor)
        await answers.audience.check(user_id, author_id)
        window = await timelines.page(author_id, limit, before)
        return await answers.page(window, user_id, by_author)

    @router.get("/tags/{tag}/posts", response_model=Page[Post])
    async def list_posts_with_tag(
        tag: Annotated[str, Path(max_length=MAX_TAG, description="Without the #; letter case does not count.")],
        user_id: CurrentUser,
        limit: Limit = PAGE_LIMIT,
        cursor: CursorText = None,
    ) -> Response:
        """Posts whose caption has a tag, newest first."""
        if "\0" in tag:
            raise Unprocessable("A tag has letters, digits and underscores.")
        window = await timelines.tagged(normalize_tag(tag), limit, by_tag.decode(cursor))
        return await answers.mixed_page(window, user_id, by_tag)

    return router


def internal_router(service: PostService, timelines: Timelines) -> APIRouter:
    """What other services call."""
    router = APIRouter()

    async def batch(asked: internal.Ids) -> internal.Blobs:
        check_batch(len(asked.ids))
        return internal.Blobs(await service.blobs(asked.ids))

    async def newest(asked: internal.TimelinesQuery) -> internal.PostRefs:
        check_batch(asked.limit)
        raw = asked.author_ids
        authors = [UUID(bytes=raw[start : start + _ID]) for start in range(0, len(raw), _ID)]
        before = UUID(bytes=asked.before) if asked.before else None
        return internal.PostRefs(b"".join(await timelines.newest(authors, asked.limit, before, asked.copy)))

    internal_route(router, internal.POSTS, batch)
    internal_route(router, internal.TIMELINES, newest)
    return router


def _author(member: bytes) -> UUID:
    return UUID(bytes=member[_ID:])


def _json(body: bytes, status: int = 200) -> Response:
    return Response(body, status, media_type="application/json")
