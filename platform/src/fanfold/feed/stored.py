"""A feed as Valkey keeps it: the pure part of what the scripts do.

A feed is one list. Its first element is the header, the others are posts (`keys.FEED_MEMBER_BYTES`: post id, author id)
in the order in which they were pushed. Readers sort, so that a push is one command that looks at nothing.

The header, 48 bytes and 16 for each celebrity:

* marker, 16 bytes: `WHOLE` in a feed, random while it is being rebuilt;
* tick, 16 digits: that of `keys.FEED_CLOCK` at which the rebuild began (microseconds: exact in Lua's doubles to 2^53);
* floor, 16 bytes: a post id. All posts from there up are here; `EVERYTHING` if there are none below;
* ids of the celebrities to fold in, 16 bytes each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

ID_BYTES: Final = 16
WHOLE: Final = bytes(ID_BYTES)
EVERYTHING: Final = bytes(ID_BYTES)
UNARMED: Final = b"%d" % (2**53 - 1)
"""Above every tick."""


@dataclass(frozen=True, slots=True)
class CachedFeed:
    """A feed that may be read.

    Attributes:
        members: 32-byte members (post id, author id), newest first.
        celebrities: 16-byte ids of the authors to fold in.
        complete: There are no posts below the last of `members`.
    """

    members: list[bytes]
    celebrities: list[bytes]
    complete: bool


def split_ids(data: bytes, size: int = ID_BYTES) -> list[bytes]:
    """Concatenated ids (or members, with their ``size``) as a list."""
    return [data[start : start + size] for start in range(0, len(data), size)]


def header(marker: bytes, tick: bytes, floor: bytes = EVERYTHING, celebrities: bytes = b"") -> bytes:
    """First element of a feed; ``tick`` as 16 digits."""
    return marker + tick + floor + celebrities


def floor_of(members: Sequence[bytes], asked: int) -> bytes:
    """The floor of a feed of these, newest first, when there would have been more only past ``asked``."""
    return members[-1][:ID_BYTES] if len(members) >= asked else EVERYTHING


def parse(elements: Sequence[bytes]) -> CachedFeed | None:
    """The feed of a list's elements; None when there is none, or while it is being rebuilt."""
    if not elements or not elements[0].startswith(WHOLE):
        return None
    head = elements[0]
    floor = head[2 * ID_BYTES : 3 * ID_BYTES]
    members = sorted(set(elements[1:]), reverse=True)
    while members and members[-1] < floor:  # a late push, or one of the posts that were there when others were cut off
        members.pop()
    return CachedFeed(members, split_ids(head[3 * ID_BYTES :]), complete=floor == EVERYTHING)


def build(members: Sequence[bytes], tick: bytes, asked: int, celebrities: bytes = b"") -> list[bytes]:
    """Elements of a whole feed of ``members``, newest first, of which ``asked`` were wanted."""
    return [header(WHOLE, tick, floor_of(members, asked), celebrities), *reversed(members)]
