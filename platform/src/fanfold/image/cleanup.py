"""Deleting what nobody needs: unused pictures after a grace time, everything of a deleted account, lost uploads.

Objects go before their rows, inside the transaction that locks the rows: a crash leaves rows, which are found again.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from fanfold.contracts.events import AccountDeleted, AnyEvent, PostDeleted
from fanfold.image import repository
from fanfold.kit.logging import get_logger

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from fanfold.image.models import Image
    from fanfold.kit.db import Database
    from fanfold.kit.objects import ObjectStore

log = get_logger(__name__)

BATCH: Final = 20
"""Rows locked by one transaction, which waits for the object store."""
SWEEP_SECONDS: Final = 600.0


class Cleanup:
    """Deletes pictures and uploads."""

    def __init__(self, *, database: Database, store: ObjectStore, grace: timedelta) -> None:
        self._database = database
        self._store = store
        self._grace = grace

    async def handle(self, event: AnyEvent) -> None:
        """A deleted post lets its pictures go; a deleted account takes all of its own along, at once."""
        match event:
            case PostDeleted(post_id=post_id):
                async with self._database.transaction() as session:
                    await repository.drop_uses(session, post_id)
            case AccountDeleted(user_id=user_id):
                while await self._delete_owned(user_id) == BATCH:
                    pass
            case _:
                pass

    async def run(self) -> None:
        """Sweep until cancelled. A sweep that fails is told and tried again."""
        while True:
            try:
                await self.sweep()
            except Exception as error:  # noqa: BLE001 - the next sweep finds what this one left
                log.warning("sweep_failed", error=repr(error))
            await asyncio.sleep(SWEEP_SECONDS)

    async def sweep(self) -> int:
        """Delete what is due; how many pictures and uploads."""
        total = 0
        for batch in (self._delete_unused, self._delete_lost):
            while deleted := await batch():
                total += deleted
        return total

    async def _delete_unused(self) -> int:
        async with self._database.transaction() as session:
            images = await repository.lock_unused(session, datetime.now(UTC) - self._grace, BATCH)
            await self._delete_objects(images)
            await repository.remove(session, images)
        return len(images)

    async def _delete_owned(self, owner_id: UUID) -> int:
        async with self._database.transaction() as session:
            images = await repository.lock_owned(session, owner_id, BATCH)
            await self._delete_objects(images)
            await repository.remove(session, images)
        return len(images)

    async def _delete_lost(self) -> int:
        async with self._database.transaction() as session:
            uploads = await repository.lock_expired(session, datetime.now(UTC), BATCH)
            await self._store.delete([upload.object_key for upload in uploads])
            await repository.remove_uploads(session, [upload.id for upload in uploads])
        return len(uploads)

    async def _delete_objects(self, images: Sequence[Image]) -> None:
        keys = [image.original_key for image in images]
        for image in images:
            keys += await self._store.list_keys(image.media_prefix)
        await self._store.delete(keys)
