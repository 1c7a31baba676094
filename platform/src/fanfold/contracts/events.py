"""Events between services: committed to the sender's outbox with the change they tell of, then relayed to a stream.

At least once: consumers are idempotent. `partition_key` keeps the order of events about one key.
"""

from __future__ import annotations

from typing import ClassVar, Final
from uuid import UUID

import msgspec
import xxhash

PARTITIONS: Final = 8
"""Partitions per topic: the upper bound of useful consumers in one group."""


class Event(msgspec.Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Base of all events. `topic` names the stream, `key_field` the field that orders it."""

    topic: ClassVar[str]
    key_field: ClassVar[str]

    @property
    def partition_key(self) -> UUID:
        """Events of equal key stay in order."""
        key: UUID = getattr(self, self.key_field)
        return key

    @property
    def partition(self) -> int:
        """The partition of the topic's stream this event goes to, 0 to `PARTITIONS` - 1."""
        return xxhash.xxh3_64_intdigest(self.partition_key.bytes) % PARTITIONS


class PostCreated(Event, frozen=True, kw_only=True):
    """A post was committed."""

    topic: ClassVar[str] = "posts"
    key_field: ClassVar[str] = "author_id"
    post_id: UUID
    author_id: UUID
    mentioned_usernames: list[str] = []


class PostDeleted(Event, frozen=True, kw_only=True):
    """A post was deleted; its blob already holds the tombstone."""

    topic: ClassVar[str] = "posts"
    key_field: ClassVar[str] = "author_id"
    post_id: UUID
    author_id: UUID
    image_ids: list[UUID] = []


class PostShown(Event, frozen=True, kw_only=True):
    """A post that moderators had hidden is shown again. Hiding has no event: the tombstone says all."""

    topic: ClassVar[str] = "posts"
    key_field: ClassVar[str] = "author_id"
    post_id: UUID
    author_id: UUID


class Followed(Event, frozen=True, kw_only=True):
    """A follow was committed."""

    topic: ClassVar[str] = "follows"
    key_field: ClassVar[str] = "follower_id"
    follower_id: UUID
    followee_id: UUID


class Unfollowed(Event, frozen=True, kw_only=True):
    """A follow was removed."""

    topic: ClassVar[str] = "follows"
    key_field: ClassVar[str] = "follower_id"
    follower_id: UUID
    followee_id: UUID


class FollowRequested(Event, frozen=True, kw_only=True):
    """Somebody asked to follow a private account."""

    topic: ClassVar[str] = "follows"
    key_field: ClassVar[str] = "follower_id"
    follower_id: UUID
    followee_id: UUID


class FollowApproved(Event, frozen=True, kw_only=True):
    """A request to follow was granted; `Followed` was committed with it."""

    topic: ClassVar[str] = "follows"
    key_field: ClassVar[str] = "follower_id"
    follower_id: UUID
    followee_id: UUID


class Blocked(Event, frozen=True, kw_only=True):
    """`blocker_id` blocks `blocked_id`; the follows between them are gone."""

    topic: ClassVar[str] = "follows"
    key_field: ClassVar[str] = "blocker_id"
    blocker_id: UUID
    blocked_id: UUID


class Liked(Event, frozen=True, kw_only=True):
    """`user_id` liked a post or a comment (`parent_type`) that `owner_id` wrote."""

    topic: ClassVar[str] = "activity"
    key_field: ClassVar[str] = "owner_id"
    activity_id: UUID
    user_id: UUID
    owner_id: UUID
    parent_type: str
    parent_id: UUID
    post_id: UUID


class Commented(Event, frozen=True, kw_only=True):
    """`user_id` commented on a post that `owner_id` wrote."""

    topic: ClassVar[str] = "activity"
    key_field: ClassVar[str] = "owner_id"
    activity_id: UUID
    comment_id: UUID
    user_id: UUID
    owner_id: UUID
    post_id: UUID
    excerpt: str


class ImageStored(Event, frozen=True, kw_only=True):
    """An original is in the object store: its variants are to be made."""

    topic: ClassVar[str] = "image-originals"
    key_field: ClassVar[str] = "image_id"
    image_id: UUID
    owner_id: UUID


class ImageReady(Event, frozen=True, kw_only=True):
    """All variants of an image can be read."""

    topic: ClassVar[str] = "images"
    key_field: ClassVar[str] = "image_id"
    image_id: UUID
    owner_id: UUID


class AccountDeleted(Event, frozen=True, kw_only=True):
    """An account was deleted: every service removes what it holds of this user."""

    topic: ClassVar[str] = "accounts"
    key_field: ClassVar[str] = "user_id"
    user_id: UUID


class AccountShown(Event, frozen=True, kw_only=True):
    """An account that moderators had hidden is shown again; its posts left feeds as those were read."""

    topic: ClassVar[str] = "accounts"
    key_field: ClassVar[str] = "user_id"
    user_id: UUID


class PrivacyChanged(Event, frozen=True, kw_only=True):
    """From `changed_ms` (Unix time) on an account is private, or public."""

    topic: ClassVar[str] = "accounts"
    key_field: ClassVar[str] = "user_id"
    user_id: UUID
    private: bool
    changed_ms: int


AnyEvent = (
    PostCreated
    | PostDeleted
    | PostShown
    | Followed
    | Unfollowed
    | FollowRequested
    | FollowApproved
    | Blocked
    | Liked
    | Commented
    | ImageStored
    | ImageReady
    | AccountDeleted
    | AccountShown
    | PrivacyChanged
)

TOPICS: Final[tuple[str, ...]] = ("posts", "follows", "activity", "image-originals", "images", "accounts")

GROUPS: Final[dict[str, tuple[str, ...]]] = {
    "posts": ("activity", "feed-worker", "image-worker", "notification-worker", "post"),
    "follows": ("feed-worker", "notification-worker"),
    "activity": ("notification-worker",),
    "image-originals": ("image-worker",),
    "images": ("post", "profile"),
    "accounts": ("activity", "feed-worker", "follow", "image-worker", "notification-worker", "post"),
}
"""Consumer groups that a platform has: no message is deleted before each of them exists and has acknowledged it."""

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[AnyEvent] = msgspec.msgpack.Decoder(AnyEvent)


def encode(event: Event) -> bytes:
    """MessagePack map with the event's name under ``type``."""
    return _encoder.encode(event)


def decode(data: bytes) -> AnyEvent:
    """Parse one event.

    Raises:
        msgspec.DecodeError: Not an event this version knows.
    """
    return _decoder.decode(data)
