"""Composition root of the profile service."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from fanfold.kit.audience import Audience
from fanfold.kit.cluster import connect
from fanfold.kit.db import Database
from fanfold.kit.export import export_router
from fanfold.kit.idempotency import Idempotency
from fanfold.kit.keyring import Keyring
from fanfold.kit.media import MediaUrls
from fanfold.kit.moderation import Desk
from fanfold.kit.moderation_routes import moderation_router
from fanfold.kit.streams import Consumer, of_events
from fanfold.kit.users import Users
from fanfold.kit.web import create_app
from fanfold.profile.archive import Archives
from fanfold.profile.directory import Directory
from fanfold.profile.events import ImageEvents
from fanfold.profile.models import SCHEMA, moderation_log, report
from fanfold.profile.moderation import AccountModeration, Roles
from fanfold.profile.passwords import Hasher
from fanfold.profile.pictures import Pictures
from fanfold.profile.repository import EXPORTED
from fanfold.profile.revocations import Revocations
from fanfold.profile.routes import accounts_router, archive_router, moderators_router, sessions_router, users_router
from fanfold.profile.service import Accounts, Parts, Sessions
from fanfold.profile.settings import ProfileSettings
from fanfold.profile.throttle import LoginThrottle
from fanfold.profile.tokens import AccessTokens

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.types import ASGIApp

    from fanfold.kit.runtime import Runtime

SETTINGS = ProfileSettings
GROUP = "profile"


@asynccontextmanager
async def roles_of(settings: ProfileSettings) -> AsyncIterator[Roles]:
    """What ``fanfold roles`` works with, for a command's short life."""
    database = Database.connect(settings)
    valkey = connect(settings.secrets.read("valkey_url"))
    try:
        yield Roles(
            database,
            Revocations(valkey, database, settings.access_token_seconds),
            Desk(database, report, moderation_log),
        )
    finally:
        await valkey.close()
        await database.close()


async def build(runtime: Runtime[ProfileSettings]) -> ASGIApp:
    """The app, with the outbox's relay, the repeating of revocations and the ear for finished pictures beside it."""
    settings = runtime.settings
    desk = Desk(runtime.database, report, moderation_log)
    parts = Parts(
        settings=settings,
        database=runtime.database,
        directory=Directory(runtime.valkey),
        hasher=Hasher(settings.password_threads, settings.password_queue),
        throttle=LoginThrottle(
            runtime.valkey,
            window_seconds=settings.login_window_seconds,
            per_pair=settings.login_attempts_per_pair,
            per_user=settings.login_attempts_per_user,
            per_address=settings.login_attempts_per_address,
        ),
        tokens=AccessTokens(settings.secrets, settings.access_token_seconds),
        refresh_keys=Keyring(settings.secrets.read("identity_key"), b"refresh"),
        revocations=Revocations(runtime.valkey, runtime.database, settings.access_token_seconds),
        pictures=Pictures(runtime.peers),
        desk=desk,
    )
    accounts, sessions = Accounts(parts), Sessions(parts)
    media = MediaUrls.of(settings)
    users = Users(runtime.valkey, runtime.peers, settings.media_base_url)
    audience = Audience(runtime.valkey, runtime.peers, users)
    runtime.on_close(parts.hasher.close)
    runtime.relay_outbox(SCHEMA)
    runtime.background("revocations", parts.revocations.run)
    consumer = Consumer(
        runtime.redis,
        topic="images",
        group=GROUP,
        name=settings.instance,
        handle=of_events(ImageEvents(accounts.complete_picture).handle),
    )
    runtime.background("images", consumer.run)
    app = create_app("Fanfold profile", settings.version)
    app.state.require_if_match = settings.require_if_match
    moderation = AccountModeration(runtime.database, parts.directory, desk, audience)
    identity_key = settings.secrets.read("identity_key")
    app.state.idempotency = Idempotency(runtime.valkey, identity_key)
    for router in (
        accounts_router(accounts, media),
        users_router(accounts, audience, media),
        sessions_router(sessions),
        # The room has no key for cursors of its own; each kind of cursor signs with another message anyway.
        moderation_router("user", "profile", desk, moderation, identity_key),
        archive_router(accounts, Archives(runtime.peers)),
        export_router("profile", runtime.database, EXPORTED),
        moderators_router(moderation, media),
    ):
        app.include_router(router)
    return app
