"""Messages of fan-out: what travels on the lanes' streams. Each is one bounded piece of work."""

from __future__ import annotations

from typing import Final, Literal

import msgspec
import xxhash

from fanfold.contracts.events import PARTITIONS
from fanfold.kit.streams import PoisonError

Action = Literal["push", "restore", "remove", "invalidate"]
"""`push` a post into feeds (`restore`: again, silently), `remove` it, or `invalidate` the feeds themselves (the author
crossed the threshold, or was hidden and is shown again)."""
Lane = Literal["fanout-small", "fanout-large"]
"""A lane is a topic of its own."""

SMALL: Final[Lane] = "fanout-small"
LARGE: Final[Lane] = "fanout-large"
LANES: Final[tuple[Lane, ...]] = (SMALL, LARGE)


class Chunk(msgspec.Struct, frozen=True, tag="chunk"):
    """Feeds of one page of followers.

    Attributes:
        action: What to do with them.
        post_id: 16 bytes; the post at which the crossing was seen, to invalidate.
        author_id: 16 bytes.
        tick: Tick of the feed clock before the followers were read.
        recipients: Concatenated 16-byte user ids.
        index: Its number among the chunks of its post, from 0; -1 where nobody waits for the last one.
        last: No chunk of the post comes after it.
    """

    action: Action
    post_id: bytes
    author_id: bytes
    tick: int
    recipients: bytes
    index: int = -1
    last: bool = False


class Split(msgspec.Struct, frozen=True, tag="split"):
    """Read the page of followers above `after`, put its `Chunk` and the next `Split` on the lane.

    The message is the durable cursor through a long list: whoever takes it over goes on where it stands. `index` is
    the number of its chunk.
    """

    action: Action
    post_id: bytes
    author_id: bytes
    after: bytes
    index: int = -1

    @property
    def key(self) -> bytes:
        """Equal for all splits of one list for one purpose."""
        return self.action.encode() + b":" + self.post_id


Job = Chunk | Split

_decoder: msgspec.msgpack.Decoder[Job] = msgspec.msgpack.Decoder(Job)


def encode(job: Job) -> bytes:
    """MessagePack."""
    return msgspec.msgpack.encode(job)


def decode(data: bytes) -> Job:
    """Parse one job.

    Raises:
        PoisonError: Not a job this version knows.
    """
    try:
        return _decoder.decode(data)
    except msgspec.DecodeError as error:
        raise PoisonError(f"not a fan-out job: {error}") from error


def partition(job: Job) -> int:
    """Chunks spread over all partitions of their lane; order among them does not matter."""
    place = job.recipients[:16] if isinstance(job, Chunk) else job.after
    return xxhash.xxh3_64_intdigest(job.post_id + place) % PARTITIONS
