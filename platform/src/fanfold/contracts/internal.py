"""Service-to-service HTTP: MessagePack bodies (``application/msgpack``) under ``/internal``, never routed from outside.

===============  =========================================  ==============================================
owner            method and path                            request -> response
===============  =========================================  ==============================================
profile          POST ``/internal/users/batch``             `Ids` -> `Blobs` of `UserBlob`
profile          POST ``/internal/users/by-username``       `Usernames` -> `UserIds`
follow           POST ``/internal/followers``               `FollowersQuery` -> `FollowersPage`
follow           POST ``/internal/followees``               `FolloweesQuery` -> `Followees`
post             POST ``/internal/posts/batch``             `Ids` -> `Blobs` of `PostBlob`
post             POST ``/internal/timelines``               `TimelinesQuery` -> `PostRefs`
activity         POST ``/internal/activity/batch``          `ActivityQuery` -> `ActivityAnswer`
image            POST ``/internal/images/batch``            `Ids` -> `Blobs` of `ImageBlob`
image            POST ``/internal/images/claim``            `ImageClaim` -> `Blobs` of `ImageBlob`
feed             POST ``/internal/feeds/follow``            `FollowChange` -> empty
feed             POST ``/internal/feeds/unfollow``          `FollowChange` -> empty
===============  =========================================  ==============================================

Owners that answer with blobs also refill the cache (``SET NX``). Ids are 16 raw bytes.
"""

from __future__ import annotations

from typing import Final

import msgspec

MEDIA_TYPE: Final = "application/msgpack"
MAX_BATCH: Final = 1_000
"""Most ids in one batch; more is answered with 422."""
FOLLOWERS_PAGE: Final = 5_000
"""Followers a page: one chunk of fan-out."""


class Ids(msgspec.Struct, frozen=True):
    """At most `MAX_BATCH` ids."""

    ids: list[bytes]


class Blobs(msgspec.Struct, frozen=True):
    """Found things by id, each a packed blob of the kind the path names. Missing ids are left out."""

    blobs: dict[bytes, bytes]


class Usernames(msgspec.Struct, frozen=True):
    """At most `MAX_BATCH` usernames."""

    usernames: list[str]


class UserIds(msgspec.Struct, frozen=True):
    """User ids by username. Unknown names are left out."""

    ids: dict[str, bytes]


class FollowersQuery(msgspec.Struct, frozen=True):
    """Followers of `user_id` in id order, above `after` (empty: from the first)."""

    user_id: bytes
    after: bytes = b""
    limit: int = FOLLOWERS_PAGE


class FollowersPage(msgspec.Struct, frozen=True):
    """`follower_ids`: concatenated 16-byte ids. `total`: all followers. `celebrity`: `total` is above the threshold."""

    follower_ids: bytes
    total: int
    celebrity: bool


class FolloweesQuery(msgspec.Struct, frozen=True):
    """Everybody `user_id` follows."""

    user_id: bytes


class Followees(msgspec.Struct, frozen=True):
    """Concatenated 16-byte ids: followees whose posts are pushed, and those whose posts are pulled."""

    pushed: bytes
    celebrities: bytes


class TimelinesQuery(msgspec.Struct, frozen=True):
    """The newest `limit` posts of all `author_ids` together, older than post id `before` (empty: from the newest)."""

    author_ids: bytes
    limit: int
    before: bytes = b""


class PostRefs(msgspec.Struct, frozen=True):
    """Concatenated 32-byte members (post id, author id), newest first."""

    members: bytes


class ActivityQuery(msgspec.Struct, frozen=True):
    """Counts of posts, and which of them `user_id` likes."""

    user_id: bytes
    post_ids: list[bytes]


class ActivityAnswer(msgspec.Struct, frozen=True):
    """`counts`: (likes, comments) per post id asked; `liked`: ids among them that the user likes."""

    counts: dict[bytes, tuple[int, int]]
    liked: list[bytes]


class ImageClaim(msgspec.Struct, frozen=True):
    """A post wants these images: each must exist, be `owner_id`'s and not have failed, else 422 names the first."""

    owner_id: bytes
    image_ids: list[bytes]


class FollowChange(msgspec.Struct, frozen=True):
    """`follower_id` follows, or no longer follows, `followee_id`. Answered when no later feed read can be wrong."""

    follower_id: bytes
    followee_id: bytes
