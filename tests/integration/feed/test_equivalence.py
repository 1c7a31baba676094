"""Cached feeds against brute force, on a real Valkey, under interleavings that the test controls.

The follow and post services are a model that answers at the HTTP boundary; streams are lists whose messages the test
delivers in any order, twice, or half. Every command to Valkey and every call of a peer is a point at which something
else may happen.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from fanfold.contracts import events, internal, keys
from fanfold.contracts.ids import id_millis, new_id
from fanfold.feed.celebrities import FRESH_SECONDS, CelebrityTimelines
from fanfold.feed.fanout import Fanout
from fanfold.feed.jobs import Chunk, Job, Lane, Split, decode, encode
from fanfold.feed.repository import FeedRepository, member
from fanfold.feed.service import FeedService
from fanfold.feed.settings import FanoutSettings
from fanfold.feed.stored import CachedFeed, parse, split_ids
from fanfold.feed.window import Window
from fanfold.kit.valkey import Argument, Script, Valkey

if TYPE_CHECKING:
    from fanfold.dev.stores import BackingStores

pytestmark = pytest.mark.integration

LENGTH = 3
SPARE = 3
USERS = 5
SETTINGS = FanoutSettings(feed_length=LENGTH, followers_page=2, small_lane_followers=2)

Step = Callable[[], Awaitable[None]]


class CrashError(Exception):
    """The process under test died here."""


class World:
    """What is committed, what is under way, and the schedule of what happens between."""

    def __init__(self) -> None:
        self.users = [new_id() for _ in range(USERS)]
        self.follows: dict[UUID, set[UUID]] = {user: set() for user in self.users}
        self.posts: dict[UUID, UUID] = {}  # post -> author
        self.deleted: list[tuple[UUID, UUID]] = []
        self.celebrities: set[UUID] = set()
        self.events: list[events.AnyEvent] = []
        self.jobs: list[tuple[Lane, bytes]] = []
        self.schedule: list[Step | None] = []
        self.publishes_until_crash: int | None = None
        self.seconds = 0.0

    async def checkpoint(self) -> None:
        """A point between two steps of the code under test."""
        if self.schedule:
            step, rest = self.schedule[0], self.schedule[1:]
            self.schedule = []  # what happens here is not interrupted itself
            if step is not None:
                await step()
            self.schedule = rest

    def now(self) -> float:
        return self.seconds

    def newest(self, authors: set[UUID], before: bytes = b"") -> list[bytes]:
        found = [member(post.bytes, author.bytes) for post, author in self.posts.items() if author in authors]
        return sorted((entry for entry in found if not before or entry < before), reverse=True)

    def brute_force(self, user: UUID) -> list[bytes]:
        return self.newest(self.follows[user] | {user})

    def followers(self, query: internal.FollowersQuery) -> internal.FollowersPage:
        author = UUID(bytes=query.user_id)
        everybody = sorted(user.bytes for user, followees in self.follows.items() if author in followees)
        page = [user for user in everybody if user > query.after][: query.limit]
        return internal.FollowersPage(b"".join(page), len(everybody), celebrity=author in self.celebrities)

    def followees(self, query: internal.FolloweesQuery) -> internal.Followees:
        mine = self.follows[UUID(bytes=query.user_id)]
        pushed, pulled = mine - self.celebrities, mine & self.celebrities
        return internal.Followees(*(b"".join(user.bytes for user in users) for users in (pushed, pulled)))

    def timelines(self, query: internal.TimelinesQuery) -> internal.PostRefs:
        authors = {UUID(bytes=author) for author in split_ids(query.author_ids)}
        return internal.PostRefs(b"".join(self.newest(authors, query.before)[: query.limit]))


class ModelPeers:
    """The follow and post services, at the boundary where the real ones answer over HTTP."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.calls: list[str] = []

    async def call(self, endpoint: internal.Endpoint[Any, Any], request: Any) -> Any:
        await self._world.checkpoint()
        self.calls.append(endpoint.path)
        handlers: dict[str, Callable[[Any], Any]] = {
            internal.FOLLOWERS.path: self._world.followers,
            internal.FOLLOWEES.path: self._world.followees,
            internal.TIMELINES.path: self._world.timelines,
        }
        answer = handlers[endpoint.path](request)
        await self._world.checkpoint()
        return answer


class InterruptedValkey(Valkey):
    """A real client with a checkpoint before each command."""

    def __init__(self, url: str, world: World) -> None:
        super().__init__(url)
        self._world = world

    async def execute(self, *arguments: Argument) -> Any:
        await self._world.checkpoint()
        return await super().execute(*arguments)

    async def pipeline(self, commands: Any) -> list[Any]:
        await self._world.checkpoint()
        return await super().pipeline(commands)

    async def script(self, script: Script, keys: Any, arguments: Any = ()) -> Any:
        await self._world.checkpoint()
        return await super().script(script, keys, arguments)


class House:
    """The feed service and its worker in one world."""

    def __init__(self, url: str, options: FanoutSettings = SETTINGS) -> None:
        self.world = World()
        self.valkey = InterruptedValkey(url, self.world)
        self.peers = ModelPeers(self.world)
        self.repository = FeedRepository(self.valkey, length=LENGTH, ttl_seconds=600, spare=SPARE)
        peers: Any = self.peers
        celebrities = CelebrityTimelines(self.repository, peers, length=LENGTH, now=self.world.now)
        self.service = FeedService(self.repository, peers, celebrities, options)
        self.fanout = Fanout(self.repository, peers, self._publish, options)

    async def _publish(self, lane: Lane, job: Job) -> None:
        world = self.world
        if world.publishes_until_crash is not None:
            if world.publishes_until_crash == 0:
                raise CrashError
            world.publishes_until_crash -= 1
        world.jobs.append((lane, encode(job)))
        await world.checkpoint()

    # What other services do

    async def follow(self, user: UUID, author: UUID, *, calls: bool = True) -> None:
        self.world.follows[user].add(author)
        self.world.events.append(events.Followed(follower_id=user, followee_id=author))
        if calls:
            await self.service.invalidate(user)

    async def unfollow(self, user: UUID, author: UUID, *, calls: bool = True) -> None:
        self.world.follows[user].discard(author)
        self.world.events.append(events.Unfollowed(follower_id=user, followee_id=author))
        if calls:
            await self.service.invalidate(user)

    async def post(self, author: UUID) -> UUID:
        post = new_id()
        self.world.posts[post] = author
        timeline = keys.timeline(author)
        if await self.valkey.execute("EXISTS", timeline):
            entry = member(post.bytes, author.bytes)
            await self.valkey.execute("ZADD", timeline, id_millis(post), entry)
        self.world.events.append(events.PostCreated(post_id=post, author_id=author))
        return post

    async def cache_timeline(self, author: UUID) -> None:
        """As the post service refills it: complete."""
        entries = [item for entry in self.world.newest({author}) for item in (int.from_bytes(entry[:6], "big"), entry)]
        await self.valkey.execute("ZADD", keys.timeline(author), 0, keys.COMPLETE, *entries)

    async def delete(self, post: UUID) -> None:
        author = self.world.posts.pop(post)
        self.world.deleted.append((post, author))
        await self.valkey.execute("SET", keys.post(post), keys.TOMBSTONE)
        await self.valkey.execute("ZREM", keys.timeline(author), member(post.bytes, author.bytes))
        self.world.events.append(events.PostDeleted(post_id=post, author_id=author))

    async def evict(self, key: bytes) -> None:
        await self.valkey.execute("DEL", key)

    # What the worker's consumers do

    async def handle_event(self, index: int, *, crash_after: int | None = None) -> bool:
        event = self.world.events[index]
        with self._dying_after(crash_after) as died:
            await self.fanout.handle(event)
        if not died and event in self.world.events:  # another consumer may have had it too
            self.world.events.remove(event)
        return bool(died)

    async def run_job(self, index: int, *, crash_after: int | None = None, again: bool = False) -> bool:
        lane, job = self.world.jobs[index]
        with self._dying_after(crash_after) as died:
            await self.fanout.run(lane, decode(job))
        if not died and not again and (lane, job) in self.world.jobs:
            self.world.jobs.remove((lane, job))
        return bool(died)

    @contextmanager
    def _dying_after(self, publishes: int | None) -> Iterator[list[bool]]:
        died: list[bool] = []
        self.world.publishes_until_crash = publishes
        try:
            yield died
        except CrashError:
            died.append(True)
        finally:
            self.world.publishes_until_crash = None

    async def become_quiet(self) -> None:
        self.world.schedule = []
        while self.world.events or self.world.jobs:
            while self.world.events:
                await self.handle_event(0)
            while self.world.jobs:
                await self.run_job(0)
        self.world.seconds += 2 * FRESH_SECONDS

    # What readers see

    async def read(self, user: UUID, limit: int = LENGTH, before: UUID | None = None) -> Window:
        """One page as the route answers it: what hydration finds deleted is dropped, and leaves the feed."""
        window = await self.service.page(user, limit, before)
        gone = [entry for entry in window.members if UUID(bytes=entry[:16]) not in self.world.posts]
        if gone:
            await self.service.forget(user, gone)
        return Window([entry for entry in window.members if entry not in gone], window.more)

    async def read_all(self, user: UUID, limit: int) -> list[bytes]:
        window = await self.read(user, limit)
        found = list(window.members)
        while window.more:
            window = await self.read(user, limit, UUID(bytes=found[-1][:16]))
            found += window.members
        return found

    async def check(self) -> None:
        """Once quiet: every feed, by any page size, is what brute force says; the cache itself is right."""
        await self.become_quiet()
        for user in self.world.users:
            await self.read(user)  # repairs what hydration finds; from here on, all must be there
            expected = self.world.brute_force(user)
            assert (await self.read(user)).members == expected[:LENGTH]
            for limit in (1, 2, LENGTH + 2):
                assert await self.read_all(user, limit) == expected
            cached = await self.repository.read(user)
            assert cached is not None
            assert len(cached.members) <= LENGTH + SPARE


@pytest.fixture
def url(stores: BackingStores) -> str:
    return stores.valkey_url


@pytest.fixture
async def feeds(url: str) -> Any:
    made = House(url)
    yield made
    await made.valkey.close()


people = st.integers(0, USERS - 1)
anything = st.integers(0, 1_000)
STEPS = [
    "post", "delete", "delete_newest", "follow", "follow_and_crash", "unfollow", "cross", "read", "handle_event",
    "run_job", "evict_feed", "evict_newest_rebuild", "evict_timeline", "evict_clock", "cache_timeline",
]  # fmt: skip


class Machine(RuleBasedStateMachine):
    """Random people doing random things while the worker crashes and the cache forgets."""

    url = ""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.house = House(self.url)
        self.world = self.house.world
        self.readers: list[asyncio.Task[Window]] = []

    def run(self, work: Awaitable[Any]) -> Any:
        return self.loop.run_until_complete(work)

    def step(self, name: str, one: int, other: int) -> Step:
        """One thing that may happen at any point, to two people."""
        happens: Callable[[UUID, UUID], Awaitable[None]] = getattr(self, f"_{name}")
        return lambda: happens(self.world.users[one], self.world.users[other])

    async def _post(self, _: UUID, author: UUID) -> None:
        await self.house.post(author)

    async def _delete(self, _: UUID, author: UUID) -> None:
        for post in [post for post, owner in self.world.posts.items() if owner == author][-2:-1]:
            await self.house.delete(post)

    async def _delete_newest(self, _: UUID, author: UUID) -> None:
        for post in [post for post, owner in self.world.posts.items() if owner == author][-1:]:
            await self.house.delete(post)

    async def _follow(self, user: UUID, author: UUID) -> None:
        if user != author:
            await self.house.follow(user, author)

    async def _follow_and_crash(self, user: UUID, author: UUID) -> None:
        if user != author:
            await self.house.follow(user, author, calls=False)

    async def _unfollow(self, user: UUID, author: UUID) -> None:
        if user != author:
            await self.house.unfollow(user, author)

    async def _evict_feed(self, user: UUID, _: UUID) -> None:
        await self.house.evict(keys.feed(user))

    async def _evict_newest_rebuild(self, user: UUID, _: UUID) -> None:
        await self.house.evict(keys.rebuilt(keys.bucket(user)))

    async def _evict_timeline(self, _: UUID, author: UUID) -> None:
        await self.house.evict(keys.timeline(author))

    async def _evict_clock(self, *_: UUID) -> None:
        await self.house.evict(keys.FEED_CLOCK)

    async def _cache_timeline(self, _: UUID, author: UUID) -> None:
        await self.house.evict(keys.timeline(author))
        await self.house.cache_timeline(author)

    async def _cross(self, _: UUID, author: UUID) -> None:
        self.world.celebrities ^= {author}

    async def _handle_event(self, user: UUID, _: UUID) -> None:
        if self.world.events:
            await self.house.handle_event(user.int % len(self.world.events))

    async def _run_job(self, user: UUID, _: UUID) -> None:
        if self.world.jobs:
            await self.house.run_job(user.int % len(self.world.jobs))

    async def _read(self, user: UUID, _: UUID) -> None:
        self.readers.append(self.loop.create_task(self.house.read(user)))

    async def _let_readers_finish(self) -> None:
        while self.readers:
            await self.readers.pop()

    @rule(name=st.sampled_from(STEPS), one=people, other=people)
    def something_happens(self, name: str, one: int, other: int) -> None:
        self.run(self.step(name, one, other)())
        self.run(self._let_readers_finish())

    @rule(one=people, others=st.lists(people, min_size=1, max_size=4))
    def follow_several(self, one: int, others: list[int]) -> None:
        for other in others:
            self.run(self.step("follow", one, other)())

    @rule(index=anything, crash_after=st.none() | st.integers(0, 2))
    def an_event_is_handled(self, index: int, crash_after: int | None) -> None:
        if self.world.events:
            self.run(self.house.handle_event(index % len(self.world.events), crash_after=crash_after))

    @rule(index=anything, crash_after=st.none() | st.integers(0, 2), again=st.booleans())
    def a_job_is_run(self, index: int, crash_after: int | None, again: bool) -> None:
        if self.world.jobs:
            self.run(self.house.run_job(index % len(self.world.jobs), crash_after=crash_after, again=again))

    @rule(
        what=st.integers(0, 2),
        index=anything,
        schedule=st.lists(st.none() | st.tuples(st.sampled_from(STEPS), people, people), min_size=1, max_size=12),
    )
    def something_is_interrupted(self, what: int, index: int, schedule: list[tuple[str, int, int] | None]) -> None:
        self.world.schedule = [step and self.step(*step) for step in schedule]
        if what == 0:
            self.run(self._interrupted_read(self.world.users[index % USERS]))
        elif what == 1 and self.world.events:
            self.run(self.house.handle_event(index % len(self.world.events)))
        elif what == 2 and self.world.jobs:
            self.run(self.house.run_job(index % len(self.world.jobs)))
        self.world.schedule = []
        self.run(self._let_readers_finish())

    async def _interrupted_read(self, user: UUID) -> None:
        window = await self.house.read(user)
        assert window.members == sorted(set(window.members), reverse=True)

    @rule(one=people, other=people)
    def a_post_is_on_its_way_to_a_warm_feed(self, one: int, other: int) -> None:
        if one != other:
            user, author = self.world.users[one], self.world.users[other]
            self.run(self.house.follow(user, author))
            self.run(self.house.read(user))
            self.run(self.house.post(author))
            self.run(self.house.handle_event(-1))

    @rule(one=people, other=people)
    def an_unfollow_is_final_whatever_arrives(self, one: int, other: int) -> None:
        if one != other:
            user, author = self.world.users[one], self.world.users[other]
            self.run(self.house.unfollow(user, author))
            for _ in range(3):
                shown = {entry[16:] for entry in self.run(self.house.read(user)).members}
                assert author.bytes not in shown
                if self.world.jobs:
                    self.run(self.house.run_job(-1))

    @rule()
    def all_is_quiet(self) -> None:
        self.run(self.house.check())

    @invariant()
    def nobody_left_is_shown(self) -> None:
        """Unfollowing is final, whatever is under way: warm feeds hold no post of an author left by a call."""
        for user in self.world.users:
            cached = parse(self.run(self.house.valkey.execute("LRANGE", keys.feed(user), 0, -1)))
            pending = {
                event.followee_id
                for event in self.world.events
                if isinstance(event, events.Followed) and event.follower_id == user
            }
            for entry in cached.members if cached else ():
                author = UUID(bytes=entry[16:])
                assert author == user or author in self.world.follows[user] | pending

    def teardown(self) -> None:
        try:
            self.run(self.house.check())
        finally:
            self.run(self.house.valkey.close())
            self.loop.run_until_complete(asyncio.sleep(0))
            self.loop.close()


def test_feeds_equal_brute_force_under_any_interleaving(url: str) -> None:
    Machine.url = url
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=30,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )


Feeds = House


async def deliver_all(feeds: Feeds) -> None:
    while feeds.world.events:
        await feeds.handle_event(0)
    while feeds.world.jobs:
        await feeds.run_job(0)


async def test_a_push_that_meets_a_rebuild_is_not_lost(feeds: Feeds, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, author = feeds.world.users[:2]
    await feeds.follow(reader, author)
    await deliver_all(feeds)
    posted: list[UUID] = []

    async def post_and_deliver() -> None:
        posted.append(await feeds.post(author))
        await deliver_all(feeds)

    finish = feeds.repository.finish

    async def finish_late(*arguments: Any) -> CachedFeed | None:
        await post_and_deliver()  # the rebuild has read the posts, and not yet written the feed
        return await finish(*arguments)

    monkeypatch.setattr(feeds.repository, "finish", finish_late)
    feeds.peers.calls.clear()
    window = await feeds.read(reader)
    assert feeds.peers.calls.count(internal.TIMELINES.path) == 1, "nothing was rebuilt twice"
    assert [entry[:16] for entry in window.members] == [posted[0].bytes]


async def test_pushes_that_meet_a_rebuild_do_not_make_the_feed_longer(
    feeds: Feeds, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, author = feeds.world.users[:2]
    await feeds.follow(reader, author)
    posts = [await feeds.post(author) for _ in range(LENGTH)]
    await deliver_all(feeds)
    finish = feeds.repository.finish

    async def finish_late(*arguments: Any) -> CachedFeed | None:
        posts.append(await feeds.post(author))
        await deliver_all(feeds)
        return await finish(*arguments)

    monkeypatch.setattr(feeds.repository, "finish", finish_late)
    window = await feeds.read(reader)
    assert [entry[:16] for entry in window.members] == [post.bytes for post in reversed(posts[1:])]
    assert await feeds.valkey.execute("LLEN", keys.feed(reader)) <= 1 + LENGTH + SPARE


async def test_a_push_into_a_cold_feed_is_dropped_and_found_by_the_rebuild(feeds: Feeds) -> None:
    reader, author = feeds.world.users[:2]
    await feeds.follow(reader, author)
    post = await feeds.post(author)
    await deliver_all(feeds)
    assert not await feeds.valkey.execute("EXISTS", keys.feed(reader))
    assert [entry[:16] for entry in (await feeds.read(reader)).members] == [post.bytes]


async def test_an_unfollow_is_final_for_posts_already_on_their_way(feeds: Feeds) -> None:
    reader, author = feeds.world.users[:2]
    await feeds.follow(reader, author)
    await deliver_all(feeds)
    await feeds.read(reader)
    await feeds.post(author)
    while feeds.world.events:
        await feeds.handle_event(0)  # the followers are read, their chunk waits
    await feeds.unfollow(reader, author)
    assert (await feeds.read(reader)).members == []  # warm again, as the late chunk arrives
    while feeds.world.jobs:
        await feeds.run_job(0)
    assert (await feeds.read(reader)).members == []


@pytest.mark.parametrize("place", [0, -1], ids=["on the first page", "on the last page"])
async def test_an_unfollow_just_after_the_followers_were_read_is_final(
    feeds: Feeds, monkeypatch: pytest.MonkeyPatch, place: int
) -> None:
    author, *followers = feeds.world.users
    reader = sorted(followers)[place]
    for follower in followers:
        await feeds.follow(follower, author)
    await deliver_all(feeds)
    await feeds.post(author)
    call = feeds.peers.call

    async def call_and_lose_a_follower(endpoint: Any, request: Any) -> Any:
        answer = await call(endpoint, request)
        listed = endpoint is internal.FOLLOWERS and reader.bytes in split_ids(answer.follower_ids)
        if listed and author in feeds.world.follows[reader]:
            await feeds.unfollow(reader, author)
            await feeds.read(reader)  # the feed is warm again before the chunk is even written
        return answer

    monkeypatch.setattr(feeds.peers, "call", call_and_lose_a_follower)
    await feeds.handle_event(0)
    while feeds.world.jobs:
        await feeds.run_job(0)
    assert author not in feeds.world.follows[reader], "the race must have happened"
    assert (await feeds.read(reader)).members == []


async def test_an_unfollow_during_a_rebuild_calls_it_off(feeds: Feeds, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, author = feeds.world.users[:2]
    await feeds.follow(reader, author)
    await feeds.post(author)
    await deliver_all(feeds)
    finish = feeds.repository.finish

    async def finish_late(*arguments: Any) -> CachedFeed | None:
        if author in feeds.world.follows[reader]:
            await feeds.unfollow(reader, author)  # the followees and their posts are read already
        return await finish(*arguments)

    monkeypatch.setattr(feeds.repository, "finish", finish_late)
    assert (await feeds.read(reader)).members == []
    assert feeds.peers.calls.count(internal.TIMELINES.path) == 2, "it must have started anew"


async def test_a_late_chunk_that_meets_the_first_moment_of_a_rebuild_is_refused(
    feeds: Feeds, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, author = feeds.world.users[:2]
    await feeds.follow(reader, author)
    await deliver_all(feeds)
    await feeds.post(author)
    await feeds.handle_event(0)
    await feeds.unfollow(reader, author)
    tick = feeds.repository.tick

    async def tick_late() -> int:
        while feeds.world.jobs:
            await feeds.run_job(0)  # the rebuild has begun, and has no tick yet
        return await tick()

    monkeypatch.setattr(feeds.repository, "tick", tick_late)
    assert (await feeds.read(reader)).members == []
    assert (await feeds.read(reader)).members == []


async def test_a_post_deleted_during_a_rebuild_that_has_read_it_is_not_in_the_feed(
    feeds: Feeds, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, author = feeds.world.users[:2]
    await feeds.follow(reader, author)
    post = await feeds.post(author)
    await deliver_all(feeds)
    finish = feeds.repository.finish

    async def finish_late(*arguments: Any) -> CachedFeed | None:
        if post in feeds.world.posts:
            await feeds.delete(post)
            await deliver_all(feeds)
        return await finish(*arguments)

    monkeypatch.setattr(feeds.repository, "finish", finish_late)
    await feeds.service.page(reader, LENGTH)
    cached = await feeds.repository.read(reader)
    assert cached is not None
    assert cached.members == []


async def test_a_deleted_post_does_not_come_back_with_a_late_chunk(feeds: Feeds) -> None:
    reader, author = feeds.world.users[:2]
    await feeds.follow(reader, author)
    await deliver_all(feeds)
    await feeds.read(reader)
    post = await feeds.post(author)
    await feeds.handle_event(0)
    late = list(feeds.world.jobs)
    feeds.world.jobs.clear()
    await feeds.delete(post)
    await deliver_all(feeds)
    feeds.world.jobs = late
    await deliver_all(feeds)
    cached = await feeds.repository.read(reader)
    assert cached is not None
    assert cached.members == []


async def test_a_post_deleted_while_it_is_pushed_leaves_the_feed_when_it_is_read(
    feeds: Feeds, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, author = feeds.world.users[:2]
    await feeds.follow(reader, author)
    await deliver_all(feeds)
    await feeds.read(reader)
    post = await feeds.post(author)
    await feeds.handle_event(0)

    look = feeds.repository.deleted

    async def look_just_before(post_id: UUID) -> bool:
        answer = await look(post_id)
        await feeds.delete(post)
        jobs, feeds.world.jobs = feeds.world.jobs, []
        await deliver_all(feeds)
        feeds.world.jobs = jobs
        return answer

    monkeypatch.setattr(feeds.repository, "deleted", look_just_before)
    await feeds.run_job(0)
    cached = await feeds.repository.read(reader)
    assert cached is not None
    assert len(cached.members) == 1, "the race must have happened"
    assert (await feeds.read(reader)).members == []
    cached = await feeds.repository.read(reader)
    assert cached is not None
    assert cached.members == []


async def test_a_follow_whose_service_died_before_its_call_is_seen_by_its_event(feeds: Feeds) -> None:
    reader, author = feeds.world.users[:2]
    post = await feeds.post(author)
    await deliver_all(feeds)
    assert (await feeds.read(reader)).members == []
    await feeds.follow(reader, author, calls=False)
    await deliver_all(feeds)
    assert [entry[:16] for entry in (await feeds.read(reader)).members] == [post.bytes]


async def test_the_clock_never_ticks_backwards_nor_twice_the_same(feeds: Feeds) -> None:
    ticks = await asyncio.gather(*(feeds.repository.tick() for _ in range(200)))
    assert list(ticks) == sorted(set(ticks))
    ahead = ticks[-1] + 3_600_000_000  # as a server an hour ahead left it
    await feeds.valkey.execute("SET", keys.FEED_CLOCK, ahead)
    assert await feeds.repository.tick() == ahead + 1
    await feeds.evict(keys.FEED_CLOCK)
    assert await feeds.repository.tick() > ticks[-1]


async def test_a_feed_holds_little_more_than_its_length_in_one_listpack(feeds: Feeds) -> None:
    reader, author = feeds.world.users[:2]
    await feeds.follow(reader, author)
    await deliver_all(feeds)
    await feeds.read(reader)
    for _ in range(LENGTH + 4):
        await feeds.post(author)
    await deliver_all(feeds)
    assert LENGTH < await feeds.valkey.execute("LLEN", keys.feed(reader)) <= 1 + LENGTH + SPARE
    assert await feeds.valkey.execute("OBJECT", "ENCODING", keys.feed(reader)) == b"listpack"
    assert 0 < await feeds.valkey.execute("TTL", keys.feed(reader)) <= 600


async def test_deleting_from_a_full_feed_brings_up_what_was_below_its_end(feeds: Feeds) -> None:
    reader, author = feeds.world.users[:2]
    await feeds.follow(reader, author)
    posts = [await feeds.post(author) for _ in range(LENGTH + 1)]
    await deliver_all(feeds)
    await feeds.read(reader)
    await feeds.delete(posts[-1])
    await deliver_all(feeds)
    assert [entry[:16] for entry in (await feeds.read(reader)).members] == [post.bytes for post in reversed(posts[:-1])]


async def test_a_cold_feed_is_rebuilt_once_however_many_ask(feeds: Feeds, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, author = feeds.world.users[:2]
    await feeds.follow(reader, author)
    await feeds.post(author)
    begin, begun = feeds.repository.begin, []

    async def begin_counted(user_id: UUID) -> bytes | None:
        begun.append(user_id)
        return await begin(user_id)

    monkeypatch.setattr(feeds.repository, "begin", begin_counted)
    windows = await asyncio.gather(*(feeds.service.page(reader, LENGTH) for _ in range(50)))
    assert all(window == windows[0] for window in windows)
    assert begun == [reader], "the others do not even try"
    assert feeds.peers.calls == [internal.FOLLOWEES.path, internal.TIMELINES.path]


async def test_two_replicas_rebuild_a_feed_once_between_them(feeds: Feeds, url: str) -> None:
    reader, author = feeds.world.users[:2]
    await feeds.follow(reader, author)
    await feeds.post(author)
    valkey = Valkey(url)
    repository = FeedRepository(valkey, length=LENGTH, ttl_seconds=600, spare=SPARE)
    peers: Any = feeds.peers
    celebrities = CelebrityTimelines(repository, peers, length=LENGTH)
    other = FeedService(repository, peers, celebrities, SETTINGS)
    windows = await asyncio.gather(feeds.service.page(reader, LENGTH), other.page(reader, LENGTH))
    assert windows[0] == windows[1]
    assert feeds.peers.calls.count(internal.TIMELINES.path) == 1
    await valkey.close()


async def test_a_celebrity_timeline_is_read_once_a_second_however_many_readers(feeds: Feeds) -> None:
    star, *fans = feeds.world.users
    feeds.world.celebrities.add(star)
    for fan in fans:
        await feeds.follow(fan, star)
        await feeds.read(fan)
    feeds.world.seconds += 2 * FRESH_SECONDS
    await feeds.post(star)
    feeds.peers.calls.clear()
    windows = await asyncio.gather(*(feeds.service.page(fan, LENGTH) for fan in fans for _ in range(10)))
    assert {len(window.members) for window in windows} == {1}
    assert feeds.peers.calls == [internal.TIMELINES.path], "the timeline was not in Valkey: asked of its owner, once"


async def test_a_celebritys_post_is_not_pushed_but_folded_in(feeds: Feeds) -> None:
    star, fan = feeds.world.users[:2]
    feeds.world.celebrities.add(star)
    await feeds.follow(fan, star)
    await feeds.read(fan)
    post = await feeds.post(star)
    await feeds.handle_event(-1)
    pushes = [job for _, raw in feeds.world.jobs if isinstance(job := decode(raw), Chunk) and job.action == "push"]
    assert [job.recipients for job in pushes] == [star.bytes], "only into the author's own feed"
    await feeds.become_quiet()
    assert [entry[:16] for entry in (await feeds.read(fan)).members] == [post.bytes]


async def test_no_post_is_missing_or_doubled_while_an_author_becomes_a_celebrity_and_back(feeds: Feeds) -> None:
    star, *fans = feeds.world.users
    for fan in fans:
        await feeds.follow(fan, star)
        await feeds.read(fan)
    for celebrity in (False, True, True, False, True, False):
        feeds.world.celebrities = {star} if celebrity else set()
        await feeds.post(star)
        await feeds.check()


async def test_a_crash_between_any_two_messages_loses_no_follower(feeds: Feeds) -> None:
    author, *readers = feeds.world.users
    for reader in readers:
        await feeds.follow(reader, author)
    await feeds.become_quiet()
    for reader in readers:
        await feeds.read(reader)
    post = await feeds.post(author)
    crashes = 0
    for crash_after in (0, 1, 0, 1, 0, 1):
        if feeds.world.events:
            crashes += await feeds.handle_event(0, crash_after=crash_after)
        for job in list(feeds.world.jobs):
            crashes += await feeds.run_job(feeds.world.jobs.index(job), crash_after=crash_after)
    assert crashes >= 4, "the worker must have died before and after each kind of message"
    await deliver_all(feeds)
    for reader in readers:
        cached = await feeds.repository.read(reader)
        assert cached is not None
        assert [entry[:16] for entry in cached.members] == [post.bytes]


async def test_a_split_that_is_delivered_twice_does_not_split_the_rest_twice(feeds: Feeds) -> None:
    author, *readers = feeds.world.users
    for reader in readers:
        await feeds.follow(reader, author)
    await deliver_all(feeds)
    await feeds.post(author)
    await feeds.handle_event(0)
    (split,) = [index for index, (_, job) in enumerate(feeds.world.jobs) if isinstance(decode(job), Split)]
    await feeds.run_job(split, again=True)
    jobs = len(feeds.world.jobs)
    await feeds.run_job(split)
    assert len(feeds.world.jobs) == jobs - 1, "it left nothing new behind"


async def test_losing_the_whole_cache_costs_nothing_but_a_rebuild(feeds: Feeds) -> None:
    for user in feeds.world.users[1:]:
        await feeds.follow(user, feeds.world.users[0])
    await feeds.post(feeds.world.users[0])
    await feeds.check()
    await feeds.valkey.execute("FLUSHALL")
    await feeds.post(feeds.world.users[0])
    await feeds.check()


async def test_a_crashed_rebuild_is_taken_over_when_its_lease_ends(feeds: Feeds) -> None:
    reader = feeds.world.users[0]
    assert await feeds.repository.begin(reader) is not None
    assert await feeds.repository.begin(reader) is None, "it belongs to the first"
    await feeds.valkey.execute("PEXPIRE", keys.feed(reader), 50)
    async with asyncio.timeout(30):
        assert (await feeds.read(reader)).members == []
