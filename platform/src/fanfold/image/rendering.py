"""Making the variants of one picture: from its original in the object store to paths that can be read."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

from fanfold.contracts.events import ImageReady
from fanfold.image import repository
from fanfold.image.metrics import RENDER_SECONDS, RENDERS
from fanfold.image.models import PENDING, Image, media_key, outbox
from fanfold.image.pictures import PictureError, Rendered, render
from fanfold.image.processes import ChildError
from fanfold.image.receiving import spooled
from fanfold.kit.logging import get_logger
from fanfold.kit.objects import IMMUTABLE, ObjectMissingError, ObjectStore
from fanfold.kit.outbox import Outbox

if TYPE_CHECKING:
    from uuid import UUID

    from fanfold.image.processes import Processes
    from fanfold.image.settings import ImageSettings
    from fanfold.kit.db import Database

log = get_logger(__name__)

MAX_BREAKS: Final = 3
"""A picture that broke its decoding process so often has failed; other errors are the platform's and are retried."""


class Renderer:
    """Makes variants. Safe to run twice, and at once in two places: equal bytes under equal keys, one event."""

    def __init__(
        self, *, settings: ImageSettings, database: Database, store: ObjectStore, processes: Processes
    ) -> None:
        self._settings = settings
        self._database = database
        self._store = store
        self._processes = processes
        self._outbox = Outbox(outbox)

    async def make(self, image_id: UUID) -> None:
        """Bring a pending picture to ready or failed; do nothing for any other.

        Raises:
            ChildError: The decoding process broke, for less than the `MAX_BREAKS`-th time.
            ObjectStoreError: The store does not answer.
        """
        async with self._database.reading() as session:
            image = await repository.get(session, image_id)
        if image is None or image.status != PENDING:
            return
        try:
            with RENDER_SECONDS.time():
                variants = await self._render(image)
        except (PictureError, ObjectMissingError) as error:
            await self._fail(image, getattr(error, "detail", str(error)))
        except ChildError as error:
            async with self._database.transaction() as session:
                breaks = await repository.count_attempt(session, image_id)
            RENDERS.labels("broke").inc()
            if breaks < MAX_BREAKS:
                raise
            await self._fail(image, f"it cannot be decoded ({error})")
        else:
            await self._finish(image, variants)

    async def _render(self, image: Image) -> list[Rendered]:
        folder = self._settings.spool_dir
        with spooled(folder) as (file, path), TemporaryDirectory(dir=folder, prefix="fanfold-variants-") as made:
            await self._store.download(image.original_key, file, image.original_size)
            variants = await self._processes.run(render, str(path), made, self._settings.limits)
            for variant in variants:
                await self._store.put_file(
                    media_key(image.media, variant.name),
                    Path(made) / variant.name,
                    f"image/{variant.format}",
                    IMMUTABLE,
                )
        return variants

    async def _finish(self, image: Image, variants: list[Rendered]) -> None:
        sizes = [(variant.width, variant.height, variant.format) for variant in variants]
        async with self._database.transaction() as session:
            first = await repository.mark_ready(session, image.id, sizes)
            if first:
                await self._outbox.add(session, ImageReady(image_id=image.id, owner_id=image.owner_id))
            gone = not first and await repository.get(session, image.id) is None
        if gone:  # deleted while its variants were made
            await self._store.delete(await self._store.list_keys(image.media_prefix))
        RENDERS.labels("ready" if first else "superfluous").inc()

    async def _fail(self, image: Image, failure: str) -> None:
        async with self._database.transaction() as session:
            await repository.mark_failed(session, image.id, failure)
        RENDERS.labels("failed").inc()
        log.warning("image_failed", image_id=str(image.id), reason=failure)
