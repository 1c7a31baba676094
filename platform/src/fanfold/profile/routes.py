"""HTTP of the profile service."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request, Response
from starlette.responses import StreamingResponse

from fanfold.contracts import internal
from fanfold.contracts.api import Page
from fanfold.kit.audience import Standing
from fanfold.kit.errors import NotFound
from fanfold.kit.idempotency import IdempotentRoute, ReservedId
from fanfold.kit.preconditions import Expected
from fanfold.kit.web import CurrentModerator, CurrentSession, CurrentUser, check_batch, internal_route, read_id
from fanfold.profile import schemas
from fanfold.profile.service import revision

if TYPE_CHECKING:
    from fanfold.kit.audience import Audience
    from fanfold.kit.media import MediaUrls
    from fanfold.profile import models
    from fanfold.profile.archive import Archives
    from fanfold.profile.moderation import AccountModeration
    from fanfold.profile.service import Accounts, Issued, Sessions


_ARCHIVE: Final[dict[int | str, dict[str, Any]]] = {
    200: {"description": "A ZIP file", "content": {"application/zip": {}}}
}


def client_address(request: Request) -> str:
    """The client as the gateway tells it in ``X-Forwarded-For``.

    The gateway sends one address, its client's; or, where it trusts the proxy it was reached through, what the proxy
    said and then the proxy's own: the one before the last is what that proxy saw, whatever the client made up.
    """
    hops = [hop.strip() for hop in request.headers.get("x-forwarded-for", "").split(",")]
    return hops[-2] if len(hops) > 1 else hops[0]


ClientAddress = Annotated[str, Depends(client_address)]


def _user(user: models.User, media: MediaUrls) -> schemas.User:
    address = media.open if user.hidden_at is None else media.signed  # a hidden one's picture is for few
    return schemas.User(
        id=user.id,
        username=user.username,
        display_name=user.display_name,
        bio=user.bio,
        picture_url=address(user.picture_path) if user.picture_path else None,
        private=user.private,
        created_at=user.created_at,
    )


def _tokens(issued: Issued) -> schemas.Tokens:
    return schemas.Tokens(
        access_token=issued.access_token,
        expires_in=issued.expires_in,
        refresh_token=issued.refresh_token,
        user_id=issued.user_id,
    )


def accounts_router(accounts: Accounts, media: MediaUrls) -> APIRouter:
    """Registration and what users do with their own profile."""
    router = APIRouter(tags=["profile"], route_class=IdempotentRoute)

    def _editable(user: models.User, response: Response) -> schemas.User:
        response.headers["etag"] = revision(user)
        return _user(user, media)

    @router.post("/v1/accounts", status_code=201)
    async def register(account: schemas.NewAccount, user_id: ReservedId) -> schemas.User:
        """Register. Log in with `POST /v1/sessions` afterwards."""
        password = account.password.get_secret_value()
        return _user(await accounts.register(user_id, account.username, password, account.display_name), media)

    @router.get("/v1/users/me")
    async def get_me(user_id: CurrentUser, response: Response) -> schemas.User:
        """Your own profile. Its `ETag` goes into `If-Match` of an edit."""
        return _editable(await accounts.get(user_id), response)

    @router.patch("/v1/users/me")
    async def change_me(
        user_id: CurrentUser, change: schemas.ProfileChange, expected: Expected, response: Response
    ) -> schemas.User:
        """Change your display name or bio, or who sees what you post. With `If-Match` only what you have read."""
        return _editable(await accounts.change(user_id, change.model_dump(exclude_none=True), expected), response)

    @router.delete("/v1/users/me", status_code=204)
    async def delete_me(user_id: CurrentUser, farewell: schemas.Farewell, address: ClientAddress) -> None:
        """Delete your account and everything of yours, for good. Ends all your sessions."""
        await accounts.delete(user_id, farewell.password.get_secret_value(), address)

    @router.put("/v1/users/me/picture")
    async def set_picture(user_id: CurrentUser, choice: schemas.PictureChoice) -> schemas.User:
        """Choose one of your images as your picture. `picture_url` is null until its variants are made."""
        return _user(await accounts.set_picture(user_id, choice.image_id), media)

    @router.delete("/v1/users/me/picture", status_code=204)
    async def remove_picture(user_id: CurrentUser) -> None:
        """Show no picture."""
        await accounts.remove_picture(user_id)

    return router


def archive_router(accounts: Accounts, archives: Archives) -> APIRouter:
    """What a user may take along."""
    router = APIRouter(tags=["profile"])

    @router.get("/v1/users/me/export", response_class=Response, responses=_ARCHIVE)
    async def export_me(user_id: CurrentUser) -> Response:
        """Everything the platform holds about you, but what only proves who you are: JSON files and your photos.

        The archive is made while you read it. If the connection ends early the file has no end, and unpacking fails.
        """
        await accounts.get(user_id)
        headers = {"content-disposition": 'attachment; filename="fanfold.zip"', "cache-control": "no-store"}
        return StreamingResponse(await archives.begin(user_id), headers=headers, media_type="application/zip")

    return router


def users_router(accounts: Accounts, audience: Audience, media: MediaUrls) -> APIRouter:
    """Other users, for people and for services."""
    router = APIRouter(tags=["profile"])

    @router.get("/v1/users")
    async def find_users(
        me: CurrentUser, username: Annotated[str, Query(min_length=1, max_length=100, description="The whole name.")]
    ) -> Page[schemas.User]:
        """The user of this name, if there is one: a page of one or none."""
        found = await accounts.named([username])
        standings = await audience.standings(me, [user.id for user in found])
        shown = [user for user in found if standings[user.id] is not Standing.ABSENT]
        return Page(items=[_user(user, media) for user in shown])

    @router.get("/v1/users/{user_id}")
    async def get_user(me: CurrentUser, user_id: UUID) -> schemas.User:
        """One user. Those who block you are not there."""
        user = await accounts.get(user_id)
        if (await audience.standings(me, (user_id,)))[user_id] is Standing.ABSENT:
            raise NotFound("There is no such user.", kind="user-not-found")
        return _user(user, media)

    async def batch(asked: internal.Ids) -> internal.Blobs:
        check_batch(len(asked.ids))
        return internal.Blobs(await accounts.blobs([read_id(user_id) for user_id in asked.ids]))

    async def by_username(asked: internal.Usernames) -> internal.UserIds:
        check_batch(len(asked.usernames))
        return internal.UserIds({user.username: user.id.bytes for user in await accounts.named(asked.usernames)})

    internal_route(router, internal.USERS, batch)
    internal_route(router, internal.USER_IDS, by_username)
    return router


def moderators_router(moderation: AccountModeration, media: MediaUrls) -> APIRouter:
    """What moderators read."""
    router = APIRouter(prefix="/v1/moderation", tags=["profile"])

    @router.get("/users/{user_id}")
    async def get_user_as_moderator(_: CurrentModerator, user_id: UUID) -> schemas.User:
        """One user, hidden or not. For moderators."""
        return _user(await moderation.find(user_id), media)

    return router


def sessions_router(sessions: Sessions) -> APIRouter:
    """Log in, go on, log out."""
    router = APIRouter(tags=["profile"], route_class=IdempotentRoute)

    @router.post("/v1/sessions", status_code=201)
    async def login(
        login: schemas.Login, address: ClientAddress, session_id: ReservedId, response: Response
    ) -> schemas.Tokens:
        """Log in. Send the access token as `Authorization: Bearer`, and refresh it before it expires."""
        response.headers["cache-control"] = "no-store"
        password = login.password.get_secret_value()
        return _tokens(await sessions.login(session_id, login.username, password, address))

    @router.post("/v1/sessions/refresh")
    async def refresh(old: schemas.Refresh, attempt_id: ReservedId, response: Response) -> schemas.Tokens:
        """Take new tokens. A refresh token is good once; one that comes a second time ends its session.

        With an `Idempotency-Key` an answer that was lost may be asked for again.
        """
        response.headers["cache-control"] = "no-store"
        return _tokens(await sessions.refresh(attempt_id, old.refresh_token.get_secret_value()))

    @router.delete("/v1/sessions/current", status_code=204)
    async def logout(user_id: CurrentUser, session_id: CurrentSession) -> None:
        """Log out: this session's tokens count no more."""
        await sessions.logout(user_id, session_id)

    @router.get("/v1/sessions")
    async def list_sessions(user_id: CurrentUser, session_id: CurrentSession) -> Page[schemas.ActiveSession]:
        """Where you are logged in, the newest login first; all on one page."""
        fields = {"id", "created_at", "refreshed_at", "expires_at"}
        items = [
            schemas.ActiveSession(current=item.id == session_id, **item.model_dump(include=fields))
            for item in await sessions.active(user_id)
        ]
        return Page(items=items)

    @router.delete("/v1/sessions", status_code=204)
    async def logout_everywhere(user_id: CurrentUser) -> None:
        """Log out everywhere, here too: no token of yours counts any more, within 10 s. Safe to repeat."""
        await sessions.logout_everywhere(user_id)

    @router.delete("/v1/sessions/{session_id}", status_code=204)
    async def end_session(user_id: CurrentUser, session_id: UUID) -> None:
        """End one of your sessions, elsewhere for example. Safe to repeat."""
        await sessions.logout(user_id, session_id)

    @router.put("/v1/users/me/password", status_code=204)
    async def change_password(
        user_id: CurrentUser, session_id: CurrentSession, change: schemas.PasswordChange, address: ClientAddress
    ) -> None:
        """Change your password. All your sessions end but this one."""
        await sessions.change_password(user_id, session_id, change, address)

    return router
