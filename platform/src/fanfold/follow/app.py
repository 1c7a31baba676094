"""Composition root of the follow service."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fanfold.follow.celebrities import Celebrities, FollowerTotals
from fanfold.follow.events import AccountEvents
from fanfold.follow.models import SCHEMA
from fanfold.follow.routes import follows_router, graph_router, lists_router
from fanfold.follow.service import Follows, Graph, Lists
from fanfold.follow.settings import FollowSettings
from fanfold.kit.pagination import CursorCodec
from fanfold.kit.streams import Consumer, of_events
from fanfold.kit.users import Users
from fanfold.kit.web import create_app

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from fanfold.kit.runtime import Runtime

SETTINGS = FollowSettings
GROUP = "follow"


async def build(runtime: Runtime[FollowSettings]) -> ASGIApp:
    """The app, with the outbox's relay and the ear for deleted accounts beside it."""
    settings, database = runtime.settings, runtime.database
    users = Users(runtime.valkey, runtime.peers, settings.media_base_url)
    celebrities = Celebrities(database, settings.celebrity_threshold)
    follows = Follows(database, users, runtime.peers, celebrities, settings)
    cursor_key = settings.secrets.read("cursor_key")
    lists = Lists(
        database,
        users,
        followers=CursorCodec(cursor_key, "followers"),
        following=CursorCodec(cursor_key, "following"),
    )
    graph = Graph(database, celebrities, FollowerTotals(database, settings.follower_total_seconds))
    runtime.relay_outbox(SCHEMA)
    consumer = Consumer(
        runtime.redis,
        topic="accounts",
        group=GROUP,
        name=settings.instance,
        handle=of_events(AccountEvents(follows.purge).handle),
    )
    runtime.background("accounts", consumer.run)
    app = create_app("Fanfold follow", settings.version)
    for router in (follows_router(follows), lists_router(lists), graph_router(graph)):
        app.include_router(router)
    return app
