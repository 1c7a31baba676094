"""What the image service and its worker both need."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fanfold.image.processes import Processes
from fanfold.kit.objects import ObjectStore

if TYPE_CHECKING:
    from fanfold.image.settings import ImageSettings
    from fanfold.kit.runtime import Runtime


async def open_stores(runtime: Runtime[ImageSettings]) -> tuple[ObjectStore, Processes]:
    """Object store and decoding processes of this component, closed with it."""
    store = ObjectStore(runtime.settings)
    runtime.check("objects", store.ping)
    runtime.on_close(store.close)
    settings = runtime.settings
    processes = Processes(settings.image_processes, settings.image_process_mib << 20, settings.image_process_seconds)
    runtime.on_close(processes.close)
    await processes.start()
    return store, processes
