"""Author timelines: the newest posts mirrored in Valkey, older ones from SQL.

Of a mirror there may be copies, for readers who would overload the one server that has it. A copy is filled from the
mirror when a reader misses it, under `RecentSet`'s rules. A change goes to the mirror first, then to all copies: one
that is not there is not made, and one being filled with what was read before the change is called off.
"""

from __future__ import annotations

import asyncio
import heapq
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple
from uuid import UUID

from fanfold.contracts import keys
from fanfold.contracts.ids import id_millis
from fanfold.kit.recent import Entry, RecentSet
from fanfold.post import repository

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from sqlmodel.ext.asyncio.session import AsyncSession

    from fanfold.kit.db import Database
    from fanfold.kit.recent import Mirrored
    from fanfold.kit.valkey import Valkey
    from fanfold.post.settings import PostSettings

    Query = Callable[[AsyncSession], Awaitable[list[tuple[UUID, UUID]]]]

AUTHORS_A_QUERY: Final = 1_000
"""So that no statement runs long; the answers are merged."""
COPY_SECONDS: Final = 60
"""Time to live of a copy, whatever changes: so long may one miss a post made by a replica that counts copies otherwise,
while that setting rolls out."""


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
        self._copied = RecentSet(valkey, limit=settings.timeline_length, seconds=COPY_SECONDS, renewed=False)
        self._copies = settings.timeline_copies if settings.timeline_copies > 1 else 0

    async def page(self, author_id: UUID, limit: int, before: UUID | None = None) -> Window:
        """One author's posts below ``before``: from the mirror, filled when it is missing, else from SQL."""
        found = window(await self._mirror(author_id), before or repository.NEWEST, limit)
        return found or _cut(await self._newest([author_id], before, limit + 1), limit)

    async def newest(
        self, author_ids: Sequence[UUID], limit: int, before: UUID | None = None, copy: int = -1
    ) -> list[bytes]:
        """The newest posts of all authors together, as members.

        One author from the newest on goes through the mirror, so that it is warm for those who read it directly, and
        with it the copy they have missed; many are one query per thousand of them.
        """
        if len(author_ids) == 1 and before is None:
            if 0 <= copy < self._copies:
                await self._fill_copy(author_ids[0], copy)
            return (await self.page(author_ids[0], limit)).members
        parts = [
            await self._newest(author_ids[start : start + AUTHORS_A_QUERY], before, limit)
            for start in range(0, len(author_ids), AUTHORS_A_QUERY)
        ]
        return list(islice(heapq.merge(*parts, reverse=True), limit))

    async def tagged(self, tag: str, limit: int, before: UUID | None = None) -> Window:
        """Posts with a tag (as `captions.normalize_tag` gives it) below ``before``."""
        below = before or repository.NEWEST
        rows = await self._rows(lambda session: repository.tagged(session, tag, below, limit + 1), before)
        return _cut([member(*row) for row in rows], limit)

    async def add(self, post_id: UUID, author_id: UUID) -> None:
        """A post was committed."""
        entry = Entry(id_millis(post_id), member(post_id, author_id))
        await self._change(author_id, lambda mirrors, key: mirrors.add(key, entry))

    async def remove(self, post_id: UUID, author_id: UUID) -> None:
        """A post's deletion was committed."""
        gone = member(post_id, author_id)
        await self._change(author_id, lambda mirrors, key: mirrors.remove(key, gone))

    async def drop(self, author_id: UUID) -> None:
        """All of an author's posts were deleted."""
        await self._change(author_id, lambda mirrors, key: mirrors.drop(key))

    async def _change(self, author_id: UUID, change: Callable[[RecentSet, bytes], Awaitable[None]]) -> None:
        """The mirror first: a copy that is not called off by the change is filled from a mirror that has it."""
        await change(self._recent, keys.timeline(author_id))
        copies = (keys.timeline_copy(author_id, number, self._copies) for number in range(self._copies))
        await asyncio.gather(*(change(self._copied, key) for key in copies))

    async def _mirror(self, author_id: UUID) -> Mirrored:
        key = keys.timeline(author_id)
        return await self._recent.read(key) or await self._recent.refill(key, lambda: self._load(author_id))

    async def _fill_copy(self, author_id: UUID, number: int) -> None:
        async def load() -> list[Entry]:
            return _entries((await self._mirror(author_id)).members)

        key = keys.timeline_copy(author_id, number, self._copies)
        if await self._copied.read(key) is None:
            await self._copied.refill(key, load)

    async def _load(self, author_id: UUID) -> list[Entry]:
        return _entries(await self._newest([author_id], None, self._length))

    async def _newest(self, author_ids: Sequence[UUID], before: UUID | None, limit: int) -> list[bytes]:
        below = before or repository.NEWEST
        rows = await self._rows(lambda session: repository.newest(session, author_ids, below, limit), before)
        return [member(*row) for row in rows]

    async def _rows(self, query: Query, before: UUID | None) -> list[tuple[UUID, UUID]]:
        """What is read from the top is exact: feeds and mirrors are built of it, and no later push mends what it lacks.

        Pages below a cursor may lag: what is new stands above them, and hydration drops what was deleted.
        """
        if before is not None:
            return await self._database.browse(query)
        async with self._database.reading() as session:
            return await query(session)


def _entries(members: Sequence[bytes]) -> list[Entry]:
    return [Entry(id_millis(UUID(bytes=found[:16])), found) for found in members]


def _cut(members: list[bytes], limit: int) -> Window:
    """A page of members read with one more than the limit."""
    return Window(members[:limit], more=len(members) > limit)
