"""Tells gateways which sessions' access tokens count no more, and tells it again in case Valkey lost it."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from fanfold.contracts.keys import REVOKED_SESSIONS
from fanfold.kit.db import SQLAlchemyError
from fanfold.kit.logging import get_logger
from fanfold.kit.valkey import ValkeyError
from fanfold.profile import repository

if TYPE_CHECKING:
    from collections.abc import Collection
    from uuid import UUID

    from fanfold.kit.db import Database
    from fanfold.kit.valkey import Valkey

log = get_logger(__name__)

REPEAT_SECONDS: Final = 5.0
"""A logout that Valkey lost counts again within this and the gateway's poll: below the ten seconds promised."""
SKEW_SECONDS: Final = 120
"""Gateways take tokens a little beyond their end, and clocks differ."""


class Revocations:
    """The set `REVOKED_SESSIONS`.

    Args:
        valkey: Where gateways read it.
        database: Where sessions are.
        token_seconds: Life of an access token: as long a session stays in the set.
    """

    def __init__(self, valkey: Valkey, database: Database, token_seconds: int) -> None:
        self._valkey = valkey
        self._database = database
        self._keep_seconds = token_seconds + SKEW_SECONDS

    async def announce(self, session_ids: Collection[UUID]) -> None:
        """These sessions are refused from here on.

        Raises:
            ValkeyUnavailableError: Nobody was told.
        """
        for session_id in session_ids:
            await self._valkey.execute(*self._addition(session_id, time.time()))

    async def repeat(self) -> None:
        """Announce again what was revoked while its tokens may live, and drop what needs no announcing any more."""
        now = datetime.now(UTC)
        async with self._database.reading() as session:
            recent = await repository.revoked_since(session, now - timedelta(seconds=self._keep_seconds))
        await self._valkey.pipeline(
            [
                *(self._addition(session_id, revoked_at.timestamp()) for session_id, revoked_at in recent),
                ("ZREMRANGEBYSCORE", REVOKED_SESSIONS, "-inf", int(now.timestamp())),
            ]
        )

    def _addition(self, session_id: UUID, revoked: float) -> tuple[str | bytes | int, ...]:
        return ("ZADD", REVOKED_SESSIONS, int(revoked) + self._keep_seconds, session_id.bytes)

    async def run(self) -> None:
        """Repeat until cancelled."""
        while True:
            try:
                await self.repeat()
            except (ValkeyError, SQLAlchemyError, OSError) as error:
                log.warning("revocations_not_repeated", error=str(error))
            await asyncio.sleep(REPEAT_SECONDS)
