"""Composition root of the notification worker: events to notifications."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

from fanfold.contracts.events import GROUPS
from fanfold.kit.audience import Audience
from fanfold.kit.housekeeping import BacklogGauge
from fanfold.kit.streams import Consumer, of_events
from fanfold.kit.users import Users
from fanfold.notification.push import Pushes
from fanfold.notification.service import Notifier
from fanfold.notification.settings import NotificationSettings

if TYPE_CHECKING:
    from fanfold.kit.runtime import Runtime

SETTINGS = NotificationSettings
GROUP: Final = "notification-worker"
TOPICS: Final = tuple(topic for topic, groups in GROUPS.items() if GROUP in groups)


async def build(runtime: Runtime[NotificationSettings]) -> None:
    """One consumer a topic."""
    settings = runtime.settings
    users = Users(runtime.valkey, runtime.peers, settings.media_base_url)
    audience = Audience(runtime.valkey, runtime.peers, users)
    pushes, keep = Pushes(runtime.valkey, settings), timedelta(days=settings.notification_days)
    notifier = Notifier(runtime.database, users, audience, runtime.peers, pushes, keep)
    handle = of_events(notifier.handle)
    for topic in TOPICS:
        consumer = Consumer(runtime.redis, topic=topic, group=GROUP, name=settings.instance, handle=handle)
        runtime.background(f"consume-{topic}", consumer.run)
    runtime.background("backlog", BacklogGauge(runtime.redis, GROUP, TOPICS).run)
