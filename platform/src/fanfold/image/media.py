"""Serving variants: streamed from the object store with immutable caching, ranges and conditional requests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

from fastapi import APIRouter, Header, Path, Request, Response
from pydantic import BaseModel
from starlette.responses import StreamingResponse

from fanfold.contracts.api import Problem as ProblemModel
from fanfold.image.models import media_key
from fanfold.image.ranges import Span, UnsatisfiableError, matches, requested_span
from fanfold.kit.errors import PROBLEM_MEDIA_TYPE, NotFound
from fanfold.kit.objects import IMMUTABLE, ObjectMissingError, ObjectReader, ObjectStore

if TYPE_CHECKING:
    from fanfold.image.service import ImageService

RETRY_SECONDS: Final = 1
"""Variants of a photo are ready about a second after its upload."""
_ETAG_DIGITS: Final = 32

Media = Annotated[str, Path(pattern="^[0-9a-f]{64}$")]
Name = Annotated[str, Path(pattern=r"^[1-9][0-9]{0,4}\.(avif|webp|jpeg)$")]


class Conditions(BaseModel):
    """Request headers that change what is sent."""

    range: str | None = None
    if_range: str | None = None
    if_none_match: str | None = None


_RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    200: {"description": "The picture", "content": {f"image/{kind}": {} for kind in ("avif", "webp", "jpeg")}},
    206: {"description": "The part asked for"},
    304: {"description": "The client has it"},
    404: {
        "model": ProblemModel,
        "description": "No such picture, or (`not-ready`, with `Retry-After`) not yet",
        "content": {PROBLEM_MEDIA_TYPE: {}},
    },
    416: {"description": "The range lies beyond the end"},
}


def media_router(store: ObjectStore, service: ImageService) -> APIRouter:
    """``GET`` and ``HEAD /v1/media/{media}/{name}``; anonymous, as it is a CDN's origin."""
    router = APIRouter(tags=["image"])

    @router.head("/v1/media/{media}/{name}", include_in_schema=False)
    @router.get("/v1/media/{media}/{name}", response_class=Response, responses=_RESPONSES)
    async def read_variant(
        request: Request, media: Media, name: Name, conditions: Annotated[Conditions, Header()]
    ) -> Response:
        """One variant of a picture. The path never changes its content: keep it for ever."""
        key, etag = media_key(media, name), f'"{media[:_ETAG_DIGITS]}-{name}"'
        try:
            if request.method == "GET" and not (conditions.range or conditions.if_none_match):
                return _stream(await store.open(key), etag)
            return await _conditional(store, request.method, key, etag, conditions)
        except ObjectMissingError:
            raise await _missing(service, media) from None

    return router


async def _conditional(store: ObjectStore, method: str, key: str, etag: str, conditions: Conditions) -> Response:
    found = await store.stat(key)
    if matches(conditions.if_none_match, etag):
        return Response(status_code=304, headers=_headers(etag))
    wanted = conditions.range if conditions.if_range in {None, etag} else None
    try:
        span = requested_span(wanted, found.size)
    except UnsatisfiableError:
        return Response(status_code=416, headers={"content-range": f"bytes */{found.size}"})
    if method == "HEAD":
        head = _headers(etag) | {"content-length": str(found.size)}
        return Response(headers=head, media_type=found.content_type)
    if span is None:
        return _stream(await store.open(key), etag)
    return _stream(await store.open(key, span.start, span.length), etag, span)


def _stream(reader: ObjectReader, etag: str, span: Span | None = None) -> Response:
    headers = _headers(etag) | {"content-length": str(reader.size)}
    if span is not None:
        headers["content-range"] = span.content_range
    return StreamingResponse(aiter(reader), 206 if span else 200, headers, reader.content_type)


def _headers(etag: str) -> dict[str, str]:
    return {
        "cache-control": IMMUTABLE,
        "etag": etag,
        "accept-ranges": "bytes",
        "x-content-type-options": "nosniff",
        "cross-origin-resource-policy": "cross-origin",
    }


async def _missing(service: ImageService, media: str) -> NotFound:
    """Never kept by caches: it may be there in a second."""
    if await service.is_pending(media):
        headers = {"retry-after": str(RETRY_SECONDS), "cache-control": "no-store"}
        return NotFound("This variant is still being made: try again.", kind="not-ready", headers=headers)
    return NotFound("There is no such picture.", headers={"cache-control": "no-store"})
