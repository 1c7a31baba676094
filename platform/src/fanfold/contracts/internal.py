"""Service-to-service HTTP: POST with MessagePack bodies under ``/internal``, never routed from outside.

Each `Endpoint` names its owner, path, request and response. Owners that answer with blobs also refill the cache
(``SET NX``). Ids are 16 raw bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import msgspec

Request = TypeVar("Request", bound=msgspec.Struct)
Response = TypeVar("Response", bound=msgspec.Struct)


@dataclass(frozen=True, slots=True)
class Endpoint(Generic[Request, Response]):
    """One call of one service by another."""

    service: str
    path: str
    request: type[Request]
    response: type[Response]


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
    """`follower_ids`: concatenated 16-byte ids. `total`: all followers.

    `celebrity`: `total` is above the threshold, or was and is not yet a tenth below it.
    """

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


class FollowingQuery(msgspec.Struct, frozen=True):
    """Whom of `others` (at most `MAX_BATCH`) `user_id` follows."""

    user_id: bytes
    others: list[bytes]


class TimelinesQuery(msgspec.Struct, frozen=True):
    """The newest `limit` posts of all `author_ids` together, older than post id `before` (empty: from the newest).

    `copy`: which copy of one author's timeline the caller has missed (-1: none but the timeline itself).
    """

    author_ids: bytes
    limit: int
    before: bytes = b""
    copy: int = -1


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
    """These images will be shown: each must exist, be `owner_id`'s and not have failed, else 422 names the first.

    `used_by`: the post that shows them; its deletion lets them go. Empty: the owner's profile, they stay with it.
    """

    owner_id: bytes
    image_ids: list[bytes]
    used_by: bytes = b""


class FollowChange(msgspec.Struct, frozen=True):
    """`follower_id` follows, or no longer follows, `followee_id`. Answered when no later feed read can be wrong."""

    follower_id: bytes
    followee_id: bytes


class Done(msgspec.Struct, frozen=True):
    """Nothing to tell but that it is done."""


USERS = Endpoint("profile", "/internal/users/batch", Ids, Blobs)
"""Blobs are `UserBlob`."""
USER_IDS = Endpoint("profile", "/internal/users/by-username", Usernames, UserIds)
FOLLOWERS = Endpoint("follow", "/internal/followers", FollowersQuery, FollowersPage)
FOLLOWEES = Endpoint("follow", "/internal/followees", FolloweesQuery, Followees)
FOLLOWING = Endpoint("follow", "/internal/following", FollowingQuery, Ids)
BLOCKS = Endpoint("follow", "/internal/blocks/batch", Ids, Blobs)
"""Blobs as `keys.blocks` has them; every user asked for is answered."""
POSTS = Endpoint("post", "/internal/posts/batch", Ids, Blobs)
"""Blobs are `PostBlob`."""
TIMELINES = Endpoint("post", "/internal/timelines", TimelinesQuery, PostRefs)
ACTIVITY = Endpoint("activity", "/internal/activity/batch", ActivityQuery, ActivityAnswer)
IMAGES = Endpoint("image", "/internal/images/batch", Ids, Blobs)
"""Blobs are `ImageBlob`."""
CLAIM_IMAGES = Endpoint("image", "/internal/images/claim", ImageClaim, Blobs)
"""Blobs are `ImageBlob`."""
FEED_FOLLOW = Endpoint("feed", "/internal/feeds/follow", FollowChange, Done)
FEED_UNFOLLOW = Endpoint("feed", "/internal/feeds/unfollow", FollowChange, Done)
