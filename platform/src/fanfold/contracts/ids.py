"""UUIDv7 identifiers (RFC 9562, section 5.7): time-ordered, so that id order is creation order."""

from __future__ import annotations

import os
import threading
import time
from uuid import UUID

_COUNTER_BITS = 12
_COUNTER_LIMIT = 1 << _COUNTER_BITS


class _Generator:
    """Monotonic within the process: RFC 9562 section 6.2, method 1 (a counter in ``rand_a``)."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last_ms = 0
        self._counter = 0

    def next(self) -> UUID:
        with self._lock:
            now_ms = time.time_ns() // 1_000_000
            if now_ms > self._last_ms:
                self._last_ms = now_ms
                # Start low in the counter's range: room for thousands of ids in one millisecond.
                self._counter = int.from_bytes(os.urandom(1), "big")
            else:
                self._counter += 1
                if self._counter == _COUNTER_LIMIT:
                    self._last_ms += 1
                    self._counter = 0
            value = (self._last_ms & 0xFFFF_FFFF_FFFF) << 80
            value |= 0x7 << 76
            value |= self._counter << 64
            value |= 0b10 << 62
            value |= int.from_bytes(os.urandom(8), "big") & ((1 << 62) - 1)
            return UUID(int=value)


_generator = _Generator()


def new_id() -> UUID:
    """A fresh UUIDv7, greater than every id this process made before."""
    return _generator.next()


def first_id(millis: int) -> UUID:
    """Below every id made at or after this moment (Unix milliseconds), and above those made before."""
    return UUID(int=millis << 80)


def id_millis(identifier: UUID) -> int:
    """Milliseconds since the Unix epoch at which ``identifier`` was made.

    Also the score of a post in every sorted set: 48 bits, exact in the double that Valkey stores; ties are broken by
    the member, which begins with the id's bytes, so the order is total.
    """
    return identifier.int >> 80
