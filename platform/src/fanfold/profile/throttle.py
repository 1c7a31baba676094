"""Login throttling: failures counted in fixed windows, in Valkey.

Three budgets: one username from one address (few), one username from anywhere (more, so that a stranger elsewhere does
not lock its owner out at once), one address whatever the username.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fanfold.kit.errors import TooManyRequests
from fanfold.kit.valkey import Script

if TYPE_CHECKING:
    from fanfold.kit.valkey import Valkey

_TAKE: Final = Script("""
local taken = redis.call('INCR', KEYS[1])
if taken == 1 then redis.call('PEXPIRE', KEYS[1], ARGV[1]) end
return {taken, redis.call('PTTL', KEYS[1])}
""")
"""KEYS: counter. ARGV: window in ms. Attempts in this window with the present one, and ms until it ends."""

_GIVE_BACK: Final = Script("""
local taken = tonumber(redis.call('GET', KEYS[1]) or '0')
if taken > 0 then return redis.call('DECR', KEYS[1]) end
return 0
""")


@dataclass(frozen=True, slots=True)
class Attempt:
    """Who tries to log in from where. The username need not exist: unknown ones are counted alike."""

    username: str
    address: str

    @property
    def counters(self) -> tuple[bytes, bytes, bytes]:
        """Keys of the counters: pair, username, address. Hashed: what is typed as a username may be a password."""
        return (
            _key(b"pair", f"{self.username}\0{self.address}"),
            _key(b"user", self.username),
            _key(b"address", self.address),
        )


def _key(kind: bytes, value: str) -> bytes:
    return b"login:%b:%b" % (kind, hashlib.sha256(value.encode()).digest()[:16])


class LoginThrottle:
    """Each attempt takes from all budgets before the password is looked at; a success gives back.

    Args:
        valkey: Where the counters live.
        window_seconds: After its first attempt a counter ends.
        per_pair: Failures of one username from one address a window.
        per_user: Failures of one username a window.
        per_address: Failures from one address a window.
    """

    def __init__(self, valkey: Valkey, *, window_seconds: int, per_pair: int, per_user: int, per_address: int) -> None:
        self._valkey = valkey
        self._window_ms = window_seconds * 1000
        self._limits = (per_pair, per_user, per_address)

    async def take(self, attempt: Attempt) -> None:
        """Count one attempt.

        Raises:
            TooManyRequests: One of the budgets is spent; ``Retry-After`` says when its window ends.
            ValkeyUnavailableError: It cannot be counted: then nobody logs in.
        """
        for counter, limit in zip(attempt.counters, self._limits, strict=True):
            taken, left_ms = await self._valkey.script(_TAKE, [counter], [self._window_ms])
            if taken > limit:
                seconds = max(1, -(-left_ms // 1000))
                raise TooManyRequests(
                    f"Too many failed logins; try again in {seconds} s.", headers={"retry-after": str(seconds)}
                )

    async def succeed(self, attempt: Attempt) -> None:
        """The password was right: the pair starts anew, the others get this attempt back."""
        pair, user, address = attempt.counters
        await self._valkey.execute("DEL", pair)
        for counter in (user, address):
            await self._valkey.script(_GIVE_BACK, [counter])
