"""Serving variants: streamed from the object store with immutable caching, ranges and conditional requests.

A photo that not everybody may see is served to addresses with a good signature only (`fanfold.kit.media`), and kept by
nobody but who asked, for as long as the address is good.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final

from fastapi import APIRouter, Header, Path, Query, Request, Response
from pydantic import BaseModel, Field
from starlette.responses import StreamingResponse

from fanfold.contracts.api import Problem as ProblemModel
from fanfold.image.models import media_key
from fanfold.image.ranges import Span, UnsatisfiableError, requested_span
from fanfold.kit.errors import PROBLEM_MEDIA_TYPE, Forbidden, NotFound
from fanfold.kit.objects import IMMUTABLE, ObjectMissingError, ObjectReader, ObjectStore
from fanfold.kit.preconditions import matches

if TYPE_CHECKING:
    from fanfold.image.service import ImageService
    from fanfold.image.visibility import Visibility
    from fanfold.kit.media import MediaSigner

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
    403: {
        "model": ProblemModel,
        "description": "Not everybody may see it, and the address has no signature, or one that has expired",
        "content": {PROBLEM_MEDIA_TYPE: {}},
    },
    404: {
        "model": ProblemModel,
        "description": "No such picture, or (`not-ready`, with `Retry-After`) not yet",
        "content": {PROBLEM_MEDIA_TYPE: {}},
    },
    416: {"description": "The range lies beyond the end"},
}


class Claim(BaseModel):
    """What stands behind an address that expires."""

    expires: str = Field("", max_length=20, description="As the address given has it.")
    signature: str = Field("", max_length=64, description="As the address given has it.")


@dataclass(frozen=True, slots=True)
class Door:
    """Lets in who may see a photo."""

    signer: MediaSigner
    visibility: Visibility

    async def open(self, media: str, claim: Claim) -> str:
        """The ``Cache-Control`` of what may be read under this address.

        Raises:
            Forbidden: It has no good signature, and needs one.
        """
        if claim.signature:
            left = self.signer.seconds_left(media, claim.expires, claim.signature, time.time())
            if left:
                return f"private, max-age={left}, immutable"
        if await self.visibility.needs_signature(media):
            detail = "This address has expired, or never was one: read the post or the image again, it has a new one."
            raise Forbidden(detail, kind="media-address-expired", headers={"cache-control": "no-store"})
        return IMMUTABLE


def media_router(store: ObjectStore, service: ImageService, door: Door) -> APIRouter:
    """``GET`` and ``HEAD /v1/media/{media}/{name}``; anonymous, as it is a CDN's origin."""
    router = APIRouter(tags=["image"])

    @router.head("/v1/media/{media}/{name}", include_in_schema=False)
    @router.get("/v1/media/{media}/{name}", response_class=Response, responses=_RESPONSES)
    async def read_variant(
        request: Request,
        media: Media,
        name: Name,
        claim: Annotated[Claim, Query()],
        conditions: Annotated[Conditions, Header()],
    ) -> Response:
        """One variant of a picture, under the address that a post or an image has for it.

        The path never changes its content: keep it as long as `Cache-Control` says. Photos of private accounts have
        addresses that expire.
        """
        about = About(f'"{media[:_ETAG_DIGITS]}-{name}"', await door.open(media, claim))
        key = media_key(media, name)
        try:
            if request.method == "GET" and not (conditions.range or conditions.if_none_match):
                return _stream(await store.open(key), about)
            return await _conditional(store, request.method, key, about, conditions)
        except ObjectMissingError:
            raise await _missing(service, media) from None

    return router


@dataclass(frozen=True, slots=True)
class About:
    """What is told of a variant besides its bytes."""

    etag: str
    cache_control: str

    @property
    def headers(self) -> dict[str, str]:
        """Headers of every answer that has it, or a part of it."""
        return {
            "cache-control": self.cache_control,
            "etag": self.etag,
            "accept-ranges": "bytes",
            "x-content-type-options": "nosniff",
            "cross-origin-resource-policy": "cross-origin",
        }


async def _conditional(store: ObjectStore, method: str, key: str, about: About, conditions: Conditions) -> Response:
    found = await store.stat(key)
    if matches(conditions.if_none_match, about.etag):
        return Response(status_code=304, headers=about.headers)
    wanted = conditions.range if conditions.if_range in {None, about.etag} else None
    try:
        span = requested_span(wanted, found.size)
    except UnsatisfiableError:
        return Response(status_code=416, headers={"content-range": f"bytes */{found.size}"})
    if method == "HEAD":
        head = about.headers | {"content-length": str(found.size)}
        return Response(headers=head, media_type=found.content_type)
    if span is None:
        return _stream(await store.open(key), about)
    return _stream(await store.open(key, span.start, span.length), about, span)


def _stream(reader: ObjectReader, about: About, span: Span | None = None) -> Response:
    headers = about.headers | {"content-length": str(reader.size)}
    if span is not None:
        headers["content-range"] = span.content_range
    return StreamingResponse(aiter(reader), 206 if span else 200, headers, reader.content_type)


async def _missing(service: ImageService, media: str) -> NotFound:
    """Never kept by caches: it may be there in a second."""
    if await service.is_pending(media):
        headers = {"retry-after": str(RETRY_SECONDS), "cache-control": "no-store"}
        return NotFound("This variant is still being made: try again.", kind="not-ready", headers=headers)
    return NotFound("There is no such picture.", headers={"cache-control": "no-store"})
