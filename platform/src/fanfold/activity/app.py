"""Composition root of the activity service."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fanfold.activity.counts import Counts
from fanfold.activity.events import GROUP, TOPICS, ActivityEvents
from fanfold.activity.liked import Liked
from fanfold.activity.models import SCHEMA
from fanfold.activity.parents import Posts
from fanfold.activity.repository import EXPORTED
from fanfold.activity.routes import comments_router, internal_router, likes_router
from fanfold.activity.service import ActivityService
from fanfold.activity.settings import ActivitySettings
from fanfold.kit.audience import Audience
from fanfold.kit.export import export_router
from fanfold.kit.idempotency import Idempotency
from fanfold.kit.pagination import CursorCodec
from fanfold.kit.streams import Consumer, of_events
from fanfold.kit.users import Users
from fanfold.kit.web import create_app

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from fanfold.kit.runtime import Runtime

SETTINGS = ActivitySettings


async def build(runtime: Runtime[ActivitySettings]) -> ASGIApp:
    """The app, with the outbox's relay and the ears for events beside it."""
    settings, database, valkey, peers = runtime.settings, runtime.database, runtime.valkey, runtime.peers
    counts = Counts(database, valkey, settings.counts_seconds)
    liked = Liked(database, valkey, settings)
    users = Users(valkey, peers, settings.media_base_url)
    audience = Audience(valkey, peers, users)
    service = ActivityService(database, Posts(valkey, peers, audience), audience, counts, liked)
    key = settings.secrets.read("cursor_key")
    runtime.relay_outbox(SCHEMA)
    handle = of_events(ActivityEvents(service).handle)
    for topic in TOPICS:
        consumer = Consumer(runtime.redis, topic=topic, group=GROUP, name=settings.instance, handle=handle)
        runtime.background(f"consume-{topic}", consumer.run)
    app = create_app("Fanfold activity", settings.version)
    app.state.idempotency = Idempotency(valkey, settings.secrets.read("identity_key"))
    app.include_router(likes_router(service, users, CursorCodec(key, "likes")))
    app.include_router(comments_router(service, users, CursorCodec(key, "comments")))
    app.include_router(internal_router(counts, liked))
    app.include_router(export_router("activity", database, EXPORTED))
    return app
