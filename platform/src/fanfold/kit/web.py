"""FastAPI as every service uses it: problem details for errors, typed identity, internal endpoints in MessagePack."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, TypeVar
from uuid import UUID

import msgspec
from fastapi import APIRouter, Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from fanfold.contracts import internal
from fanfold.contracts.api import Problem as ProblemModel
from fanfold.contracts.roles import MODERATOR
from fanfold.kit.asgi import IDENTITY_KEY
from fanfold.kit.errors import (
    PROBLEM_MEDIA_TYPE,
    Forbidden,
    Problem,
    TooLarge,
    Unauthorized,
    Unprocessable,
    problem_document,
)
from fanfold.kit.identity import Identity
from fanfold.kit.logging import get_logger, request_id
from fanfold.kit.pagination import DEFAULT_LIMIT, MAX_LIMIT
from fanfold.kit.valkey import ValkeyUnavailableError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

log = get_logger(__name__)

Asked = TypeVar("Asked", bound=msgspec.Struct)
Answered = TypeVar("Answered", bound=msgspec.Struct)

MAX_INTERNAL_BODY = 1 << 20
_HTTP_KINDS = {404: "not-found", 405: "method-not-allowed"}


def create_app(title: str, version: str) -> FastAPI:
    """An app whose every error is RFC 9457 problem details, validation errors with their fields included."""
    app = FastAPI(
        title=title,
        version=version,
        docs_url=None,
        redoc_url=None,
        responses={
            "4XX": {"model": ProblemModel, "description": "Problem details", "content": {PROBLEM_MEDIA_TYPE: {}}},
            "5XX": {"model": ProblemModel, "description": "Problem details", "content": {PROBLEM_MEDIA_TYPE: {}}},
        },
    )

    @app.exception_handler(Problem)
    async def _(_: Request, error: Problem) -> Response:
        return Response(error.document(request_id.get()), error.status, error.headers, PROBLEM_MEDIA_TYPE)

    @app.exception_handler(RequestValidationError)
    async def _(_: Request, error: RequestValidationError) -> Response:
        fields = [{"field": ".".join(map(str, item["loc"])), "detail": item["msg"]} for item in error.errors()]
        detail = "; ".join(f"{field['field']}: {field['detail']}" for field in fields)
        return _answer(422, "unprocessable", detail, errors=fields)

    @app.exception_handler(HTTPException)
    async def _(_: Request, error: HTTPException) -> Response:
        kind = _HTTP_KINDS.get(error.status_code, "http-error")
        answer = _answer(error.status_code, kind, str(error.detail))
        answer.headers.update(error.headers or {})
        return answer

    @app.exception_handler(ValkeyUnavailableError)
    async def _(_: Request, error: ValkeyUnavailableError) -> Response:
        log.warning("valkey_unavailable", error=str(error))
        answer = _answer(503, "unavailable", "The cache does not answer; try again.")
        answer.headers["retry-after"] = "1"
        return answer

    @app.exception_handler(Exception)
    async def _(_: Request, error: Exception) -> Response:
        log.error("unhandled_error", exc_info=error)
        return _answer(500, "internal-error", "Something went wrong here; the request id finds it in our logs.")

    return app


def _answer(status: int, kind: str, detail: str, **extra: Any) -> Response:
    document = problem_document(status, kind, detail, request_id.get(), **extra)
    return Response(document, status, media_type=PROBLEM_MEDIA_TYPE)


def _identity(request: Request) -> Identity:
    identity: Identity = request.scope[IDENTITY_KEY]
    return identity


def _user_id(request: Request) -> UUID:
    user_id = _identity(request).user_id
    if user_id is None:
        raise Unauthorized("Log in first: this needs an access token.")
    return user_id


def _moderator_id(request: Request) -> UUID:
    user_id = _user_id(request)
    if _identity(request).role != MODERATOR:
        raise Forbidden("Only moderators may do this.", kind="not-a-moderator")
    return user_id


def _session_id(request: Request) -> UUID:
    session_id = _identity(request).session_id
    if session_id is None:
        raise Unauthorized("Log in first: this needs an access token.")
    return session_id


CurrentUser = Annotated[UUID, Depends(_user_id)]
"""Id of the calling user; 401 for anybody else."""
CurrentModerator = Annotated[UUID, Depends(_moderator_id)]
"""Id of the calling user, who is a moderator; 403 for other users, 401 for anybody else."""
CurrentSession = Annotated[UUID, Depends(_session_id)]
"""Session id of the calling user's access token."""
Caller = Annotated[Identity, Depends(_identity)]
"""Whoever calls: a user, a service or nobody."""
Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT, description="Items a page.")]
CursorText = Annotated[str | None, Query(max_length=64, description="`next_cursor` of the page before.")]
PAGE_LIMIT = DEFAULT_LIMIT


def internal_route(
    router: APIRouter,
    endpoint: internal.Endpoint[Asked, Answered],
    handle: Callable[[Asked], Awaitable[Answered]],
) -> None:
    """Serve ``endpoint`` on ``router``: decode, check, call, encode. Kept out of the public OpenAPI."""
    decoder: msgspec.msgpack.Decoder[Asked] = msgspec.msgpack.Decoder(endpoint.request)

    async def serve(request: Request) -> Response:
        body = await request.body()
        if len(body) > MAX_INTERNAL_BODY:
            raise TooLarge(f"The body is over {MAX_INTERNAL_BODY} bytes.")
        try:
            asked = decoder.decode(body)
        except msgspec.DecodeError as error:
            raise Unprocessable(f"{endpoint.path}: {error}") from error
        return Response(msgspec.msgpack.encode(await handle(asked)), media_type=internal.MEDIA_TYPE)

    router.add_api_route(endpoint.path, serve, methods=["POST"], include_in_schema=False)


def check_batch(count: int) -> None:
    """Refuse batches over the contract's limit.

    Raises:
        Unprocessable: More than `internal.MAX_BATCH`.
    """
    if count > internal.MAX_BATCH:
        raise Unprocessable(f"At most {internal.MAX_BATCH} ids a batch; {count} were sent.")


def read_id(raw: bytes) -> UUID:
    """An id of an internal request.

    Raises:
        Unprocessable: Not 16 bytes.
    """
    try:
        return UUID(bytes=raw)
    except ValueError as error:
        raise Unprocessable(f"An id has 16 bytes; {len(raw)} were sent.") from error
