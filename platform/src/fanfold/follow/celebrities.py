"""Who is a celebrity: decided from counts, kept in a small table, checked whenever a count is at hand.

The mark lives in a table and not in Valkey, because a reader's feed and the fan-out of a post must agree on it whatever
is lost: both read it here. It is set when a follow or unfollow crosses the threshold (by a count that ends there: at
most threshold + 1 index entries), and again when fan-out asks for an author's followers: a crossing that was missed, by
a crash after the commit for one, is made good before the author's next post is delivered.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from fanfold.follow import repository
from fanfold.kit.flight import SingleFlight
from fanfold.kit.logging import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from fanfold.kit.db import Database

log = get_logger(__name__)

LEAVE_TENTHS: Final = 9
"""A celebrity stays one down to this many tenths of the threshold: at the edge not every follow changes everything."""
KNOWN_TOTALS: Final = 10_000


def is_celebrity(total: int, threshold: int, *, was: bool) -> bool:
    """Whether ``total`` followers make a celebrity: above ``threshold``, or not yet clearly below it again."""
    return total > threshold or (was and total * 10 > threshold * LEAVE_TENTHS)


class Celebrities:
    """Keeps the marks.

    Args:
        database: With counts and marks.
        threshold: Followers above which an author's posts are pulled.
    """

    def __init__(self, database: Database, threshold: int) -> None:
        self._database = database
        self._threshold = threshold

    async def settle(self, user_id: UUID) -> bool:
        """Count as far as it matters and `mark`. Call it after the commit that changed the count."""
        async with self._database.reading() as session:
            was = await repository.is_celebrity(session, user_id)
            total = await repository.count_followers(session, user_id, self._threshold + 1)
        return await self.mark(user_id, total, was=was)

    async def mark(self, user_id: UUID, total: int, *, was: bool) -> bool:
        """Bring the mark in line with ``total`` followers and commit it; whether the user is a celebrity."""
        now = is_celebrity(total, self._threshold, was=was)
        if now != was:
            async with self._database.transaction() as session:
                await repository.mark_celebrity(session, user_id, celebrity=now)
            log.info("celebrity_crossing", user_id=str(user_id), celebrity=now)
        return now


class FollowerTotals:
    """Exact follower counts, believed for some seconds, counted once however many ask.

    Args:
        database: Where follows are.
        seconds: How long a count is believed.
        now: Seconds on a clock that never goes back.
    """

    def __init__(self, database: Database, seconds: float, now: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._seconds = seconds
        self._now = now
        self._known: OrderedDict[UUID, tuple[float, int]] = OrderedDict()
        self._flights: SingleFlight[int] = SingleFlight()

    async def get(self, user_id: UUID) -> int:
        """Followers of a user."""
        known = self._known.get(user_id)
        if known is not None and known[0] > self._now() - self._seconds:
            return known[1]
        return await self._flights.do(user_id, lambda: self._count(user_id))

    async def _count(self, user_id: UUID) -> int:
        counted_at = self._now()
        async with self._database.reading() as session:
            total = await repository.count_followers(session, user_id)
        self._known[user_id] = (counted_at, total)
        self._known.move_to_end(user_id)
        if len(self._known) > KNOWN_TOTALS:
            self._known.popitem(last=False)
        return total
