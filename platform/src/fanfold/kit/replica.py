"""A read replica of PostgreSQL: how far behind it is, so that nobody reads what is older than allowed.

The primary is asked every second how far its log has come, the replica how far it has replayed it. The replica has
everything up to the newest of the primary's positions that it has reached. Its own word on the age of its last
transaction would not do: it grows while nothing is written, and stands still when the connection to the primary is cut.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from fanfold.kit import metrics
from fanfold.kit.logging import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncEngine

log = get_logger(__name__)

INTERVAL_SECONDS: Final = 1.0
ASK_SECONDS: Final = 2.0
"""A server that takes longer to tell its position counts as away."""
FAILURES: Final = (SQLAlchemyError, OSError, TimeoutError)
_WRITTEN: Final = text("SELECT (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint")
_REPLAYED: Final = text("SELECT (pg_last_wal_replay_lsn() - '0/0'::pg_lsn)::bigint")


class Replica:
    """One replica, and whether it may be read.

    Args:
        engine: Its connections.
        primary: Those of the server it follows.
        limit: Seconds it may be behind.
        now: Seconds on a clock that never goes back.
    """

    def __init__(
        self, engine: AsyncEngine, primary: AsyncEngine, limit: float, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.engine = engine
        self.usable = False
        self._primary = primary
        self._limit = limit
        self._now = now
        self._positions: deque[tuple[float, int]] = deque()
        self._writers: OrderedDict[UUID, float] = OrderedDict()

    async def watch(self) -> None:
        """Until cancelled."""
        while True:
            await self.measure()
            await asyncio.sleep(INTERVAL_SECONDS)

    async def measure(self) -> None:
        """Find out whether it may be read. While the primary is away nothing is written: then all stays as it is."""
        asked_at = self._now()
        try:
            written = await self._ask(self._primary, _WRITTEN)
        except FAILURES as error:
            log.warning("primary_does_not_tell_its_position", error=str(error))
            return
        self._positions.append((asked_at, written))
        try:
            self._judge(self._behind(await self._ask(self.engine, _REPLAYED)))
        except FAILURES as error:
            self.failed(error)

    def failed(self, error: BaseException) -> None:
        """It did not answer: the primary is read until it tells its position again."""
        if self.usable:
            log.warning("replica_failed", error=str(error))
        self._judge(math.inf)

    def wrote(self, user_id: UUID) -> None:
        """A user changed something: for as long as the replica may lack it, they read the primary."""
        now = self._now()
        while self._writers and next(iter(self._writers.values())) <= now:
            self._writers.popitem(last=False)
        self._writers[user_id] = now + self._limit + 2 * INTERVAL_SECONDS
        self._writers.move_to_end(user_id)

    def lacks(self, user_id: UUID | None) -> bool:
        """Whether the user may have changed something that it does not have yet."""
        return user_id is not None and self._writers.get(user_id, 0.0) > self._now()

    def _behind(self, replayed: int | None) -> float:
        """Seconds; infinite if it is not known: far behind, or no replica."""
        now = self._now()
        if replayed is None:
            return math.inf
        while len(self._positions) > 1 and self._positions[1][1] <= replayed:
            self._positions.popleft()
        while len(self._positions) > 1 and self._positions[0][0] < now - 10 * self._limit - 10 * INTERVAL_SECONDS:
            self._positions.popleft()
        taken_at, position = self._positions[0]
        return now - taken_at if position <= replayed else math.inf

    def _judge(self, behind: float) -> None:
        metrics.REPLICA_LAG.set(behind)
        usable = behind <= self._limit
        if usable != self.usable:
            log.info("replica_is_read" if usable else "replica_is_not_read", behind_seconds=behind)
        self.usable = usable

    @staticmethod
    async def _ask(engine: AsyncEngine, question: Any) -> Any:
        async with asyncio.timeout(ASK_SECONDS), engine.connect() as connection:
            return (await connection.execute(question)).scalar_one()
