"""Composition root of the follow service."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fanfold.follow.blocks import Blocks
from fanfold.follow.celebrities import Celebrities, FollowerTotals
from fanfold.follow.events import AccountEvents
from fanfold.follow.models import SCHEMA
from fanfold.follow.repository import EXPORTED
from fanfold.follow.requests import Requests
from fanfold.follow.routes import blocks_router, follows_router, internal_router, lists_router, requests_router
from fanfold.follow.service import Follows, Graph, Lists
from fanfold.follow.settings import FollowSettings
from fanfold.kit.audience import Audience
from fanfold.kit.export import export_router
from fanfold.kit.streams import Consumer, of_events
from fanfold.kit.users import Users
from fanfold.kit.web import create_app

if TYPE_CHECKING:
    from uuid import UUID

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
    requests = Requests(database, follows, celebrities)
    blocks = Blocks(database, runtime.valkey, users, follows, settings.blocks_limit)
    audience = Audience(runtime.valkey, runtime.peers, users)
    lists = Lists(database, users, audience, settings.secrets.read("cursor_key"))
    graph = Graph(database, celebrities, FollowerTotals(database, settings.follower_total_seconds))
    runtime.relay_outbox(SCHEMA)

    async def purge(user_id: UUID) -> None:
        await follows.purge(user_id)
        await blocks.purge(user_id)

    consumer = Consumer(
        runtime.redis,
        topic="accounts",
        group=GROUP,
        name=settings.instance,
        handle=of_events(AccountEvents(purge, requests.approve_all).handle),
    )
    runtime.background("accounts", consumer.run)
    app = create_app("Fanfold follow", settings.version)
    for router in (
        follows_router(follows),
        requests_router(requests, lists),
        blocks_router(blocks, lists),
        lists_router(lists),
        internal_router(graph, blocks),
        export_router("follow", database, EXPORTED),
    ):
        app.include_router(router)
    return app
