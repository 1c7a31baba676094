"""The post room's SQL. Every function works in the caller's session."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import TYPE_CHECKING, Final
from uuid import UUID

from sqlalchemy import ARRAY, Table, Uuid, bindparam, delete, func, text, update
from sqlalchemy import select as sa_select
from sqlalchemy.dialects.postgresql import aggregate_order_by, insert
from sqlmodel import col, select

from fanfold.kit.export import Part, part
from fanfold.post.models import Post, PostImage, PostTag, report

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from sqlmodel.ext.asyncio.session import AsyncSession

NEWEST: Final = UUID(int=(1 << 128) - 1)
"""Above every id."""

_TIMELINES: Final = text(
    "SELECT newest.id, newest.author_id FROM unnest(:authors) AS author (id) CROSS JOIN LATERAL ("
    "SELECT id, author_id FROM post.post WHERE author_id = author.id AND id < :before AND hidden_at IS NULL "
    "ORDER BY id DESC LIMIT :limit"
    ") AS newest ORDER BY newest.id DESC LIMIT :limit"
).bindparams(bindparam("authors", type_=ARRAY(Uuid)), bindparam("before", type_=Uuid))
"""One probe of the index on (author, id descending) per author."""


_post: Table = Post.metadata.tables["post.post"]
_SHOWN: Final = (
    select(
        func.jsonb_agg(
            aggregate_order_by(
                func.jsonb_build_object("image_id", PostImage.image_id, "alt_text", PostImage.alt_text),
                col(PostImage.position),
            )
        )
    )
    .where(col(PostImage.post_id) == _post.c.id)
    .correlate(_post)
    .scalar_subquery()
    .label("images")
)
EXPORTED: Final = {
    "posts": Part(
        lambda user_id: sa_select(*_post.c, _SHOWN).where(_post.c.author_id == user_id),
        _post.c.id,
    ),
    "reports-of-posts": part(report, "reporter_id"),
}
"""What an archive of an account has of this room."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A post and the images it shows, in order."""

    post: Post
    images: list[PostImage]


async def add(session: AsyncSession, stored: Stored, tags: Collection[str]) -> bool:
    """Add a post; False if one of this id is there already."""
    query = insert(Post).values(stored.post.model_dump()).on_conflict_do_nothing().returning(col(Post.id))
    if (await session.exec(query)).first() is None:
        return False
    await session.exec(insert(PostImage).values([image.model_dump() for image in stored.images]))
    await _add_tags(session, stored.post.id, tags)
    return True


async def find(session: AsyncSession, post_ids: Collection[UUID], *, hidden: bool = False) -> list[Stored]:
    """Those that exist, in no order; ``hidden``: also those that moderators have hidden."""
    query = select(Post).where(col(Post.id).in_(post_ids))
    posts = (await session.exec(query if hidden else query.where(col(Post.hidden_at).is_(None)))).all()
    images = await _images(session, [post.id for post in posts])
    return [Stored(post, images.get(post.id, [])) for post in posts]


async def lock(session: AsyncSession, post_id: UUID) -> Post | None:
    """One post; nobody else changes or deletes it until the transaction ends."""
    return (await session.exec(select(Post).where(Post.id == post_id).with_for_update())).first()


async def change_caption(
    session: AsyncSession, post_id: UUID, caption: str, tags: Collection[str], now: datetime
) -> None:
    """Set the caption and its tags."""
    values = {"caption": caption, "edited_at": now, "version": Post.version + 1}
    await session.exec(update(Post).where(col(Post.id) == post_id).values(values))
    await session.exec(delete(PostTag).where(col(PostTag.post_id) == post_id))
    await _add_tags(session, post_id, tags)


async def set_hidden(session: AsyncSession, post_id: UUID, since: datetime | None) -> None:
    """Hide a post, or show it again."""
    await session.exec(update(Post).where(col(Post.id) == post_id).values(hidden_at=since))


async def touch_image(session: AsyncSession, image_id: UUID) -> list[UUID]:
    """Raise the version of all posts that show an image; their ids."""
    showing = select(PostImage.post_id).where(PostImage.image_id == image_id)
    query = update(Post).where(col(Post.id).in_(showing)).values(version=Post.version + 1).returning(col(Post.id))
    return list((await session.exec(query)).scalars())


async def remove(session: AsyncSession, post_ids: Collection[UUID]) -> dict[UUID, list[UUID]]:
    """Delete posts; the images each showed."""
    shown = await _images(session, post_ids)
    gone = await session.exec(delete(Post).where(col(Post.id).in_(post_ids)).returning(col(Post.id)))
    return {post_id: [image.image_id for image in shown.get(post_id, [])] for post_id in gone.scalars()}


async def newest(session: AsyncSession, authors: Sequence[UUID], before: UUID, limit: int) -> list[tuple[UUID, UUID]]:
    """(post id, author id) of the newest ``limit`` posts of all authors together below ``before``, newest first."""
    connection = await session.connection()
    rows = await connection.execute(_TIMELINES, {"authors": list(authors), "before": before, "limit": limit})
    return [(row.id, row.author_id) for row in rows]


async def tagged(session: AsyncSession, tag: str, before: UUID, limit: int) -> list[tuple[UUID, UUID]]:
    """(post id, author id) of the newest posts with a tag below ``before``, newest first."""
    query = (
        select(Post.id, Post.author_id)
        .join(PostTag, col(PostTag.post_id) == col(Post.id))
        .where(PostTag.tag == tag, col(PostTag.post_id) < before, col(Post.hidden_at).is_(None))
        .order_by(col(PostTag.post_id).desc())
        .limit(limit)
    )
    return list((await session.exec(query)).all())


async def some_of_author(session: AsyncSession, author_id: UUID, limit: int) -> Sequence[UUID]:
    """Ids of some posts of an author."""
    return (await session.exec(select(Post.id).where(Post.author_id == author_id).limit(limit))).all()


async def _images(session: AsyncSession, post_ids: Collection[UUID]) -> dict[UUID, list[PostImage]]:
    query = (
        select(PostImage)
        .where(col(PostImage.post_id).in_(post_ids))
        .order_by(col(PostImage.post_id), col(PostImage.position))
    )
    rows = (await session.exec(query)).all()
    return {post_id: list(images) for post_id, images in groupby(rows, key=lambda image: image.post_id)}


async def _add_tags(session: AsyncSession, post_id: UUID, tags: Collection[str]) -> None:
    if tags:
        await session.exec(insert(PostTag).values([{"tag": tag, "post_id": post_id} for tag in tags]))
