"""Composition root of the feed service."""

from __future__ import annotations

from typing import TYPE_CHECKING
from zlib import crc32

from fanfold.feed.celebrities import CelebrityTimelines
from fanfold.feed.repository import FeedRepository
from fanfold.feed.routes import FeedPages, feed_router, hot_feed, internal_router
from fanfold.feed.service import FeedService
from fanfold.feed.settings import FeedSettings
from fanfold.kit.hydrate import Hydrator
from fanfold.kit.media import MediaUrls
from fanfold.kit.pagination import CursorCodec
from fanfold.kit.web import create_app

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from fanfold.kit.runtime import Runtime

SETTINGS = FeedSettings


async def build(runtime: Runtime[FeedSettings]) -> ASGIApp:
    """The app, and its hot route in front."""
    settings, valkey, peers = runtime.settings, runtime.valkey, runtime.peers
    repository = FeedRepository(valkey, length=settings.feed_length, ttl_seconds=settings.feed_ttl_seconds)
    copy = (crc32(settings.instance.encode()) % settings.timeline_copies, settings.timeline_copies)
    celebrities = CelebrityTimelines(repository, peers, length=settings.feed_length, copy=copy)
    service = FeedService(repository, peers, celebrities, settings)
    hydrator = Hydrator(valkey, peers, MediaUrls.of(settings))
    cursors = CursorCodec(settings.secrets.read("cursor_key"), "feed")
    pages = FeedPages(service, hydrator, cursors, settings.feed_poll_seconds)
    app = create_app("Fanfold feed", settings.version)
    app.include_router(feed_router(pages))
    app.include_router(internal_router(service))
    runtime.hot(hot_feed(pages))
    return app
