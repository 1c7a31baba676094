"""HTTP of the image room: uploads, pictures, and what other services ask."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from fastapi import APIRouter, Request

from fanfold.contracts import exports, internal
from fanfold.image.receiving import FIELD, receive, spooled
from fanfold.image.schemas import ImageView, UploadTicket
from fanfold.kit.errors import Unavailable
from fanfold.kit.idempotency import Begin, IdempotentRoute, ReservedId, StreamedRoute
from fanfold.kit.web import CurrentUser, check_batch, internal_route, read_id

if TYPE_CHECKING:
    from fanfold.image.service import ImageService
    from fanfold.image.settings import ImageSettings

_FORM: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": [FIELD],
                    "properties": {FIELD: {"type": "string", "contentMediaType": "application/octet-stream"}},
                }
            }
        },
    }
}


def image_router(service: ImageService, settings: ImageSettings) -> APIRouter:
    """Public routes under ``/v1/images``."""
    router = APIRouter(prefix="/v1/images", tags=["image"], route_class=StreamedRoute)
    receiving = asyncio.Semaphore(settings.upload_concurrency)

    @router.post("", status_code=201, response_model=ImageView, openapi_extra=_FORM)
    async def upload_image(request: Request, user_id: CurrentUser, begin: Begin) -> ImageView:
        """Upload a photo: JPEG, PNG, WebP, AVIF or GIF, still.

        Its variants are made at once; poll the image until `status` is `ready`, or post it before that.
        """
        if receiving.locked():
            raise Unavailable("Too many uploads at once; try again.", retry_after=2)
        async with receiving:
            with spooled(settings.spool_dir) as (file, path):
                received = await receive(request, file, settings.upload_bytes, settings.upload_seconds)
                await begin(received.sha256)
                return await service.take(user_id, path, received)

    @router.post("/uploads/{upload_id}/complete", status_code=201, response_model=ImageView)
    async def complete_upload(upload_id: UUID, user_id: CurrentUser, begin: Begin) -> ImageView:
        """Make an image of what was uploaded with the form. Safe to repeat."""
        if receiving.locked():
            raise Unavailable("Too many uploads at once; try again.", retry_after=2)
        async with receiving:
            await begin(str(upload_id))
            return await service.complete(user_id, upload_id)

    @router.get("/{image_id}", response_model=ImageView)
    async def read_image(image_id: UUID, user_id: CurrentUser) -> ImageView:
        """An image and its variants: your own, or one that everybody may see, in a post or as a profile picture."""
        return await service.find(image_id, user_id)

    return router


def uploads_router(service: ImageService) -> APIRouter:
    """The way past this service."""
    router = APIRouter(prefix="/v1/images/uploads", tags=["image"], route_class=IdempotentRoute)

    @router.post("", status_code=201, response_model=UploadTicket)
    async def offer_upload(user_id: CurrentUser, upload_id: ReservedId) -> UploadTicket:
        """Get a form to upload a photo straight to the object store, past this service."""
        return await service.offer(upload_id, user_id)

    return router


def internal_router(service: ImageService) -> APIRouter:
    """What other services call."""
    router = APIRouter()

    async def batch(asked: internal.Ids) -> internal.Blobs:
        check_batch(len(asked.ids))
        return internal.Blobs(await service.blobs(asked.ids))

    async def claim(asked: internal.ImageClaim) -> internal.Blobs:
        check_batch(len(asked.image_ids))
        return internal.Blobs(await service.claim(asked.owner_id, asked.image_ids, asked.used_by))

    internal_route(router, internal.IMAGES, batch)

    async def photo(asked: exports.PieceQuery) -> exports.Piece:
        return await service.piece(read_id(asked.user_id), read_id(asked.image_id), asked.offset)

    internal_route(router, internal.CLAIM_IMAGES, claim)
    internal_route(router, exports.PHOTO, photo)
    return router
