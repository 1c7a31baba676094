"""Composition root of the image worker: makes variants, deletes what nobody needs."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from fanfold.contracts.events import AccountDeleted, AnyEvent, ImageStored, PostDeleted
from fanfold.image.cleanup import Cleanup
from fanfold.image.rendering import Renderer
from fanfold.image.settings import ImageSettings
from fanfold.image.wiring import open_stores
from fanfold.kit.housekeeping import BacklogGauge
from fanfold.kit.streams import Consumer, of_events

if TYPE_CHECKING:
    from fanfold.kit.runtime import Runtime

SETTINGS = ImageSettings
GROUP = "image-worker"


async def build(runtime: Runtime[ImageSettings]) -> None:
    """The worker: no traffic port."""
    settings, database = runtime.settings, runtime.database
    store, processes = await open_stores(runtime)
    renderer = Renderer(settings=settings, database=database, store=store, processes=processes)
    cleanup = Cleanup(database=database, store=store, grace=timedelta(hours=settings.image_unused_hours))

    async def on_stored(event: AnyEvent) -> None:
        if isinstance(event, ImageStored):
            await renderer.make(event.image_id)

    handlers = {
        ImageStored.topic: on_stored,
        PostDeleted.topic: cleanup.handle,
        AccountDeleted.topic: cleanup.handle,
    }
    for topic, handle in handlers.items():
        consumer = Consumer(
            runtime.redis, topic=topic, group=GROUP, name=settings.instance, handle=of_events(handle), count=1
        )
        runtime.background(f"consume-{topic}", consumer.run)
    runtime.background("sweep", cleanup.run)
    runtime.background("backlog", BacklogGauge(runtime.redis, GROUP, handlers).run)
