"""Composition root of the notification service."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fanfold.kit.audience import Audience
from fanfold.kit.export import export_router
from fanfold.kit.fanin import FanIn
from fanfold.kit.pagination import CursorCodec
from fanfold.kit.users import Users
from fanfold.kit.web import create_app
from fanfold.notification.push import Pushes
from fanfold.notification.repository import EXPORTED
from fanfold.notification.routes import notifications_router
from fanfold.notification.service import Inbox
from fanfold.notification.settings import NotificationSettings

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from fanfold.kit.runtime import Runtime

SETTINGS = NotificationSettings


async def build(runtime: Runtime[NotificationSettings]) -> ASGIApp:
    """The app, with the ear for long polls beside it."""
    settings = runtime.settings
    users = Users(runtime.valkey, runtime.peers, settings.media_base_url)
    cursors = CursorCodec(settings.secrets.read("cursor_key"), "notifications")
    fan_in = FanIn(settings.secrets.read("valkey_url"))
    runtime.background("fan-in", fan_in.run)
    audience = Audience(runtime.valkey, runtime.peers, users)
    inbox = Inbox(runtime.database, users, audience, cursors, fan_in)
    app = create_app("Fanfold notification", settings.version)
    app.include_router(notifications_router(inbox, Pushes(runtime.valkey, settings), settings))
    app.include_router(export_router("notification", runtime.database, EXPORTED))
    return app
