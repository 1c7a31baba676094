"""Follows, requests, blocks and the marks of celebrities against a model, on a real PostgreSQL and Valkey.

The profile and feed services are a model at the boundary where the real ones answer over HTTP; the feed's may be away.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from fanfold.contracts import internal, keys
from fanfold.contracts.blobs import UserBlob
from fanfold.contracts.ids import new_id
from fanfold.follow import repository
from fanfold.follow.blocks import Blocks
from fanfold.follow.celebrities import Celebrities, FollowerTotals, is_celebrity
from fanfold.follow.requests import Requests
from fanfold.follow.service import Follows, Graph
from fanfold.follow.settings import FollowSettings
from fanfold.kit.cluster import connect
from fanfold.kit.db import Database
from fanfold.kit.errors import Conflict, NotFound, Problem, Unavailable

if TYPE_CHECKING:
    from fanfold.dev.stores import BackingStores

pytestmark = pytest.mark.integration

USERS = 4
THRESHOLD = 2
EVERYTHING = """
SELECT 'follow' AS kind, follower_id, followee_id FROM follow.follow WHERE follower_id = ANY(:users)
UNION ALL SELECT 'follower', follower_id, followee_id FROM follow.follower WHERE follower_id = ANY(:users)
UNION ALL SELECT 'request', follower_id, followee_id FROM follow.follow_request WHERE follower_id = ANY(:users)
UNION ALL SELECT 'block', blocker_id, blocked_id FROM follow.block WHERE blocker_id = ANY(:users)
UNION ALL SELECT 'celebrity', user_id, user_id FROM follow.celebrity WHERE user_id = ANY(:users)
"""
Pair = tuple[UUID, UUID]


class Neighbours:
    """The profile and the feed service. Follows the interfaces of `Users` and `Peers`."""

    def __init__(self) -> None:
        self.private: set[UUID] = set()
        self.feed_is_away = False

    async def blobs(self, ids: Iterable[UUID]) -> dict[UUID, UserBlob]:
        return {one: UserBlob(one.bytes, "x", "X", "", private=one in self.private) for one in ids}

    async def exists(self, _: UUID) -> bool:
        return True

    async def call(self, *_: Any) -> internal.Done:
        if self.feed_is_away:
            raise Unavailable("away")
        return internal.Done()


class Machine(RuleBasedStateMachine):
    """People who follow, ask, block and leave; each step is checked against sets."""

    database_url = ""
    valkey_url = ""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.users = [new_id() for _ in range(USERS)]
        self.around = Neighbours()
        self.around.private.update(self.users[:2])
        around: Any = self.around
        self.database = Database(create_async_engine(self.database_url))
        self.valkey = connect(self.valkey_url)
        self.celebrities = Celebrities(self.database, THRESHOLD)
        self.service = Follows(self.database, around, around, self.celebrities, FollowSettings())
        self.requests = Requests(self.database, self.service, self.celebrities)
        self.blocking = Blocks(self.database, self.valkey, around, self.service, 100)
        self.graph = Graph(self.database, self.celebrities, FollowerTotals(self.database, 0))
        # The model
        self.follows: set[Pair] = set()
        self.asked: set[Pair] = set()
        self.blocks: set[Pair] = set()
        self.marked: set[UUID] = set()
        self.once_blocked: set[Pair] = set()
        """Blocks of accounts that are gone: what others read may name them until it changes, for nobody can be them."""

    def run(self, work: Awaitable[Any]) -> Any:
        return self.loop.run_until_complete(work)

    def attempt(self, work: Awaitable[Any], *, feed_is_away: bool = False) -> Problem | None:
        """Do it; what it was refused with."""
        self.around.feed_is_away = feed_is_away
        try:
            self.run(work)
        except Problem as problem:
            return problem
        finally:
            self.around.feed_is_away = False
        return None

    def followers(self, user: UUID) -> set[UUID]:
        return {follower for follower, followee in self.follows if followee == user}

    def settled(self, user: UUID) -> None:
        """The mark follows the count whenever one of the user's followers came or went."""
        total = len(self.followers(user))
        (self.marked.add if is_celebrity(total, THRESHOLD, was=user in self.marked) else self.marked.discard)(user)

    def leave(self, pair: Pair) -> None:
        self.asked.discard(pair)
        if pair in self.follows:
            self.follows.discard(pair)
            self.settled(pair[1])

    def join(self, pair: Pair) -> None:
        self.asked.discard(pair)
        if pair not in self.follows:
            self.follows.add(pair)
            self.settled(pair[1])

    def pair(self, one: int, other: int) -> Pair:
        return self.users[one], self.users[other if other != one else (other + 1) % USERS]

    @rule(one=st.integers(0, USERS - 1), other=st.integers(0, USERS - 1), away=st.booleans())
    def somebody_follows(self, one: int, other: int, away: bool) -> None:
        pair = self.pair(one, other)
        problem = self.attempt(self.service.follow(*pair), feed_is_away=away)
        if pair[::-1] in self.blocks:
            assert isinstance(problem, NotFound)
        elif pair in self.blocks:
            assert isinstance(problem, Conflict)
        elif pair[1] in self.around.private and pair not in self.follows:
            assert problem is None
            self.asked.add(pair)
        else:
            assert problem is None, "the feed's absence does not hinder a follow"
            self.join(pair)

    @rule(one=st.integers(0, USERS - 1))
    def everybody_follows(self, one: int) -> None:
        for other in range(USERS):
            if other != one:
                self.somebody_follows(other, one, away=False)

    @rule(one=st.integers(0, USERS - 1), other=st.integers(0, USERS - 1), away=st.booleans())
    def somebody_unfollows(self, one: int, other: int, away: bool) -> None:
        pair = self.pair(one, other)
        problem = self.attempt(self.service.unfollow(*pair), feed_is_away=away)
        assert isinstance(problem, Unavailable) == away, "not promised while a feed may still show it"
        self.leave(pair)

    @rule(one=st.integers(0, USERS - 1), other=st.integers(0, USERS - 1))
    def a_request_is_approved(self, one: int, other: int) -> None:
        pair = self.pair(one, other)
        problem = self.attempt(self.requests.approve(pair[1], pair[0]))
        assert (problem is None) == (pair in self.asked | self.follows)
        if pair in self.asked:
            self.join(pair)

    @rule(one=st.integers(0, USERS - 1), other=st.integers(0, USERS - 1))
    def a_request_is_denied(self, one: int, other: int) -> None:
        pair = self.pair(one, other)
        assert self.attempt(self.requests.deny(pair[1], pair[0])) is None
        self.asked.discard(pair)

    @rule(one=st.integers(0, USERS - 1))
    def somebody_becomes_private(self, one: int) -> None:
        self.around.private.add(self.users[one])

    @rule(one=st.integers(0, USERS - 1))
    def somebody_becomes_public(self, one: int) -> None:
        user = self.users[one]
        self.around.private.discard(user)
        assert self.attempt(self.requests.approve_all(user, int(time.time() * 1000) + 1_000)) is None
        for pair in [pair for pair in self.asked if pair[1] == user]:
            self.join(pair)

    @rule(one=st.integers(0, USERS - 1), other=st.integers(0, USERS - 1))
    def somebody_blocks(self, one: int, other: int) -> None:
        pair = self.pair(one, other)
        assert self.attempt(self.blocking.block(*pair)) is None
        self.blocks.add(pair)
        self.leave(pair)
        self.leave(pair[::-1])

    @rule(one=st.integers(0, USERS - 1), other=st.integers(0, USERS - 1))
    def somebody_unblocks(self, one: int, other: int) -> None:
        pair = self.pair(one, other)
        assert self.attempt(self.blocking.unblock(*pair)) is None
        self.blocks.discard(pair)

    @rule(one=st.integers(0, USERS - 1))
    def somebody_is_gone(self, one: int) -> None:
        user = self.users[one]
        self.run(self.service.purge(user))
        self.run(self.blocking.purge(user))
        self.once_blocked |= {pair for pair in self.blocks if pair[1] == user}
        for pairs in (self.follows, self.asked, self.blocks):
            pairs -= {pair for pair in pairs if user in pair}
        self.marked.discard(user)

    @rule(one=st.integers(0, USERS - 1), limit=st.integers(1, USERS))
    def a_post_is_fanned_out(self, one: int, limit: int) -> None:
        """Page by page, in id order; the first page makes a missed crossing good."""
        user, found, after = self.users[one], b"", b""
        self.settled(user)
        while True:
            page = self.run(self.graph.followers(internal.FollowersQuery(user.bytes, after, limit)))
            assert page.celebrity == (user in self.marked)
            found += page.follower_ids
            after = page.follower_ids[-16:]
            if len(page.follower_ids) < limit * 16:
                break
        assert found == b"".join(sorted(one.bytes for one in self.followers(user)))

    @rule(one=st.integers(0, USERS - 1))
    def a_feed_is_rebuilt(self, one: int) -> None:
        user = self.users[one]
        found = self.run(self.graph.followees(internal.FolloweesQuery(user.bytes)))
        followed = {followee for follower, followee in self.follows if follower == user}
        assert ids(found.pushed) == followed - self.marked
        assert ids(found.celebrities) == followed & self.marked

    @rule(
        one=st.integers(0, USERS - 1),
        other=st.integers(0, USERS - 1),
        names=st.lists(st.sampled_from(["follow", "unfollow", "block", "unblock", "approve"]), min_size=2, max_size=4),
    )
    def several_things_happen_at_once(self, one: int, other: int, names: list[str]) -> None:
        """Whatever comes first: the model takes over what is there, and `nothing_contradicts` judges it."""
        pair = self.pair(one, other)
        does: dict[str, Callable[[], Awaitable[Any]]] = {
            "follow": lambda: self.service.follow(*pair),
            "unfollow": lambda: self.service.unfollow(*pair),
            "block": lambda: self.blocking.block(*pair),
            "unblock": lambda: self.blocking.unblock(*pair),
            "approve": lambda: self.requests.approve(pair[1], pair[0]),
        }

        async def together() -> list[Any]:
            return await asyncio.gather(*(does[name]() for name in names), return_exceptions=True)

        for answer in self.run(together()):
            assert not isinstance(answer, BaseException) or isinstance(answer, Problem), answer
        there = self.run(self.everything())
        for mine, kind in ((self.follows, "follow"), (self.asked, "request"), (self.blocks, "block")):
            mine.difference_update({pair, pair[::-1]})
            mine.update(there.get(kind, set()) & {pair, pair[::-1]})
        for user in pair:
            self.run(self.celebrities.settle(user))
            self.marked.discard(user)
            self.marked.update({user} & {marked for marked, _ in self.run(self.everything()).get("celebrity", set())})

    async def everything(self) -> dict[str, set[Pair]]:
        found: dict[str, set[Pair]] = {}
        async with self.database.reading() as session:
            connection = await session.connection()
            for kind, one, other in await connection.execute(text(EVERYTHING), {"users": self.users}):
                found.setdefault(kind, set()).add((one, other))
        return found

    @invariant()
    def the_tables_are_as_the_model(self) -> None:
        there = self.run(self.everything())
        assert there.get("follow", set()) == self.follows
        assert there.get("follower", set()) == self.follows, "the mirror"
        assert there.get("request", set()) == self.asked
        assert there.get("block", set()) == self.blocks
        assert {user for user, _ in there.get("celebrity", set())} == self.marked

    @invariant()
    def nothing_contradicts(self) -> None:
        assert not self.follows & self.asked, "who follows does not ask"
        for pair in self.blocks:
            assert not {pair, pair[::-1]} & (self.follows | self.asked)

    @invariant()
    def what_others_read_of_blocks_is_true_or_missing(self) -> None:
        for user in self.users:
            read = self.run(self.valkey.execute("GET", keys.blocks(user)))
            now, once = [
                {blocked for blocker, blocked in pairs if blocker == user} for pairs in (self.blocks, self.once_blocked)
            ]
            assert read is None or now <= ids(read) <= now | once

    def teardown(self) -> None:
        for user in self.users:
            self.run(self.service.purge(user))
        self.run(self.valkey.close())
        self.run(self.database.close())
        self.loop.close()


def ids(joined: bytes) -> set[UUID]:
    return {UUID(bytes=joined[start : start + 16]) for start in range(0, len(joined), 16)}


def test_follows_requests_blocks_and_marks_are_as_a_model_says(database_url: str, stores: BackingStores) -> None:
    Machine.database_url, Machine.valkey_url = database_url, stores.valkey_url
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=12,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )


async def test_of_a_mark_that_was_missed_only_the_next_post_knows(database_url: str) -> None:
    """The machine's one assumption, said plainly: a deleted follower leaves a mark as it is until it matters."""
    database = Database(create_async_engine(database_url))
    celebrities = Celebrities(database, 1)
    star, first, second = new_id(), new_id(), new_id()
    async with database.transaction() as session:
        for one in (first, second):
            await repository.add(session, one, star)
    assert await celebrities.settle(star)
    async with database.transaction() as session:
        for one in (first, second):
            await repository.delete_some(session, one, 10)
    async with database.reading() as session:
        assert await repository.is_celebrity(session, star)
    graph = Graph(database, celebrities, FollowerTotals(database, 0))
    assert not (await graph.followers(internal.FollowersQuery(star.bytes, b"", 10))).celebrity
    await database.close()
