"""Author timelines: the newest posts mirrored in Valkey, older ones from SQL."""

from __future__ import annotations

import heapq
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple
from uuid import UUID

from fanfold.contracts import keys
from fanfold.contracts.ids import id_millis
from fanfold.kit.recent import Entry, RecentSet
from fanfold.post import repository

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fanfold.kit.db import Database
    from fanfold.kit.recent import Mirrored
    from fanfold.kit.valkey import Valkey
    from fanfold.post.settings import PostSettings

AUTHORS_A_QUERY: Final = 1_000
"""So that no statement runs long; the answers are merged."""


class Window(NamedTuple):
    """Members (post id, author id), newest first. ``more``: there are posts below."""

    members: list[bytes]
    more: bool


def member(post_id: UUID, author_id: UUID) -> bytes:
    """A post as timelines and feeds hold it."""
    return post_id.bytes + author_id.bytes


def window(mirrored: Mirrored, before: UUID, limit: int) -> Window | None:
    """The page below ``before``; None when the mirror does not reach that deep."""
    below = [found for found in mirrored.members if found < before.bytes][: limit + 1]
    if len(below) <= limit and not mirrored.complete:
        return None
    return Window(below[:limit], more=len(below) > limit)


class Timelines:
    """Reads of posts by author or tag, and the mirror's upkeep."""

    def __init__(self, database: Database, valkey: Valkey, settings: PostSettings) -> None:
        self._database = database
        self._length = settings.timeline_length
        self._recent = RecentSet(valkey, limit=settings.timeline_length, seconds=settings.timeline_seconds)

    async def page(self, author_id: UUID, limit: int, before: UUID | None = None) -> Window:
        """One author's posts below ``before``: from the mirror, filled when it is missing, else from SQL."""
        key = keys.timeline(author_id)
        mirrored = await self._recent.read(key)
        if mirrored is None:
            mirrored = await self._recent.refill(key, lambda: self._load(author_id))
        found = window(mirrored, before or repository.NEWEST, limit)
        return found or _cut(await self._newest([author_id], before, limit + 1), limit)

    async def newest(self, author_ids: Sequence[UUID], limit: int, before: UUID | None = None) -> list[bytes]:
        """The newest posts of all authors together, as members.

        One author from the newest on goes through the mirror, so that it is warm for those who read it directly; many
        are one query per thousand of them.
        """
        if len(author_ids) == 1 and before is None:
            return (await self.page(author_ids[0], limit)).members
        parts = [
            await self._newest(author_ids[start : start + AUTHORS_A_QUERY], before, limit)
            for start in range(0, len(author_ids), AUTHORS_A_QUERY)
        ]
        return list(islice(heapq.merge(*parts, reverse=True), limit))

    async def tagged(self, tag: str, limit: int, before: UUID | None = None) -> Window:
        """Posts with a tag (as `captions.normalize_tag` gives it) below ``before``."""
        async with self._database.reading() as session:
            rows = await repository.tagged(session, tag, before or repository.NEWEST, limit + 1)
        return _cut([member(*row) for row in rows], limit)

    async def add(self, post_id: UUID, author_id: UUID) -> None:
        """A post was committed."""
        entry = Entry(id_millis(post_id), member(post_id, author_id))
        await self._recent.add(keys.timeline(author_id), entry)

    async def remove(self, post_id: UUID, author_id: UUID) -> None:
        """A post's deletion was committed."""
        await self._recent.remove(keys.timeline(author_id), member(post_id, author_id))

    async def drop(self, author_id: UUID) -> None:
        """All of an author's posts were deleted."""
        await self._recent.drop(keys.timeline(author_id))

    async def _load(self, author_id: UUID) -> list[Entry]:
        members = await self._newest([author_id], None, self._length)
        return [Entry(id_millis(UUID(bytes=found[:16])), found) for found in members]

    async def _newest(self, author_ids: Sequence[UUID], before: UUID | None, limit: int) -> list[bytes]:
        async with self._database.reading() as session:
            rows = await repository.newest(session, author_ids, before or repository.NEWEST, limit)
        return [member(*row) for row in rows]


def _cut(members: list[bytes], limit: int) -> Window:
    """A page of members read with one more than the limit."""
    return Window(members[:limit], more=len(members) > limit)
