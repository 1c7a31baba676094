"""What a user likes: the newest liked posts mirrored in Valkey, others from SQL."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from fanfold.activity import repository
from fanfold.activity.models import POST
from fanfold.contracts import keys
from fanfold.contracts.ids import id_millis
from fanfold.kit.hydrate import known_likes
from fanfold.kit.recent import Entry, RecentSet

if TYPE_CHECKING:
    from fanfold.activity.settings import ActivitySettings
    from fanfold.kit.db import Database
    from fanfold.kit.valkey import Valkey


class Liked:
    """Likes of posts by user.

    What a crash between commit and mirror leaves wrong is mended when the user repeats the call, or the mirror expires.
    """

    def __init__(self, database: Database, valkey: Valkey, settings: ActivitySettings) -> None:
        self._database = database
        self._valkey = valkey
        self._length = settings.liked_length
        self._recent = RecentSet(valkey, limit=settings.liked_length, seconds=settings.liked_seconds)

    async def among(self, user_id: UUID, post_ids: list[bytes]) -> list[bytes]:
        """Those that the user likes; fills the mirror when it is missing."""
        if not post_ids:
            return []
        key = keys.liked(user_id)
        scores = await self._valkey.execute("ZMSCORE", key, keys.COMPLETE, *post_ids)
        if scores[0] is None:
            await self._recent.refill(key, lambda: self._load(user_id))
        known = known_likes(post_ids, scores)
        unknown = [UUID(bytes=post_id) for post_id in post_ids if post_id not in known]
        liked = {post_id for post_id, likes in known.items() if likes}
        if unknown:
            async with self._database.reading() as session:
                found = await repository.liked_among(session, user_id, POST, unknown)
            liked.update(post_id.bytes for post_id in found)
        return [post_id for post_id in post_ids if post_id in liked]

    async def add(self, user_id: UUID, post_id: UUID) -> None:
        """A like was committed."""
        await self._recent.add(keys.liked(user_id), Entry(id_millis(post_id), post_id.bytes))

    async def remove(self, user_id: UUID, post_id: UUID) -> None:
        """A like is gone."""
        await self._recent.remove(keys.liked(user_id), post_id.bytes)

    async def drop(self, user_id: UUID) -> None:
        """All of a user's likes are gone."""
        await self._recent.drop(keys.liked(user_id))

    async def _load(self, user_id: UUID) -> list[Entry]:
        async with self._database.reading() as session:
            newest = await repository.newest_liked(session, user_id, self._length)
        return [Entry(id_millis(post_id), post_id.bytes) for post_id in newest]
