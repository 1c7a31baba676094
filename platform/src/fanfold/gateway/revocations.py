"""Follows two things that end tokens early: the set of revoked sessions in Valkey, and the file of public keys."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

from fanfold.contracts.keys import REVOKED_SESSIONS
from fanfold.kit.logging import get_logger
from fanfold.kit.valkey import ValkeyError

if TYPE_CHECKING:
    from collections.abc import Callable

    from fanfold.gateway.tokens import Tokens
    from fanfold.kit.valkey import Valkey

log = get_logger(__name__)

POLL_SECONDS: Final = 2.0
"""A logout counts everywhere within this and one round trip; promised is ten seconds."""


class Revocations:
    """Keeps `Tokens.revoked` true.

    Args:
        tokens: Whose revoked set and keys are kept.
        valkey: Where the profile service writes revoked sessions.
        on_revoked: Called with sessions revoked since the last poll, to end what is open.
    """

    def __init__(self, tokens: Tokens, valkey: Valkey, on_revoked: Callable[[frozenset[bytes]], None]) -> None:
        self._tokens = tokens
        self._valkey = valkey
        self._on_revoked = on_revoked
        self._updated = time.monotonic()
        self._away = False

    @property
    def age_seconds(self) -> float:
        """Since the last successful poll. While Valkey is away the last known set counts."""
        return time.monotonic() - self._updated

    async def run(self) -> None:
        """Poll for ever."""
        while True:
            self._tokens.reload_keys()
            await self.poll()
            await asyncio.sleep(POLL_SECONDS)

    async def poll(self) -> None:
        """One poll."""
        try:
            members = await self._valkey.execute("ZRANGEBYSCORE", REVOKED_SESSIONS, f"({int(time.time())}", "+inf")
        except ValkeyError as error:
            if not self._away:
                log.warning("revocations_unreachable", error=str(error))
            self._away = True
            return
        self._away = False
        self._updated = time.monotonic()
        current = frozenset(members)
        fresh = current - self._tokens.revoked
        self._tokens.revoked = current
        if fresh:
            self._on_revoked(fresh)
