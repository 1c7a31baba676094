"""From references to posts: the second round trip of every read of posts, one pipeline of four commands.

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
from fanfold.contracts.blobs import COUNTS_FRESH_MS, CountsBlob, PostBlob, UserBlob
from fanfold.kit.errors import Problem, Unavailable
from fanfold.kit.logging import get_logger
from fanfold.kit.views import AuthorView, PostView, author_view, post_view

if TYPE_CHECKING:
    from uuid import UUID

    from fanfold.kit.peers import Peers
    from fanfold.kit.valkey import Argument, Valkey

log = get_logger(__name__)

BlobSource = Callable[[list[bytes]], Awaitable[Mapping[bytes, bytes]]]
"""Packed blobs by id; ids that do not exist are left out. Raises `Problem` when it cannot tell."""
Answer = TypeVar("Answer")
Blob = TypeVar("Blob", PostBlob, UserBlob, CountsBlob)

OWNER_SECONDS: Final = 2.0
"""A page waits no longer for an owner; what is missing then is left out."""
_ID: Final = 16
_posts = msgspec.msgpack.Decoder(PostBlob)
_users = msgspec.msgpack.Decoder(UserBlob)
_counts = msgspec.msgpack.Decoder(CountsBlob)


@dataclass(frozen=True, slots=True)
class Hydrated:
    """Posts in the order of their references. ``gone``: references whose post or author does not exist any more."""

    posts: list[PostView]
    gone: list[bytes]


@dataclass(slots=True)
class _Parts:
    """What is known of one page. A thing is missing while it is in neither ``gone`` nor its mapping."""

    post_ids: list[bytes]
    author_ids: list[bytes]
    posts: dict[bytes, PostBlob] = field(default_factory=dict)
    users: dict[bytes, UserBlob] = field(default_factory=dict)
    counts: dict[bytes, tuple[int, int]] = field(default_factory=dict)
    liked: dict[bytes, bool] = field(default_factory=dict)
    stale: set[bytes] = field(default_factory=set)
    gone: set[bytes] = field(default_factory=set)


class Hydrator:
    """Turns references (post id, author id: 32 bytes) into posts as one viewer sees them.

    Args:
        valkey: Where the owners keep blobs.
        peers: How to reach the owners.
        media_base_url: Prefix of photo URLs.
        posts: Where missing posts come from; the post service gives its own.
    """

    def __init__(self, valkey: Valkey, peers: Peers, media_base_url: str, *, posts: BlobSource | None = None) -> None:
        self._valkey = valkey
        self._peers = peers
        self._media_base_url = media_base_url
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
        await self._read(parts, viewer)
        complete = await self._ask_owners(parts, viewer)
        posts = self._assemble(members, parts)
        if not posts and not complete:
            raise Unavailable("The posts cannot be read now; try again.")
        gone = [member for member in members if member[:_ID] in parts.gone or member[_ID:] in parts.gone]
        return Hydrated(posts, gone)

    async def _read(self, parts: _Parts, viewer: UUID) -> None:
        commands: list[list[Argument]] = [
            ["MGET", *(keys.POST + post_id for post_id in parts.post_ids)],
            ["MGET", *(keys.USER + user_id for user_id in parts.author_ids)],
            ["MGET", *(keys.COUNTS + post_id for post_id in parts.post_ids)],
            ["ZMSCORE", keys.liked(viewer), keys.COMPLETE, *parts.post_ids],
        ]
        answers = await self._valkey.pipeline(commands)
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        posts, users, counts, scores = answers
        _take(parts.post_ids, posts, _posts, parts.posts, parts.gone)
        _take(parts.author_ids, users, _users, parts.users, parts.gone)
        _take_counts(parts, counts)
        parts.liked = known_likes(parts.post_ids, scores)

    async def _ask_owners(self, parts: _Parts, viewer: UUID) -> bool:
        """Fill in what is missing; False if an owner of posts or users did not answer."""
        posts = [post_id for post_id in parts.post_ids if not (post_id in parts.posts or post_id in parts.gone)]
        users = [user_id for user_id in parts.author_ids if not (user_id in parts.users or user_id in parts.gone)]
        doubtful = (parts.stale | (set(parts.post_ids) - parts.liked.keys())) - parts.gone
        if not (posts or users or doubtful):
            return True
        answers = await asyncio.gather(
            self._fill(posts, self._ask_posts, _posts, parts.posts, parts.gone),
            self._fill(users, self._users_of_peer, _users, parts.users, parts.gone),
            self._fill_activity(list(doubtful), parts, viewer),
        )
        return answers[0] and answers[1]

    async def _fill(
        self,
        wanted: list[bytes],
        ask: BlobSource,
        decoder: msgspec.msgpack.Decoder[Blob],
        found: dict[bytes, Blob],
        gone: set[bytes],
    ) -> bool:
        if not wanted:
            return True
        blobs = await _unless_down(ask(wanted))
        if blobs is None:
            return False
        _take(wanted, [blobs.get(item, keys.TOMBSTONE) for item in wanted], decoder, found, gone)
        return True

    async def _fill_activity(self, wanted: list[bytes], parts: _Parts, viewer: UUID) -> None:
        if not wanted:
            return
        answer = await _unless_down(self._peers.call(internal.ACTIVITY, internal.ActivityQuery(viewer.bytes, wanted)))
        if answer is not None:
            liked = set(answer.liked)
            parts.counts.update(answer.counts)
            parts.liked.update({post_id: post_id in liked for post_id in wanted})

    async def _posts_of_peer(self, ids: list[bytes]) -> Mapping[bytes, bytes]:
        return (await self._peers.call(internal.POSTS, internal.Ids(ids))).blobs

    async def _users_of_peer(self, ids: list[bytes]) -> Mapping[bytes, bytes]:
        return (await self._peers.call(internal.USERS, internal.Ids(ids))).blobs

    def _assemble(self, members: Sequence[bytes], parts: _Parts) -> list[PostView]:
        base = self._media_base_url
        authors: dict[bytes, AuthorView] = {user_id: author_view(blob, base) for user_id, blob in parts.users.items()}
        views = []
        for member in members:
            post_id = member[:_ID]
            blob, author = parts.posts.get(post_id), authors.get(member[_ID:])
            if blob is not None and author is not None:
                counts = parts.counts.get(post_id, (0, 0))
                views.append(post_view(blob, author, base, counts=counts, liked=parts.liked.get(post_id, False)))
        return views


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
    decoder: msgspec.msgpack.Decoder[Blob],
    found: dict[bytes, Blob],
    gone: set[bytes],
) -> None:
    for item, value in zip(ids, values, strict=True):
        if value == keys.TOMBSTONE:
            gone.add(item)
        elif value is not None:
            try:
                found[item] = decoder.decode(value)
            except msgspec.DecodeError as error:  # of another version: the owner is asked
                log.warning("blob_unreadable", kind=decoder.type.__name__, error=str(error))


def _take_counts(parts: _Parts, values: Sequence[bytes | None]) -> None:
    oldest = time.time() * 1000 - COUNTS_FRESH_MS
    found: dict[bytes, CountsBlob] = {}
    _take(parts.post_ids, values, _counts, found, set())
    for post_id in parts.post_ids:
        blob = found.get(post_id)
        if blob is not None:
            parts.counts[post_id] = (blob.likes, blob.comments)
        if blob is None or blob.counted_ms < oldest:
            parts.stale.add(post_id)


def known_likes(post_ids: Sequence[bytes], scores: Sequence[Any]) -> dict[bytes, bool]:
    """Which posts are liked, of those that `keys.liked` can tell of.

    ``scores``: answer of ZMSCORE for `keys.COMPLETE` and then the posts.
    """
    floor, *found = scores
    if floor is None:
        return {}
    known_above = float(floor)
    return {
        post_id: score is not None
        for post_id, score in zip(post_ids, found, strict=True)
        if score is not None or int.from_bytes(post_id[:6], "big") > known_above
    }
