"""From references to posts as JSON: the second round trip of every read of posts, one pipeline of four commands.

What the cache has not, its owner is asked for, one batch per owner, all owners at once. No post fails a page:

- deleted posts and posts of deleted users are left out;
- posts or authors whose owner does not answer are left out too, unless that would empty the page: then it is 503;
- counts fall back to the last known, else to zero, and likes to not liked, while the activity service does not answer.

Pages may so be shorter than asked for; cursors come from the references, not from what is left of them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from fanfold.contracts import internal, keys
from fanfold.contracts.blobs import COUNTS_FRESH_MS
from fanfold.kit import metrics
from fanfold.kit.errors import Problem, Unavailable
from fanfold.kit.fragments import AuthorFragment, CountsFragment, Fragments, PostFragment, Remembered, counts_json
from fanfold.kit.logging import get_logger
from fanfold.kit.valkey import packed
from fanfold.kit.warm import WarmPosts

if TYPE_CHECKING:
    from uuid import UUID

    from fanfold.kit.media import MediaUrls
    from fanfold.kit.peers import Peers
    from fanfold.kit.valkey import Valkey

log = get_logger(__name__)

BlobSource = Callable[[list[bytes]], Awaitable[Mapping[bytes, bytes]]]
"""Packed blobs by id; ids that do not exist are left out. Raises `Problem` when it cannot tell."""
Answer = TypeVar("Answer")
Made = TypeVar("Made")

OWNER_SECONDS: Final = 2.0
"""A page waits no longer for an owner; what is missing then is left out."""
_ID: Final = 16
_MGET: Final = (b"MGET",)
_NO_COUNTS: Final = counts_json(0, 0)
_WHOLE: Final = metrics.CACHE_PAGES.labels("whole")
_FILLED: Final = metrics.CACHE_PAGES.labels("filled")


@dataclass(frozen=True, slots=True)
class Hydrated:
    """JSON of posts in the order of their references. ``gone``: references whose post or author exists no more."""

    posts: list[bytes]
    gone: list[bytes]


@dataclass(slots=True)
class _Parts:
    """What is known of one page. A thing is missing while it is in neither ``gone`` nor its mapping."""

    post_ids: list[bytes]
    author_ids: list[bytes]
    posts: dict[bytes, PostFragment] = field(default_factory=dict)
    users: dict[bytes, AuthorFragment] = field(default_factory=dict)
    counts: dict[bytes, bytes] = field(default_factory=dict)
    liked: dict[bytes, bool] = field(default_factory=dict)
    stale: set[bytes] = field(default_factory=set)
    gone: set[bytes] = field(default_factory=set)

    @property
    def complete(self) -> bool:
        """Nothing is missing, nor stale, nor gone: what a warm read looks like."""
        count = len(self.post_ids)
        return (
            len(self.posts) == count == len(self.liked) and len(self.users) == len(self.author_ids) and not self.stale
        )


class Hydrator:
    """Turns references (post id, author id: 32 bytes) into posts as one viewer sees them.

    Args:
        valkey: Where the owners keep blobs.
        peers: How to reach the owners.
        media: Addresses of photos.
        posts: Where missing posts come from; the post service gives its own.
    """

    def __init__(self, valkey: Valkey, peers: Peers, media: MediaUrls, *, posts: BlobSource | None = None) -> None:
        self._valkey = valkey
        self._peers = peers
        self._fragments = Fragments(media)
        self._warm = WarmPosts(self._fragments)
        self._ask_posts = posts or self._posts_of_peer

    async def hydrate(self, members: Sequence[bytes], viewer: UUID) -> Hydrated:
        """Posts as ``viewer`` sees them.

        Raises:
            Unavailable: Not one post could be shown, because an owner does not answer.
            ValkeyUnavailableError: Valkey does not answer.
        """
        if not members:
            return Hydrated([], [])
        parts = _Parts([member[:_ID] for member in members], list(dict.fromkeys(member[_ID:] for member in members)))
        warm = await self._read(members, parts, viewer)
        if warm is not None:
            _WHOLE.inc()
            return Hydrated(warm, [])
        complete = await self._ask_owners(parts, viewer)
        posts = _assemble(members, parts)
        if not posts and not complete:
            raise Unavailable("The posts cannot be read now; try again.")
        if not parts.gone:
            return Hydrated(posts, [])
        gone = [member for member in members if member[:_ID] in parts.gone or member[_ID:] in parts.gone]
        return Hydrated(posts, gone)

    async def _read(self, members: Sequence[bytes], parts: _Parts, viewer: UUID) -> list[bytes] | None:
        """What the cache has: the posts when that is all of the page, else None and what there is in ``parts``."""
        fragments = self._fragments
        posts, users, counts, scores = await self._valkey.all(
            (
                packed(_MGET, keys.POST, parts.post_ids),
                packed(_MGET, keys.USER, parts.author_ids),
                packed(_MGET, keys.COUNTS, parts.post_ids),
                packed((b"ZMSCORE", keys.liked(viewer), keys.COMPLETE), b"", parts.post_ids),
            )
        )
        by_author = dict(zip(parts.author_ids, users, strict=True))
        warm = self._warm.page(members, parts.post_ids, (posts, by_author, counts), scores, _oldest_counts())
        if warm is not None:
            return warm
        _take(parts.post_ids, posts, fragments.posts, parts.posts, parts.gone)
        _take(parts.author_ids, users, fragments.authors, parts.users, parts.gone)
        _take_counts(parts, counts, fragments.counts)
        parts.liked = known_likes(parts.post_ids, scores)
        return None

    async def _ask_owners(self, parts: _Parts, viewer: UUID) -> bool:
        """Fill in what is missing; False if an owner of posts or users did not answer."""
        if parts.complete:
            _WHOLE.inc()
            return True
        posts = [post_id for post_id in parts.post_ids if not (post_id in parts.posts or post_id in parts.gone)]
        users = [user_id for user_id in parts.author_ids if not (user_id in parts.users or user_id in parts.gone)]
        doubtful = (parts.stale | (set(parts.post_ids) - parts.liked.keys())) - parts.gone
        if not (posts or users or doubtful):
            _WHOLE.inc()
            return True
        _FILLED.inc()
        for what, missing in (("posts", posts), ("users", users), ("activity", doubtful)):
            metrics.CACHE_MISSES.labels(what).inc(len(missing))
        answers = await asyncio.gather(
            self._fill(posts, self._ask_posts, self._fragments.posts, parts.posts, parts.gone),
            self._fill(users, self._users_of_peer, self._fragments.authors, parts.users, parts.gone),
            self._fill_activity(list(doubtful), parts, viewer),
        )
        return answers[0] and answers[1]

    async def _fill(
        self,
        wanted: list[bytes],
        ask: BlobSource,
        fragments: Remembered[Made],
        found: dict[bytes, Made],
        gone: set[bytes],
    ) -> bool:
        if not wanted:
            return True
        blobs = await _unless_down(ask(wanted))
        if blobs is None:
            return False
        _take(wanted, [blobs.get(item, keys.TOMBSTONE) for item in wanted], fragments, found, gone)
        return True

    async def _fill_activity(self, wanted: list[bytes], parts: _Parts, viewer: UUID) -> None:
        if not wanted:
            return
        answer = await _unless_down(self._peers.call(internal.ACTIVITY, internal.ActivityQuery(viewer.bytes, wanted)))
        if answer is not None:
            liked = set(answer.liked)
            parts.counts.update({post_id: counts_json(*counts) for post_id, counts in answer.counts.items()})
            parts.liked.update({post_id: post_id in liked for post_id in wanted})

    async def _posts_of_peer(self, ids: list[bytes]) -> Mapping[bytes, bytes]:
        return (await self._peers.call(internal.POSTS, internal.Ids(ids))).blobs

    async def _users_of_peer(self, ids: list[bytes]) -> Mapping[bytes, bytes]:
        return (await self._peers.call(internal.USERS, internal.Ids(ids))).blobs


def _assemble(members: Sequence[bytes], parts: _Parts) -> list[bytes]:
    posts = []
    for member in members:
        post_id = member[:_ID]
        post, author = parts.posts.get(post_id), parts.users.get(member[_ID:])
        if post is not None and author is not None:
            counts = parts.counts.get(post_id, _NO_COUNTS)
            posts.append(post.json(author, counts, liked=parts.liked.get(post_id, False)))
    return posts


async def _unless_down(asked: Awaitable[Answer]) -> Answer | None:
    """The owner's answer; None, and a line in the log, when there is none in time."""
    try:
        async with asyncio.timeout(OWNER_SECONDS):
            return await asked
    except (Problem, TimeoutError) as error:
        log.warning("hydration_degraded", error=repr(error))
        return None


def _take(
    ids: Sequence[bytes],
    values: Sequence[bytes | None],
    fragments: Remembered[Made],
    found: dict[bytes, Made],
    gone: set[bytes],
) -> None:
    for item, value in zip(ids, values, strict=True):
        if value == keys.TOMBSTONE:
            gone.add(item)
        elif value is not None:
            try:
                found[item] = fragments.of(item, value)
            except msgspec.DecodeError as error:  # of another version: the owner is asked
                log.warning("blob_unreadable", error=str(error))


def _oldest_counts() -> float:
    """Counts from before are stale (Unix milliseconds)."""
    return time.time() * 1000 - COUNTS_FRESH_MS


def _take_counts(parts: _Parts, values: Sequence[bytes | None], fragments: Remembered[CountsFragment]) -> None:
    oldest = _oldest_counts()
    found: dict[bytes, CountsFragment] = {}
    _take(parts.post_ids, values, fragments, found, set())
    for post_id in parts.post_ids:
        counts = found.get(post_id)
        if counts is not None:
            parts.counts[post_id] = counts.json
        if counts is None or counts.counted_ms < oldest:
            parts.stale.add(post_id)


def known_likes(post_ids: Sequence[bytes], scores: Sequence[Any]) -> dict[bytes, bool]:
    """Which posts are liked, of those that `keys.liked` can tell of.

    ``scores``: answer of ZMSCORE for `keys.COMPLETE` and then the posts.
    """
    floor, *found = scores
    if floor is None:
        return {}
    known_above = float(floor)
    if known_above <= 0:
        return {post_id: score is not None for post_id, score in zip(post_ids, found, strict=True)}
    return {
        post_id: score is not None
        for post_id, score in zip(post_ids, found, strict=True)
        if score is not None or int.from_bytes(post_id[:6], "big") > known_above
    }
