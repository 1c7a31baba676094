"""Which posts make a page: the pure part of a feed read.

Members are post id then author id, so their byte order is the order of post ids, newest greatest.
"""

from __future__ import annotations

from itertools import takewhile
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

ABOVE_ALL: Final = b"\xff" * 33
"""Greater than any member."""


class Source(NamedTuple):
    """Posts of one place, newest first. ``complete``: there are none below its last."""

    members: Sequence[bytes]
    complete: bool


class Window(NamedTuple):
    """One page of members, newest first. ``more``: perhaps there are posts below."""

    members: list[bytes]
    more: bool


def page(sources: Sequence[Source], limit: int, before: bytes = ABOVE_ALL) -> Window | None:
    """The newest ``limit`` posts below ``before`` (a post id); None when the sources do not reach that deep.

    Below the last post of a source that is cut off, others may hold posts that come after posts nobody here knows: so
    the merge ends at the highest such last post.
    """
    if len(sources) == 1:
        return _page_of_one(sources[0], limit, before)
    floor = max((_last(source) for source in sources if not source.complete), default=b"")
    merged = {
        member
        for source in sources
        for member in takewhile(lambda candidate: candidate >= floor, source.members)
        if member < before
    }
    found = sorted(merged, reverse=True)
    everything = all(source.complete for source in sources)
    if len(found) < limit and not everything:
        return None
    return Window(found[:limit], more=len(found) > limit or not everything)


def _page_of_one(source: Source, limit: int, before: bytes) -> Window | None:
    """The same without a merge: most feeds fold nobody in."""
    found = source.members if before is ABOVE_ALL else [member for member in source.members if member < before]
    if len(found) < limit and not source.complete:
        return None
    return Window(list(found[:limit]), more=len(found) > limit or not source.complete)


def _last(source: Source) -> bytes:
    return source.members[-1] if source.members else ABOVE_ALL
