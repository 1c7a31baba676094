"""HTTP of the follow service."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from fastapi import APIRouter

from fanfold.contracts import internal
from fanfold.contracts.api import Author, Page
from fanfold.follow import schemas
from fanfold.kit.web import PAGE_LIMIT, CurrentUser, CursorText, Limit, internal_route

if TYPE_CHECKING:
    from fanfold.follow.service import Follows, Graph, Lists


def follows_router(follows: Follows) -> APIRouter:
    """Follow and unfollow."""
    router = APIRouter(tags=["follow"])

    @router.put("/v1/users/me/following/{user_id}", status_code=204)
    async def follow(me: CurrentUser, user_id: UUID) -> None:
        """Follow a user. Safe to repeat."""
        await follows.follow(me, user_id)

    @router.delete("/v1/users/me/following/{user_id}", status_code=204)
    async def unfollow(me: CurrentUser, user_id: UUID) -> None:
        """Unfollow a user. After the 204 no feed read shows their posts. Safe to repeat, and to be after a 503."""
        await follows.unfollow(me, user_id)

    @router.get("/v1/users/me/following/{user_id}")
    async def get_following(me: CurrentUser, user_id: UUID) -> schemas.Following:
        """Whether you follow a user, and since when; 404 if not."""
        follow = await follows.get(me, user_id)
        return schemas.Following(user_id=follow.followee_id, created_at=follow.created_at)

    return router


def lists_router(lists: Lists) -> APIRouter:
    """Followers and followees of a user."""
    router = APIRouter(tags=["follow"])

    @router.get("/v1/users/me/followers")
    async def my_followers(me: CurrentUser, cursor: CursorText = None, limit: Limit = PAGE_LIMIT) -> Page[Author]:
        """Who follows you, newest first."""
        return await lists.followers(me, cursor, limit)

    @router.get("/v1/users/me/following")
    async def my_following(me: CurrentUser, cursor: CursorText = None, limit: Limit = PAGE_LIMIT) -> Page[Author]:
        """Whom you follow, newest first."""
        return await lists.following(me, cursor, limit)

    @router.get("/v1/users/{user_id}/followers")
    async def followers(
        _: CurrentUser, user_id: UUID, cursor: CursorText = None, limit: Limit = PAGE_LIMIT
    ) -> Page[Author]:
        """Who follows a user, newest first."""
        return await lists.followers(user_id, cursor, limit)

    @router.get("/v1/users/{user_id}/following")
    async def following(
        _: CurrentUser, user_id: UUID, cursor: CursorText = None, limit: Limit = PAGE_LIMIT
    ) -> Page[Author]:
        """Whom a user follows, newest first."""
        return await lists.following(user_id, cursor, limit)

    return router


def graph_router(graph: Graph) -> APIRouter:
    """What other services ask."""
    router = APIRouter()
    internal_route(router, internal.FOLLOWERS, graph.followers)
    internal_route(router, internal.FOLLOWEES, graph.followees)
    return router
