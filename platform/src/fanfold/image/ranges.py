"""Range requests (RFC 9110, section 14), for representations that never change."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_RANGE: Final = re.compile(r"bytes=(\d{0,15})-(\d{0,15})")


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes ``start`` to ``start + length - 1`` of ``size``."""

    start: int
    length: int
    size: int

    @property
    def content_range(self) -> str:
        """Value of the ``Content-Range`` header."""
        return f"bytes {self.start}-{self.start + self.length - 1}/{self.size}"


class UnsatisfiableError(Exception):
    """The range lies beyond the representation's end: 416."""


def requested_span(header: str | None, size: int) -> Span | None:
    """What a ``Range`` header asks of ``size`` bytes; None for all of it.

    Malformed headers, other units and several ranges at once are ignored, as section 14.2 allows.

    Raises:
        UnsatisfiableError: Nothing of it can be sent.
    """
    match = _RANGE.fullmatch(header.strip()) if header else None
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:
        start, end = max(0, size - int(last)), size
        if not int(last):
            raise UnsatisfiableError
    else:
        start, end = int(first), min(size, int(last) + 1) if last else size
        if last and int(last) < int(first):
            return None
    if start >= size:
        raise UnsatisfiableError
    return Span(start, end - start, size)
