"""Composition root of the image service."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import Request, Response

from fanfold.image.media import Door, media_router
from fanfold.image.models import SCHEMA
from fanfold.image.repository import EXPORTED
from fanfold.image.routes import image_router, internal_router, uploads_router
from fanfold.image.service import ImageService
from fanfold.image.settings import ImageSettings
from fanfold.image.visibility import Addresses, Visibility
from fanfold.image.wiring import open_stores
from fanfold.kit.errors import PROBLEM_MEDIA_TYPE, Unavailable
from fanfold.kit.export import export_router
from fanfold.kit.idempotency import Idempotency
from fanfold.kit.logging import get_logger, request_id
from fanfold.kit.media import MediaUrls, signer
from fanfold.kit.objects import ObjectStoreError
from fanfold.kit.users import Users
from fanfold.kit.web import create_app

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from fanfold.kit.runtime import Runtime

SETTINGS = ImageSettings
log = get_logger(__name__)


async def build(runtime: Runtime[ImageSettings]) -> ASGIApp:
    """The service: uploads, pictures, variants; relays the room's outbox."""
    settings = runtime.settings
    store, processes = await open_stores(runtime)
    users = Users(runtime.valkey, runtime.peers, settings.media_base_url)
    visibility = Visibility(runtime.database, runtime.valkey, runtime.peers, users, settings.signed_photos)
    service = ImageService(
        settings=settings,
        database=runtime.database,
        store=store,
        processes=processes,
        addresses=Addresses(visibility, MediaUrls.of(settings)),
    )
    runtime.relay_outbox(SCHEMA)
    app = create_app("Fanfold image", settings.version)
    app.state.idempotency = Idempotency(runtime.valkey, settings.secrets.read("identity_key"))
    app.add_exception_handler(ObjectStoreError, _store_unavailable)
    app.include_router(image_router(service, settings))
    app.include_router(uploads_router(service))
    app.include_router(media_router(store, service, Door(signer(settings), visibility)))
    app.include_router(internal_router(service))
    app.include_router(export_router("image", runtime.database, EXPORTED))
    return app


async def _store_unavailable(_: Request, error: Exception) -> Response:
    log.warning("object_store_unavailable", error=str(error))
    problem = Unavailable("The object store does not answer; try again.")
    return Response(problem.document(request_id.get()), problem.status, problem.headers, PROBLEM_MEDIA_TYPE)
