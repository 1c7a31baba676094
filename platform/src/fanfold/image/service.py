"""Decisions of the image service: what becomes a picture, who may claim it, what is told of it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final
from uuid import UUID

import msgspec

from fanfold.contracts.api import Variants
from fanfold.contracts.blobs import ImageBlob
from fanfold.contracts.events import ImageStored
from fanfold.contracts.exports import PIECE, Piece
from fanfold.contracts.ids import new_id
from fanfold.image import repository
from fanfold.image.metrics import UPLOADS
from fanfold.image.models import FAILED, Image, Upload, media_digest, original_key, outbox, variants_of
from fanfold.image.pictures import Inspected, PictureError, inspect
from fanfold.image.processes import ChildError
from fanfold.image.receiving import Received, measure, spooled
from fanfold.image.schemas import ImageView, UploadTicket
from fanfold.kit.errors import Conflict, NotFound, Problem, TooLarge, Unprocessable, UnsupportedMedia
from fanfold.kit.objects import ObjectMissingError, ObjectStore, ObjectTooLargeError
from fanfold.kit.outbox import Outbox

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from fanfold.image.processes import Processes
    from fanfold.image.settings import ImageSettings
    from fanfold.image.visibility import Addresses
    from fanfold.kit.db import Database

STORING: Final = timedelta(hours=1)
"""An object whose storing began so long ago and that no picture names was left by a crash."""


class ImageService:
    """Pictures and their originals."""

    def __init__(
        self,
        *,
        settings: ImageSettings,
        database: Database,
        store: ObjectStore,
        processes: Processes,
        addresses: Addresses,
    ) -> None:
        self._settings = settings
        self._database = database
        self._store = store
        self._processes = processes
        self._addresses = addresses
        self._outbox = Outbox(outbox)

    # ---- taking pictures in -----------------------------------------------------------------------------------------

    async def take(self, owner_id: UUID, file: Path, received: Received) -> ImageView:
        """Make a file the owner's picture; the same bytes again are the same picture.

        Raises:
            UnsupportedMedia: Not a picture that is read.
            Unprocessable: Too many pixels, animated, damaged.
        """
        try:
            image = await self._known(owner_id, received.sha256) or await self._store_new(owner_id, file, received)
        except Problem as problem:
            UPLOADS.labels(problem.kind).inc()
            raise
        return await self._view(image)

    async def _known(self, owner_id: UUID, sha256: str) -> Image | None:
        async with self._database.transaction() as session:
            image = await repository.by_content(session, owner_id, sha256)
            if image is None:
                return None
            if image.unused_since is not None:
                image.unused_since = datetime.now(UTC)  # asked for again: another grace time
            if image.status == FAILED:
                image.status, image.failure, image.attempts = "pending", "", 0
                await self._outbox.add(session, ImageStored(image_id=image.id, owner_id=owner_id))
            session.add(image)
        UPLOADS.labels("known").inc()
        return image

    async def _store_new(self, owner_id: UUID, file: Path, received: Received) -> Image:
        inspected = await self._inspect(file)
        image = _new_image(owner_id, received, inspected)
        async with self._database.transaction() as session:
            session.add(_intention(image))
        await self._store.put_file(image.original_key, file, f"image/{inspected.format}")
        async with self._database.transaction() as session:
            added = await repository.add(session, image)
            if added:
                await repository.remove_uploads(session, [image.id])
                await self._outbox.add(session, ImageStored(image_id=image.id, owner_id=owner_id))
        if added:
            UPLOADS.labels("stored").inc()
            return image
        await self._store.delete([image.original_key])  # the owner sent the same bytes twice at once
        known = await self._known(owner_id, received.sha256)
        if known is None:
            raise Conflict("This picture was deleted while it was sent: send it again.")
        return known

    async def _inspect(self, file: Path) -> Inspected:
        try:
            return await self._processes.run(inspect, str(file), self._settings.limits)
        except PictureError as error:
            refusal = UnsupportedMedia if error.kind == UnsupportedMedia.kind else Unprocessable
            raise refusal(error.detail, kind=error.kind) from error
        except ChildError as error:
            detail = "The picture cannot be decoded within this service's limits: send it in another format or size."
            raise Unprocessable(detail, kind="damaged-image") from error

    # ---- presigned uploads ------------------------------------------------------------------------------------------

    async def offer(self, upload_id: UUID, owner_id: UUID) -> UploadTicket:
        """A form for uploading straight to the object store. Offering one upload again renews it."""
        key = f"uploads/{upload_id}"
        expires_at = datetime.now(UTC) + self._settings.presigned_lifetime
        form = self._store.presigned_post(key, self._settings.presigned_lifetime, self._settings.upload_bytes)
        async with self._database.transaction() as session:
            await session.merge(
                Upload(id=upload_id, owner_id=owner_id, object_key=key, expires_at=expires_at + STORING)
            )
        return UploadTicket(
            id=upload_id,
            url=form.url,
            fields=form.fields,
            max_bytes=self._settings.upload_bytes,
            expires_at=expires_at,
        )

    async def complete(self, owner_id: UUID, upload_id: UUID) -> ImageView:
        """Judge what was uploaded as `take` does; refused files are deleted. Safe to repeat.

        Raises:
            NotFound: No such upload of this owner.
            Conflict: Nothing was uploaded yet.
            TooLarge: The object is over the limit.
        """
        async with self._database.reading() as session:
            upload = await repository.get_upload(session, upload_id, owner_id)
            image = upload and upload.image_id and await repository.get(session, upload.image_id)
        if upload is None:
            raise NotFound("There is no such upload of yours, or it has expired.")
        if image:
            return await self._view(image)
        try:
            view = await self._take_uploaded(owner_id, upload)
        except (TooLarge, UnsupportedMedia, Unprocessable):
            await self._store.delete([upload.object_key])
            async with self._database.transaction() as session:
                await repository.remove_uploads(session, [upload_id])
            raise
        async with self._database.transaction() as session:
            await repository.complete_upload(session, upload_id, view.id)
        await self._store.delete([upload.object_key])
        return view

    async def _take_uploaded(self, owner_id: UUID, upload: Upload) -> ImageView:
        limit = self._settings.upload_bytes
        with spooled(self._settings.spool_dir) as (file, path):
            try:
                await self._store.download(upload.object_key, file, limit)
            except ObjectMissingError as error:
                raise Conflict("Nothing was uploaded yet: post the form to its URL first.") from error
            except ObjectTooLargeError as error:
                raise TooLarge(f"The file is over {limit:,} bytes: make it smaller.") from error
            return await self.take(owner_id, path, await asyncio.to_thread(measure, path))

    # ---- telling of pictures ----------------------------------------------------------------------------------------

    async def find(self, image_id: UUID, viewer: UUID) -> ImageView:
        """One picture.

        Raises:
            NotFound: No such picture, or one that is neither the viewer's nor shown to everybody.
        """
        async with self._database.reading() as session:
            image = await repository.get(session, image_id)
        if image is None or not (image.owner_id == viewer or await self._addresses.shown(image)):
            raise NotFound("There is no such image.")
        return await self._view(image)

    async def is_pending(self, media: str) -> bool:
        """Whether the variants under this path are still being made."""
        async with self._database.reading() as session:
            image = await repository.by_media(session, media)
        return image is not None and image.status == "pending"

    async def blobs(self, image_ids: Sequence[bytes]) -> dict[bytes, bytes]:
        """Packed pictures by id; unknown ids are left out."""
        async with self._database.reading() as session:
            images = await repository.get_many(session, [UUID(bytes=image_id) for image_id in image_ids])
        return {image.id.bytes: _packed(image) for image in images}

    async def claim(self, owner_id: bytes, image_ids: Sequence[bytes], used_by: bytes) -> dict[bytes, bytes]:
        """Record that ``used_by`` (empty: the owner's profile) shows these pictures; packed pictures by id.

        Raises:
            Unprocessable: One does not exist, is somebody else's or has failed; the first such is named.
        """
        owner = UUID(bytes=owner_id)
        wanted = [UUID(bytes=image_id) for image_id in image_ids]
        if not wanted:
            return {}
        async with self._database.transaction() as session:
            images = {image.id: image for image in await repository.lock_many(session, wanted)}
            for image_id in wanted:
                _check_claim(image_id, images.get(image_id), owner)
            await repository.record_uses(session, list(images), UUID(bytes=used_by) if used_by else owner)
        return {image.id.bytes: _packed(image) for image in images.values()}

    async def piece(self, owner_id: UUID, image_id: UUID, offset: int) -> Piece:
        """Some bytes of the original of an owner's picture; without a size if it is not there any more."""
        async with self._database.reading() as session:
            image = await repository.get(session, image_id)
        if image is None or image.owner_id != owner_id:
            return Piece("", 0, b"")
        length = min(PIECE, image.original_size - offset)
        try:
            reader = await self._store.open(image.original_key, offset, length)
        except ObjectMissingError:
            return Piece("", 0, b"")
        data = b"".join([chunk async for chunk in reader])
        return Piece(f"{image.id}.{image.format}", image.original_size, data)

    async def _view(self, image: Image) -> ImageView:
        """A picture as clients see it who may."""
        return ImageView(
            id=image.id,
            status=image.status,
            width=image.width,
            height=image.height,
            blurhash=image.blurhash,
            variants=await self._variants(image),
            failure=image.failure or None,
            created_at=image.created_at,
        )

    async def _variants(self, image: Image) -> Variants | None:
        made = variants_of(image)
        if made is None:
            return None
        url = await self._addresses.of(image, made.path)
        return Variants(url=url, widths=made.widths, formats=made.formats)


def _new_image(owner_id: UUID, received: Received, inspected: Inspected) -> Image:
    image_id, now = new_id(), datetime.now(UTC)
    return Image(
        id=image_id,
        owner_id=owner_id,
        sha256=received.sha256,
        media=media_digest(received.sha256, image_id),
        format=inspected.format,
        original_size=received.size,
        width=inspected.width,
        height=inspected.height,
        blurhash=inspected.blurhash,
        variants=[],
        created_at=now,
        unused_since=now,
    )


def _intention(image: Image) -> Upload:
    """Written before the original is stored, removed with the picture's insertion."""
    return Upload(
        id=image.id,
        owner_id=image.owner_id,
        object_key=original_key(image.sha256, image.id),
        expires_at=image.created_at + STORING,
    )


def _check_claim(image_id: UUID, image: Image | None, owner: UUID) -> None:
    if image is None or image.owner_id != owner:
        raise Unprocessable(f"There is no image {image_id} of yours: upload it first.", image_id=str(image_id))
    if image.status == FAILED:
        raise Unprocessable(f"The image {image_id} failed ({image.failure}): upload another.", image_id=str(image_id))


def _packed(image: Image) -> bytes:
    return msgspec.msgpack.encode(
        ImageBlob(
            id=image.id.bytes,
            width=image.width,
            height=image.height,
            blurhash=image.blurhash,
            alt_text="",
            variants=variants_of(image),
        )
    )
