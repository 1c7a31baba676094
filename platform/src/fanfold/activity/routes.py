"""HTTP of the activity room: likes, comments, and what other services ask."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from fastapi import APIRouter

from fanfold.activity.schemas import Comment, NewComment
from fanfold.contracts import internal
from fanfold.contracts.api import Author, Page
from fanfold.kit.errors import Forbidden
from fanfold.kit.idempotency import IdempotentRoute, ReservedId
from fanfold.kit.web import PAGE_LIMIT, CurrentUser, CursorText, Limit, check_batch, internal_route

if TYPE_CHECKING:
    from fanfold.activity import models
    from fanfold.activity.counts import Counts
    from fanfold.activity.liked import Liked
    from fanfold.activity.service import ActivityService
    from fanfold.kit.pagination import CursorCodec
    from fanfold.kit.users import Users


def likes_router(service: ActivityService, users: Users, cursors: CursorCodec) -> APIRouter:
    """Public routes of likes of posts."""
    router = APIRouter(prefix="/v1/posts/{post_id}", tags=["activity"])

    @router.put("/like", status_code=204)
    async def like_post(post_id: UUID, user_id: CurrentUser) -> None:
        """Like a post. Safe to repeat."""
        await service.like_post(user_id, post_id)

    @router.delete("/like", status_code=204)
    async def unlike_post(post_id: UUID, user_id: CurrentUser) -> None:
        """Take your like back. Safe to repeat."""
        await service.unlike_post(user_id, post_id)

    @router.get("/likes", response_model=Page[Author])
    async def list_likes_of_post(
        post_id: UUID, me: CurrentUser, limit: Limit = PAGE_LIMIT, cursor: CursorText = None
    ) -> Page[Author]:
        """Who likes a post, newest likes first."""
        found = await service.likers(me, post_id, limit, cursors.decode(cursor))
        page = found[:limit]
        authors = await users.authors(user_id for _, user_id in page)
        apart = await service.apart(me, authors)
        items = [authors[user_id] for _, user_id in page if user_id in authors and user_id not in apart]
        return Page[Author](items=items, next_cursor=cursors.encode(page[-1][0]) if len(found) > limit else None)

    return router


def comments_router(service: ActivityService, users: Users, cursors: CursorCodec) -> APIRouter:
    """Public routes of comments and their likes."""
    router = APIRouter(prefix="/v1", tags=["activity"], route_class=IdempotentRoute)

    @router.post("/posts/{post_id}/comments", status_code=201, response_model=Comment)
    async def create_comment(post_id: UUID, new: NewComment, user_id: CurrentUser, comment_id: ReservedId) -> Comment:
        """Comment on a post."""
        author = (await users.authors([user_id])).get(user_id)
        if author is None:
            raise Forbidden("This account does not exist any more.")
        return _view(await service.comment(comment_id, user_id, post_id, new.text), author)

    @router.get("/posts/{post_id}/comments", response_model=Page[Comment])
    async def list_comments_of_post(
        post_id: UUID, user_id: CurrentUser, limit: Limit = PAGE_LIMIT, cursor: CursorText = None
    ) -> Page[Comment]:
        """The comments under a post, newest first."""
        found = await service.comments(user_id, post_id, limit, cursors.decode(cursor))
        page = found[:limit]
        likes, liked = await service.comment_likes(user_id, [comment.id for comment in page])
        authors = await users.authors(comment.user_id for comment in page)
        apart = await service.apart(user_id, authors)
        items = [
            _view(comment, authors[comment.user_id], likes[comment.id], liked=comment.id in liked)
            for comment in page
            if comment.user_id in authors and comment.user_id not in apart
        ]
        return Page[Comment](items=items, next_cursor=cursors.encode(page[-1].id) if len(found) > limit else None)

    @router.delete("/comments/{comment_id}", status_code=204)
    async def delete_comment(comment_id: UUID, user_id: CurrentUser) -> None:
        """Delete a comment: your own, or one under your own post."""
        await service.delete_comment(user_id, comment_id)

    @router.put("/comments/{comment_id}/like", status_code=204)
    async def like_comment(comment_id: UUID, user_id: CurrentUser) -> None:
        """Like a comment. Safe to repeat."""
        await service.like_comment(user_id, comment_id)

    @router.delete("/comments/{comment_id}/like", status_code=204)
    async def unlike_comment(comment_id: UUID, user_id: CurrentUser) -> None:
        """Take your like back. Safe to repeat."""
        await service.unlike_comment(user_id, comment_id)

    return router


def internal_router(counts: Counts, liked: Liked) -> APIRouter:
    """What other services call."""
    router = APIRouter()

    async def activity(asked: internal.ActivityQuery) -> internal.ActivityAnswer:
        check_batch(len(asked.post_ids))
        likes = await liked.among(UUID(bytes=asked.user_id), asked.post_ids)
        return internal.ActivityAnswer(await counts.of(asked.post_ids), likes)

    internal_route(router, internal.ACTIVITY, activity)
    return router


def _view(comment: models.Comment, author: Author, like_count: int = 0, *, liked: bool = False) -> Comment:
    return Comment(
        id=comment.id,
        post_id=comment.post_id,
        author=author,
        text=comment.text,
        like_count=like_count,
        liked_by_me=liked,
        created_at=comment.created_at,
    )
