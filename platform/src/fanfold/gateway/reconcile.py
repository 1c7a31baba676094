"""Tells Valkey what this gateway took from rate limits' buckets, and learns what all gateways left."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING, Final

from fanfold.contracts.keys import rate_limit
from fanfold.kit.logging import get_logger
from fanfold.kit.valkey import Script, ValkeyError

if TYPE_CHECKING:
    from fanfold.gateway.limits import Bucket, Limits, Policy
    from fanfold.kit.valkey import Valkey

log = get_logger(__name__)

INTERVAL_SECONDS: Final = 0.5
FORGET_SECONDS: Final = 30.0
MAX_BATCH: Final = 2_000
"""Commands of one pipeline."""

# KEYS: one bucket. ARGV: taken, rate, burst. Gives what is left, as text: below zero when more was taken.
_TAKE: Final = Script(
    """
local clock = redis.call('TIME')
local now = clock[1] + clock[2] / 1000000
local known = redis.call('HMGET', KEYS[1], 'tokens', 'at')
local rate, burst = tonumber(ARGV[2]), tonumber(ARGV[3])
local tokens = burst
if known[1] then tokens = math.min(burst, known[1] + math.max(0, now - known[2]) * rate) end
tokens = math.max(-burst, tokens - ARGV[1])
redis.call('HSET', KEYS[1], 'tokens', tostring(tokens), 'at', tostring(now))
redis.call('PEXPIRE', KEYS[1], math.ceil(2000 * burst / rate))
return tostring(tokens)
"""
)


class Reconciler:
    """Keeps the buckets of `Limits` near the truth."""

    def __init__(self, limits: Limits, valkey: Valkey) -> None:
        self._limits = limits
        self._valkey = valkey
        self._away = False

    async def run(self) -> None:
        """For ever."""
        forget_at = monotonic() + FORGET_SECONDS
        while True:
            await asyncio.sleep(INTERVAL_SECONDS)
            for policy in self._limits.policies:
                await self.tell(policy)
            if monotonic() >= forget_at:
                forget_at = monotonic() + FORGET_SECONDS
                for policy in self._limits.policies:
                    policy.forget_full(monotonic())

    async def tell(self, policy: Policy) -> None:
        """Once, of all buckets of a policy that are due. What cannot be told is told with what is taken later."""
        due = policy.due()
        for start in range(0, len(due), MAX_BATCH):
            batch = due[start : start + MAX_BATCH]
            try:
                await self._tell(policy, batch)
            except ValkeyError as error:
                policy.put_back(batch)
                if not self._away:
                    log.warning("limits_not_shared", error=str(error))
                self._away = True
                return
            self._away = False

    async def _tell(self, policy: Policy, batch: list[tuple[int | str, Bucket]]) -> None:
        taken = [bucket.untold for _, bucket in batch]
        commands = [
            ("EVALSHA", _TAKE.sha, 1, rate_limit(policy.name, key), count, policy.rate, policy.burst)
            for (key, _), count in zip(batch, taken, strict=True)
        ]
        answers = await self._valkey.pipeline(commands)
        # A server, or some nodes of a cluster, may not know the script; they did nothing then, and know it afterwards.
        unknown = [
            at for at, one in enumerate(answers) if isinstance(one, ValkeyError) and str(one).startswith("NOSCRIPT")
        ]
        if unknown:
            whole = await self._valkey.pipeline([("EVAL", _TAKE.body, *commands[at][2:]) for at in unknown])
            for at, answer in zip(unknown, whole, strict=True):
                answers[at] = answer
        now = monotonic()
        for (_, bucket), count, answer in zip(batch, taken, answers, strict=True):
            if isinstance(answer, Exception):
                raise answer
            bucket.untold -= count
            bucket.tokens = float(answer) - bucket.untold
            bucket.at = now
