"""The image room's SQL. Every function works in the caller's session."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from sqlalchemy import delete, update
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, exists, select

from fanfold.image.models import FAILED, PENDING, READY, Image, ImageUse, Upload
from fanfold.kit.export import part

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from uuid import UUID

    from sqlmodel.ext.asyncio.session import AsyncSession


EXPORTED: Final = {"images": part(Image, "owner_id")}
"""What an archive of an account has of this room."""


async def get(session: AsyncSession, image_id: UUID) -> Image | None:
    """One picture."""
    return await session.get(Image, image_id)


async def get_many(session: AsyncSession, image_ids: Collection[UUID]) -> Sequence[Image]:
    """Those that exist, in no order."""
    return (await session.exec(select(Image).where(col(Image.id).in_(image_ids)))).all()


async def lock_many(session: AsyncSession, image_ids: Collection[UUID]) -> Sequence[Image]:
    """Those that exist, in id order; nobody else changes or deletes them until the transaction ends."""
    query = select(Image).where(col(Image.id).in_(image_ids)).order_by(col(Image.id)).with_for_update()
    return (await session.exec(query)).all()


async def by_content(session: AsyncSession, owner_id: UUID, sha256: str) -> Image | None:
    """The owner's picture with these bytes, locked."""
    query = select(Image).where(Image.owner_id == owner_id, Image.sha256 == sha256).with_for_update()
    return (await session.exec(query)).first()


async def by_media(session: AsyncSession, media: str) -> Image | None:
    """The picture whose variants' paths begin with this digest."""
    return (await session.exec(select(Image).where(Image.media == media))).first()


async def shown_by(session: AsyncSession, media: str, limit: int) -> tuple[UUID, list[UUID]] | None:
    """Whose picture this is, and the newest ``limit`` of what shows it; None if there is none under this path."""
    query = select(Image.owner_id, ImageUse.used_by).join(ImageUse, isouter=True).where(Image.media == media)
    rows = (await session.exec(query.order_by(col(ImageUse.used_by).desc()).limit(limit))).all()
    return (rows[0][0], [used_by for _, used_by in rows if used_by is not None]) if rows else None


async def add(session: AsyncSession, image: Image) -> bool:
    """Add a picture; False if its owner has the same bytes already."""
    query = insert(Image).values(image.model_dump()).on_conflict_do_nothing().returning(col(Image.id))
    return (await session.exec(query)).first() is not None


async def record_uses(session: AsyncSession, image_ids: Collection[UUID], used_by: UUID) -> None:
    """``used_by`` shows these pictures. The caller holds them locked."""
    rows = [{"image_id": image_id, "used_by": used_by} for image_id in image_ids]
    await session.exec(insert(ImageUse).values(rows).on_conflict_do_nothing())
    await session.exec(update(Image).where(col(Image.id).in_(image_ids)).values(unused_since=None))


async def drop_uses(session: AsyncSession, used_by: UUID) -> None:
    """``used_by`` is gone; pictures that nothing else uses are unused from now on."""
    query = select(ImageUse.image_id).where(ImageUse.used_by == used_by)
    image_ids = (await session.exec(query)).all()
    await lock_many(session, image_ids)  # a claim under way finishes first, and the statement below sees it
    await session.exec(delete(ImageUse).where(col(ImageUse.used_by) == used_by))
    still_used = exists().where(col(ImageUse.image_id) == col(Image.id))
    unused = update(Image).where(col(Image.id).in_(image_ids), ~still_used)
    await session.exec(unused.values(unused_since=datetime.now(UTC)))


async def mark_ready(session: AsyncSession, image_id: UUID, variants: list[tuple[int, int, str]]) -> bool:
    """Variants can be read; False if somebody else was first or the picture is gone."""
    query = update(Image).where(col(Image.id) == image_id, col(Image.status) == PENDING)
    done = query.values(status=READY, variants=variants).returning(col(Image.id))
    return (await session.exec(done)).first() is not None


async def mark_failed(session: AsyncSession, image_id: UUID, failure: str) -> None:
    """No variants will come."""
    query = update(Image).where(col(Image.id) == image_id, col(Image.status) == PENDING)
    await session.exec(query.values(status=FAILED, failure=failure))


async def count_attempt(session: AsyncSession, image_id: UUID) -> int:
    """One more attempt broke; how many there were."""
    query = update(Image).where(col(Image.id) == image_id).values(attempts=col(Image.attempts) + 1)
    return (await session.exec(query.returning(col(Image.attempts)))).scalar() or 0


async def lock_unused(session: AsyncSession, before: datetime, limit: int) -> Sequence[Image]:
    """Pictures that nothing has used since ``before``, locked; those that others hold are passed over."""
    query = select(Image).where(col(Image.unused_since) < before).order_by(col(Image.unused_since)).limit(limit)
    return (await session.exec(query.with_for_update(skip_locked=True))).all()


async def lock_owned(session: AsyncSession, owner_id: UUID, limit: int) -> Sequence[Image]:
    """Pictures of one owner, locked."""
    query = select(Image).where(Image.owner_id == owner_id).order_by(col(Image.id)).limit(limit)
    return (await session.exec(query.with_for_update())).all()


async def lock_expired(session: AsyncSession, before: datetime, limit: int) -> Sequence[Upload]:
    """Uploads that ended before, locked."""
    query = select(Upload).where(col(Upload.expires_at) < before).order_by(col(Upload.expires_at)).limit(limit)
    return (await session.exec(query.with_for_update(skip_locked=True))).all()


async def remove(session: AsyncSession, images: Sequence[Image]) -> None:
    """Delete pictures and their uses."""
    await session.exec(delete(Image).where(col(Image.id).in_([image.id for image in images])))


async def get_upload(session: AsyncSession, upload_id: UUID, owner_id: UUID) -> Upload | None:
    """The owner's upload."""
    query = select(Upload).where(Upload.id == upload_id, Upload.owner_id == owner_id)
    return (await session.exec(query)).first()


async def complete_upload(session: AsyncSession, upload_id: UUID, image_id: UUID) -> None:
    """Remember what the upload became."""
    await session.exec(update(Upload).where(col(Upload.id) == upload_id).values(image_id=image_id))


async def remove_uploads(session: AsyncSession, upload_ids: Collection[UUID]) -> None:
    """Forget uploads."""
    await session.exec(delete(Upload).where(col(Upload.id).in_(upload_ids)))
