"""HTTP of the follow service."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from fastapi import APIRouter, Response

from fanfold.contracts import internal
from fanfold.contracts.api import Author, Page
from fanfold.follow import schemas
from fanfold.kit.web import PAGE_LIMIT, CurrentUser, CursorText, Limit, internal_route

if TYPE_CHECKING:
    from fanfold.follow.blocks import Blocks
    from fanfold.follow.requests import Requests
    from fanfold.follow.service import Follows, Graph, Lists


def follows_router(follows: Follows) -> APIRouter:
    """Follow and unfollow."""
    router = APIRouter(tags=["follow"])

    @router.put(
        "/v1/users/me/following/{user_id}",
        status_code=204,
        responses={202: {"description": "The account is private: it was asked, and you follow when it approves."}},
    )
    async def follow(me: CurrentUser, user_id: UUID) -> Response:
        """Follow a user, or ask a private account to let you. Safe to repeat."""
        return Response(status_code=204 if await follows.follow(me, user_id) else 202)

    @router.delete("/v1/users/me/following/{user_id}", status_code=204)
    async def unfollow(me: CurrentUser, user_id: UUID) -> None:
        """Unfollow a user, or take back your request to follow them.

        After the 204 no feed read shows their posts. Safe to repeat, and to be after a 503.
        """
        await follows.unfollow(me, user_id)

    @router.delete("/v1/users/me/followers/{user_id}", status_code=204)
    async def remove_follower(me: CurrentUser, user_id: UUID) -> None:
        """Have somebody follow you no more. They are not told, and may follow again. Safe to repeat."""
        await follows.unfollow(user_id, me)

    @router.get("/v1/users/me/following/{user_id}")
    async def get_following(me: CurrentUser, user_id: UUID) -> schemas.Following:
        """Whether you follow a user, and since when; 404 if not."""
        follow = await follows.get(me, user_id)
        return schemas.Following(user_id=follow.followee_id, created_at=follow.created_at)

    return router


def requests_router(requests: Requests, lists: Lists) -> APIRouter:
    """Who asks to follow a private account."""
    router = APIRouter(tags=["follow"])

    @router.get("/v1/users/me/follow-requests")
    async def follow_requests(me: CurrentUser, cursor: CursorText = None, limit: Limit = PAGE_LIMIT) -> Page[Author]:
        """Who asks to follow you, newest first."""
        return await lists.requests(me, cursor, limit)

    @router.get("/v1/users/me/follow-requests/sent")
    async def sent_follow_requests(
        me: CurrentUser, cursor: CursorText = None, limit: Limit = PAGE_LIMIT
    ) -> Page[Author]:
        """Whom you ask to let you follow, newest first. Unfollowing takes a request back."""
        return await lists.sent_requests(me, cursor, limit)

    @router.put("/v1/users/me/follow-requests/{user_id}", status_code=204)
    async def approve_follow_request(me: CurrentUser, user_id: UUID) -> None:
        """Let somebody follow you who asked to. Safe to repeat."""
        await requests.approve(me, user_id)

    @router.delete("/v1/users/me/follow-requests/{user_id}", status_code=204)
    async def deny_follow_request(me: CurrentUser, user_id: UUID) -> None:
        """Deny a request. Who asked is not told, and may ask again. Safe to repeat."""
        await requests.deny(me, user_id)

    return router


def blocks_router(blocks: Blocks, lists: Lists) -> APIRouter:
    """Whom a user wants nothing to do with."""
    router = APIRouter(tags=["follow"])

    @router.get("/v1/users/me/blocks")
    async def my_blocks(me: CurrentUser, cursor: CursorText = None, limit: Limit = PAGE_LIMIT) -> Page[Author]:
        """Whom you block, newest first."""
        return await lists.blocks(me, cursor, limit)

    @router.get("/v1/users/me/blocks/{user_id}")
    async def get_block(me: CurrentUser, user_id: UUID) -> schemas.Blocked:
        """Whether you block a user, and since when; 404 if not."""
        block = await blocks.get(me, user_id)
        return schemas.Blocked(user_id=block.blocked_id, created_at=block.created_at)

    @router.put("/v1/users/me/blocks/{user_id}", status_code=204)
    async def block(me: CurrentUser, user_id: UUID) -> None:
        """Block a user: neither of you sees what the other does, and you follow each other no more.

        They are not told; to them you are not there. Safe to repeat, and to be after a 503.
        """
        await blocks.block(me, user_id)

    @router.delete("/v1/users/me/blocks/{user_id}", status_code=204)
    async def unblock(me: CurrentUser, user_id: UUID) -> None:
        """End a block. Follows do not come back. Safe to repeat."""
        await blocks.unblock(me, user_id)

    return router


def lists_router(lists: Lists) -> APIRouter:
    """Followers and followees of a user."""
    router = APIRouter(tags=["follow"])

    @router.get("/v1/users/me/followers")
    async def my_followers(me: CurrentUser, cursor: CursorText = None, limit: Limit = PAGE_LIMIT) -> Page[Author]:
        """Who follows you, newest first."""
        return await lists.followers(me, me, cursor, limit)

    @router.get("/v1/users/me/following")
    async def my_following(me: CurrentUser, cursor: CursorText = None, limit: Limit = PAGE_LIMIT) -> Page[Author]:
        """Whom you follow, newest first."""
        return await lists.following(me, me, cursor, limit)

    @router.get("/v1/users/{user_id}/followers")
    async def followers(
        me: CurrentUser, user_id: UUID, cursor: CursorText = None, limit: Limit = PAGE_LIMIT
    ) -> Page[Author]:
        """Who follows a user, newest first."""
        return await lists.followers(me, user_id, cursor, limit)

    @router.get("/v1/users/{user_id}/following")
    async def following(
        me: CurrentUser, user_id: UUID, cursor: CursorText = None, limit: Limit = PAGE_LIMIT
    ) -> Page[Author]:
        """Whom a user follows, newest first."""
        return await lists.following(me, user_id, cursor, limit)

    return router


def internal_router(graph: Graph, blocks: Blocks) -> APIRouter:
    """What other services ask."""
    router = APIRouter()
    internal_route(router, internal.FOLLOWERS, graph.followers)
    internal_route(router, internal.FOLLOWEES, graph.followees)
    internal_route(router, internal.FOLLOWING, graph.following)
    internal_route(router, internal.BLOCKS, blocks.batch)
    return router
