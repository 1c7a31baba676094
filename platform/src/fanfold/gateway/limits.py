"""Rate limits by user and by address: token buckets here, reconciled with the other gateways through Valkey.

No request waits for Valkey. A gateway decides by its own copy of a bucket; what it took from it is told to Valkey in
the background, and what is left there after everybody's share replaces the copy. A bucket is told of when an eighth of
its burst was taken since the last time, so that quiet callers cost nothing: k gateways together let at most k eighths
of a burst too much through. While Valkey is away each gateway limits on its own.

Answers carry ``RateLimit`` and ``RateLimit-Policy`` (draft-ietf-httpapi-ratelimit-headers-10).
"""

from __future__ import annotations

import math
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING, Final

from fanfold.gateway.tokens import Principal
from fanfold.kit.errors import TooManyRequests

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fanfold.gateway.metrics import GatewayStats
    from fanfold.gateway.routes import Route
    from fanfold.gateway.settings import GatewaySettings

MAX_BUCKETS: Final = 100_000
TOLD_SHARE: Final = 8
"""A bucket is told of each time one part in so many of its burst was taken."""


class Bucket:
    """What one caller has left.

    Attributes:
        tokens: Left at ``at``.
        at: Monotonic seconds.
        untold: Taken since Valkey was told last.
    """

    __slots__ = ("at", "tokens", "untold")

    def __init__(self, tokens: float, at: float) -> None:
        self.tokens = tokens
        self.at = at
        self.untold = 0


class Policy:
    """One kind of limit: all its buckets fill at one rate, up to one burst.

    Args:
        name: In headers, keys and metrics.
        rate: Tokens a second.
        burst: Most tokens.
    """

    def __init__(self, name: str, rate: float, burst: int) -> None:
        self.name = name
        self.rate = rate
        self.burst = burst
        self._buckets: dict[int | str, Bucket] = {}
        self._due: dict[int | str, Bucket] = {}
        self._told_at = max(1, burst // TOLD_SHARE)
        self._policy_line = f'ratelimit-policy: "{name}";q={burst};w={math.ceil(burst / rate)}\r\n'.encode()
        self._line = f'ratelimit: "{name}";r=%d;t=%d\r\n'.encode()

    def take(self, key: int | str, now: float) -> bytes:
        """Take one token (``now``: monotonic seconds); the header lines that tell what is left.

        Raises:
            TooManyRequests: None was left.
        """
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._add(key, now)
        tokens = min(self.burst, bucket.tokens + (now - bucket.at) * self.rate)
        bucket.at = now
        if tokens < 1:
            bucket.tokens = tokens
            raise self._refusal(tokens)
        bucket.tokens = tokens - 1
        bucket.untold += 1
        if bucket.untold >= self._told_at:
            self._due[key] = bucket
        return self._policy_line + self._line % (tokens - 1, (self.burst - tokens + 1) / self.rate)

    def due(self) -> list[tuple[int | str, Bucket]]:
        """Buckets that Valkey must be told of, each once."""
        due, self._due = self._due, {}
        return list(due.items())

    def put_back(self, buckets: Iterable[tuple[int | str, Bucket]]) -> None:
        """Those could not be told of: try again."""
        self._due = {**dict(buckets), **self._due}

    def forget_full(self, now: float) -> None:
        """Drop the buckets that are full again: they say nothing that a new one does not."""
        whole = self.burst / self.rate
        full = [key for key, one in self._buckets.items() if one.at + whole <= now]
        for key in full:
            del self._buckets[key]

    def __len__(self) -> int:
        return len(self._buckets)

    def _add(self, key: int | str, now: float) -> Bucket:
        if len(self._buckets) >= MAX_BUCKETS:
            del self._buckets[next(iter(self._buckets))]
        bucket = self._buckets[key] = Bucket(self.burst, now)
        return bucket

    def _refusal(self, tokens: float) -> TooManyRequests:
        wait = math.ceil((1 - tokens) / self.rate)
        return TooManyRequests(
            f"More than {self.rate:g} requests a second for a while; come again in {wait} s.",
            headers={
                "retry-after": str(wait),
                "ratelimit-policy": f'"{self.name}";q={self.burst};w={math.ceil(self.burst / self.rate)}',
                "ratelimit": f'"{self.name}";r=0;t={wait}',
            },
        )


class Limits:
    """All policies that are on."""

    def __init__(self, settings: GatewaySettings, stats: GatewayStats) -> None:
        self._stats = stats
        self._user = _policy("user", settings.user_rate, settings.user_burst)
        self._address = _policy("address", settings.address_rate, settings.address_burst)
        self._login = _policy("login", settings.login_rate, settings.login_burst)

    @property
    def policies(self) -> list[Policy]:
        """Those that are on."""
        return [policy for policy in (self._user, self._address, self._login) if policy is not None]

    def admit_address(self, address: str, route: Route, now: float) -> bytes:
        """Hold one request to the limits of its address; header lines for its answer.

        Raises:
            TooManyRequests: It is over one.
        """
        policy = self._login if route.guarded and self._login is not None else self._address
        if policy is None:
            return b""
        return self._take(policy, network_of(address), now)

    def admit_user(self, principal: Principal, now: float) -> bytes:
        """Hold one request to the limit of its user; header lines for its answer.

        Raises:
            TooManyRequests: It is over it.
        """
        if self._user is None or principal.key is None:
            return b""
        return self._take(self._user, principal.key, now)

    def _take(self, policy: Policy, key: int | str, now: float) -> bytes:
        try:
            return policy.take(key, now)
        except TooManyRequests:
            self._stats.limited[policy.name] = self._stats.limited.get(policy.name, 0) + 1
            raise


def limits_of(settings: GatewaySettings, stats: GatewayStats) -> Limits | None:
    """The limits that the settings ask for; None when they ask for none."""
    limits = Limits(settings, stats)
    return limits if limits.policies else None


def _policy(name: str, rate: float, burst: int) -> Policy | None:
    return Policy(name, rate, burst) if rate else None


def network_of(address: str) -> str:
    """What counts as one client: an IPv4 address, or an IPv6 /64, which is what one customer has."""
    if ":" not in address:
        return address
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if not isinstance(parsed, IPv6Address):
        return str(parsed)
    return str(parsed.ipv4_mapped or f"{IPv6Address(int(parsed) >> 64 << 64)}/64")
