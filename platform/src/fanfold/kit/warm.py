"""Whole posts as JSON, for pages of which everything is there: a post is then four comparisons and no copy.

A post's JSON depends on three blobs and on one word for its reader. It is remembered beside the blobs it was made of:
other blobs, another text, so nothing is ever stale. A page of which anything is missing, deleted, unreadable or counted
too long ago is none of this module's business: `fanfold.kit.hydrate` asks the owners. Posts with addresses that expire
are forgotten when others take their place: one comparison a page.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from fanfold.contracts import keys
from fanfold.kit.fragments import LIMIT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fanfold.kit.fragments import AuthorFragment, CountsFragment, Fragments, PostFragment


class _Whole:
    """One post with its author and counts."""

    __slots__ = ("_author", "_fragment", "counted_ms", "counts", "json", "liked_json", "post", "user")

    def __init__(
        self, blobs: tuple[bytes, bytes, bytes], fragment: PostFragment, author: AuthorFragment, counts: CountsFragment
    ) -> None:
        self.post, self.user, self.counts = blobs
        self.counted_ms = counts.counted_ms
        self._fragment = fragment
        self._author = author
        self.json = fragment.json(author, counts.json, liked=False)
        self.liked_json = b""

    def liked(self, counts: CountsFragment) -> bytes:
        """The same for those who like it: made when the first of them reads it."""
        self.liked_json = self._fragment.json(self._author, counts.json, liked=True)
        return self.liked_json


class WarmPosts:
    """What whole posts are remembered, by id. The oldest goes first when there are too many: some 2 kB each.

    Args:
        fragments: Of which they are made.
        limit: How many are kept.
    """

    def __init__(self, fragments: Fragments, limit: int = LIMIT) -> None:
        self._fragments = fragments
        self._limit = limit
        self._known: dict[bytes, _Whole] = {}
        self._expiring: set[bytes] = set()
        self._turns_at_ms = 0.0

    def page(
        self,
        members: Sequence[bytes],
        post_ids: Sequence[bytes],
        blobs: tuple[Sequence[bytes | None], dict[bytes, bytes | None], Sequence[bytes | None]],
        scores: Sequence[Any],
        oldest_ms: float,
    ) -> list[bytes] | None:
        """The posts as JSON, in order; None when the page is not wholly there.

        Args:
            members: References: post id, then author id.
            post_ids: Those of ``members``.
            blobs: Posts in order, users by id, counts in order.
            scores: Answer of ZMSCORE for `keys.COMPLETE` and then the posts, in the reader's likes.
            oldest_ms: Counts from before are too old (Unix milliseconds). Addresses that expire turn when this moment
                is past their period: so long after it they are good for another.
        """
        if oldest_ms >= self._turns_at_ms:
            self._turn(oldest_ms)
        posts, users, counts = blobs
        if scores[0] is None:
            return None
        known_above = float(scores[0])
        known = self._known.get
        page = []
        for member, post_id, post, counted, score in zip(members, post_ids, posts, counts, scores[1:], strict=True):
            whole = known(post_id)
            user = users[member[16:]]
            if whole is None or whole.post != post or whole.counts != counted or whole.user != user:
                whole = self._make(member, post, user, counted)
                if whole is None:
                    return None
            if whole.counted_ms < oldest_ms:
                return None
            if score is not None:
                page.append(whole.liked_json or whole.liked(self._fragments.counts.of(post_id, whole.counts)))
            elif known_above > 0 and int.from_bytes(post_id[:6], "big") <= known_above:
                return None
            else:
                page.append(whole.json)
        return page

    def _make(self, member: bytes, post: bytes | None, user: bytes | None, counts: bytes | None) -> _Whole | None:
        if post is None or user is None or counts is None or keys.TOMBSTONE in (post, user, counts):
            return None
        post_id, fragments = member[:16], self._fragments
        try:
            counted = fragments.counts.of(post_id, counts)
            fragment, author = fragments.posts.of(post_id, post), fragments.authors.of(member[16:], user)
        except msgspec.DecodeError:
            return None
        if post_id not in self._known and len(self._known) >= self._limit:
            oldest = next(iter(self._known))
            del self._known[oldest]
            self._expiring.discard(oldest)
        if author.closed:
            self._expiring.add(post_id)
        whole = self._known[post_id] = _Whole((post, user, counts), fragment, author, counted)
        return whole

    def _turn(self, now_ms: float) -> None:
        for post_id in self._expiring:
            self._known.pop(post_id, None)
        self._expiring.clear()
        self._turns_at_ms = self._fragments.media.turns_at(now_ms / 1000) * 1000
