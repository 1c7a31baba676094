"""The same shape of data as `common.feeds` in SQL tables, for the feed that asks PostgreSQL each time."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import msgspec
from peers import brute_force
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import create_async_engine

from common.feeds import FOLLOWEES_SHARE, post_blob
from fanfold.contracts.blobs import PostBlob
from fanfold.contracts.ids import new_id
from fanfold.kit.media import MediaUrls
from fanfold.kit.views import image_view

if TYPE_CHECKING:
    import random

FOLLOWED: Final = 100
"""Accounts that each reader follows."""
LIKES: Final = 5
"""Of each post."""
BATCH: Final = 1000


async def fill(url: str, *, users: int, posts: int, chance: random.Random) -> list[UUID]:
    """Make the tables and fill them; the readers."""
    readers = [new_id() for _ in range(users)]
    authors = [new_id() for _ in range(max(FOLLOWED, posts // FOLLOWEES_SHARE))]
    ids = [new_id() for _ in range(posts)]
    rows: dict[type[Any], list[dict[str, Any]]] = {
        brute_force.User: [
            {
                "id": one,
                "username": f"user{one.hex}",
                "display_name": "User",
                "picture_url": f"/v1/media/{one}/150.webp",
            }
            for one in [*readers, *authors]
        ],
        brute_force.Post: [_post(one, chance.choice(authors), chance) for one in ids],
        brute_force.Follow: [
            {"follower_id": reader, "followee_id": author}
            for reader in readers
            for author in chance.sample(authors, FOLLOWED)
        ],
        brute_force.Activity: [
            {"kind": "like", "post_id": one, "user_id": user} for one in ids for user in chance.sample(readers, LIKES)
        ],
    }
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        await connection.run_sync(brute_force.SQLModel.metadata.create_all)
        for model, values in rows.items():
            for start in range(0, len(values), BATCH):
                await connection.execute(insert(model), values[start : start + BATCH])
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        await connection.exec_driver_sql("ANALYZE")
    await engine.dispose()
    return readers


def _post(post_id: UUID, author: UUID, chance: random.Random) -> dict[str, Any]:
    blob = msgspec.msgpack.decode(post_blob(post_id.bytes + author.bytes, chance), type=PostBlob)
    images = [msgspec.to_builtins(image_view(image, MediaUrls("/v1/media/"), closed=False)) for image in blob.images]
    created = datetime.fromtimestamp(blob.created_ms / 1000, UTC)
    return {"id": post_id, "author_id": author, "caption": blob.caption, "images": images, "created_at": created}
