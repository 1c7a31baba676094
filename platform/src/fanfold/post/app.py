"""Composition root of the post service."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fanfold.kit.audience import Audience
from fanfold.kit.export import export_router
from fanfold.kit.hydrate import Hydrator
from fanfold.kit.idempotency import Idempotency
from fanfold.kit.media import MediaUrls
from fanfold.kit.moderation import Desk
from fanfold.kit.moderation_routes import moderation_router
from fanfold.kit.pagination import CursorCodec
from fanfold.kit.streams import Consumer, of_events
from fanfold.kit.users import Users
from fanfold.kit.web import create_app
from fanfold.post.cache import PostCache
from fanfold.post.events import GROUP, TOPICS, PostEvents
from fanfold.post.models import SCHEMA, moderation_log, report
from fanfold.post.moderation import PostModeration
from fanfold.post.repository import EXPORTED
from fanfold.post.routes import Answers, internal_router, lists_router, moderators_router, posts_router
from fanfold.post.service import PostService
from fanfold.post.settings import PostSettings
from fanfold.post.timelines import Timelines

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from fanfold.kit.runtime import Runtime

SETTINGS = PostSettings


async def build(runtime: Runtime[PostSettings]) -> ASGIApp:
    """The app, with the outbox's relay and the ears for events beside it."""
    settings, valkey, peers = runtime.settings, runtime.valkey, runtime.peers
    timelines = Timelines(runtime.database, valkey, settings)
    cache = PostCache(valkey, settings.post_blob_seconds)
    users = Users(valkey, peers, settings.media_base_url)
    audience = Audience(valkey, peers, users)
    service = PostService(runtime.database, cache, timelines, peers, audience)
    desk = Desk(runtime.database, report, moderation_log)
    moderation = PostModeration(runtime.database, cache, timelines, desk, service, audience)
    media = MediaUrls.of(settings)
    hydrator = Hydrator(valkey, peers, media, posts=service.blobs)
    answers = Answers(hydrator, users, audience, peers, media)
    key = settings.secrets.read("cursor_key")
    runtime.relay_outbox(SCHEMA)
    handle = of_events(PostEvents(service, moderation).handle)
    for topic in TOPICS:
        consumer = Consumer(runtime.redis, topic=topic, group=GROUP, name=settings.instance, handle=handle)
        runtime.background(f"consume-{topic}", consumer.run)
    app = create_app("Fanfold post", settings.version)
    app.state.require_if_match = settings.require_if_match
    app.state.idempotency = Idempotency(valkey, settings.secrets.read("identity_key"))
    app.include_router(posts_router(service, answers))
    app.include_router(moderation_router("post", "post", desk, moderation, key))
    app.include_router(moderators_router(service, answers))
    app.include_router(lists_router(timelines, answers, CursorCodec(key, "timeline"), CursorCodec(key, "tag")))
    app.include_router(internal_router(service, timelines))
    app.include_router(export_router("post", runtime.database, EXPORTED))
    return app
