"""Valkey keys. Ids stand as 16 raw bytes. A tag in braces keeps keys of one user bucket in one cluster slot."""

from __future__ import annotations

from binascii import crc_hqx
from itertools import count
from typing import Final
from uuid import UUID

BUCKETS: Final = 64
"""Feed buckets: one script call serves many feeds of one bucket, and a cluster spreads buckets over its nodes."""

FEED_MEMBER_BYTES: Final = 32
"""A post in a feed or timeline: post id (16 bytes), then author id (16 bytes)."""

COMPLETE: Final = bytes(FEED_MEMBER_BYTES)
"""Sentinel member of a complete sorted set, which may hold no post; without it the set counts as missing.

Its score in a timeline and in what a user likes is the floor, the lowest score there: what is above the floor is
complete, and a floor of 0 means everything.
"""

TOMBSTONE: Final = b""
"""Value of a blob key whose thing was deleted: readers drop it, refills (SET NX) cannot overwrite it."""

REVOKED_SESSIONS: Final = b"sessions:revoked"
"""Sorted set: member session id (16 bytes), score Unix seconds at which its last access token expires."""


FEED_CLOCK: Final = b"feeds:clock"
"""String: the newest tick of the clock that orders feed rebuilds and reads of follower lists."""


def bucket(user_id: UUID) -> int:
    """Bucket of a user: the low bits of the id's random part."""
    return user_id.int % BUCKETS


def feed_prefix(number: int) -> bytes:
    """What the feed keys of one bucket begin with; the user's 16 bytes follow.

    The 2 is the format: what another version of these services keeps is not met.
    """
    return b"feed:{%d}:2:" % number


def feed(user_id: UUID) -> bytes:
    """List: a header, then the newest posts of followees below the celebrity threshold. See `fanfold.feed.stored`."""
    return feed_prefix(bucket(user_id)) + user_id.bytes


def rebuilt(number: int) -> bytes:
    """String: the newest tick of `FEED_CLOCK` at which a rebuild of a feed of the bucket began."""
    return b"rebuilt:{%d}" % number


def pulled(author_id: UUID) -> bytes:
    """String: exists while the author's posts are pulled, not pushed (a celebrity, as fan-out last saw them)."""
    return b"pulled:" + author_id.bytes


def timeline(author_id: UUID) -> bytes:
    """Sorted set: the author's own newest posts (members as in feeds), written by the post service.

    A timeline with a floor is full: one that holds fewer posts than are asked for holds all there are.
    """
    return b"timeline:" + author_id.bytes


BANDS: Final = 48
"""Equal parts of a cluster's slots, so that 2, 3, 4 or 6 copies of a key can stand equally far apart."""
_SLOTS: Final = 16_384


def slot(key: bytes) -> int:
    """The slot of a key, or of its tag."""
    return crc_hqx(key, 0) % _SLOTS


def _tag(band: int) -> bytes:
    """The first number, as text, whose slot is in the middle half of a band."""
    numbers = (b"%d" % number for number in count())
    return next(one for one in numbers if abs(slot(one) * BANDS / _SLOTS - band - 0.5) < 0.25)


_TAGS: Final = tuple(_tag(band) for band in range(BANDS))


def timeline_copy(author_id: UUID, number: int, of: int) -> bytes:
    """As `timeline`, one of ``of`` copies: their slots are equally far apart, and with them the servers they are on."""
    band = (author_id.int + number * BANDS // of) % BANDS
    return b"timeline:{%b}:%b" % (_TAGS[band], author_id.bytes)


POST: Final = b"post:"
USER: Final = b"user:"
COUNTS: Final = b"counts:"
"""What keys of blobs begin with, for hot reads that have ids as bytes; the id's 16 bytes follow."""


def post(post_id: UUID) -> bytes:
    """String: a `PostBlob`, written by the post service."""
    return POST + post_id.bytes


def user(user_id: UUID) -> bytes:
    """String: a `UserBlob`, written by the profile service."""
    return USER + user_id.bytes


BLOCKS: Final = b"blocks:"
"""As `POST`: see `blocks`."""


def blocks(user_id: UUID) -> bytes:
    """String: concatenated 16-byte ids of those the user blocks (mostly none), written by the follow service.

    Whether two users are apart is told by both their strings.
    """
    return BLOCKS + user_id.bytes


def counts(post_id: UUID) -> bytes:
    """String: a `CountsBlob`, written by the activity service."""
    return COUNTS + post_id.bytes


def liked(user_id: UUID) -> bytes:
    """Sorted set: ids of the posts the user likes (16 bytes, scored by the post's time), by the activity service."""
    return b"liked:" + user_id.bytes


def notifications(user_id: UUID) -> bytes:
    """Publish/subscribe channel on which a user's new notifications arrive as JSON."""
    return b"notify:" + user_id.bytes


def notification_rate(user_id: UUID) -> bytes:
    """String: pushes to a user in the window under way, by all notification workers; lives as long as the window."""
    return b"notify-rate:" + user_id.bytes


def notification_hint(user_id: UUID) -> bytes:
    """String: exists while a user who gets too much to push has just been told to poll."""
    return b"notify-hint:" + user_id.bytes


def stream(topic: str, partition: int) -> bytes:
    """Stream of one partition of a topic; the tag spreads partitions over a cluster."""
    return b"stream:{%b:%d}" % (topic.encode(), partition)


def dead_letters(topic: str) -> bytes:
    """Stream of messages given up on, each with its reason."""
    return b"dead:" + topic.encode()


def rate_limit(policy: str, caller: int | str) -> bytes:
    """Hash of one caller's bucket (fields ``tokens``, ``at``): a position on the ring for users, or an address."""
    return f"limit:{policy}:{caller}".encode()
