"""The scripts of feeds on a real Valkey: which pushes are taken, and what is cut off."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from fanfold.contracts import keys
from fanfold.contracts.ids import id_millis, new_id
from fanfold.feed.repository import LEFT, FeedRepository, member
from fanfold.feed.stored import CachedFeed
from fanfold.kit.valkey import Valkey

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from fanfold.dev.stores import BackingStores

pytestmark = pytest.mark.integration

LENGTH = 4
SPARE = 4


class Shelf:
    """Feeds without services around them."""

    def __init__(self, url: str) -> None:
        self.valkey = Valkey(url)
        self.feeds = FeedRepository(self.valkey, length=LENGTH, ttl_seconds=600, spare=SPARE)

    async def rebuilt(self, user: UUID, posts: list[bytes]) -> CachedFeed | None:
        """The feed of these, newest first."""
        marker = await self.feeds.begin(user)
        assert marker is not None
        return await self.feeds.finish(user, marker, posts[:LENGTH], b"")

    async def length(self, user: UUID) -> int:
        found: int = await self.valkey.execute("LLEN", keys.feed(user)) - 1
        return found


@pytest.fixture
async def shelf(stores: BackingStores) -> AsyncIterator[Shelf]:
    made = Shelf(stores.valkey_url)
    yield made
    await made.valkey.close()


def a_post(millis: int | None = None) -> bytes:
    """A member, of this moment or another."""
    post = new_id().bytes
    return member(post if millis is None else millis.to_bytes(6, "big") + post[6:], new_id().bytes)


def a_post_after(post: bytes) -> bytes:
    """One of the next millisecond. The floor rises by whole ones: of many posts in one, a cut takes all."""
    return a_post(id_millis(UUID(bytes=post[:16])) + 1)


def of_one_bucket(count: int) -> list[UUID]:
    """Users whose feeds one script call serves."""
    return [UUID(int=new_id().int // keys.BUCKETS * keys.BUCKETS + 7) for _ in range(count)]


async def members(shelf: Shelf, user: UUID) -> list[bytes] | None:
    found = await shelf.feeds.read(user)
    return None if found is None else found.members


@pytest.mark.parametrize("known", [True, False], ids=["bucket's newest rebuild known", "not known"])
async def test_a_push_is_taken_by_feeds_that_are_older_than_it_and_by_no_other(shelf: Shelf, *, known: bool) -> None:
    older, younger, cold = of_one_bucket(3)
    await shelf.rebuilt(older, [])
    tick = await shelf.feeds.tick()
    await shelf.rebuilt(younger, [])
    if not known:
        await shelf.valkey.execute("DEL", keys.rebuilt(keys.bucket(older)))
    late, new = a_post(), a_post()
    everybody = older.bytes + younger.bytes + cold.bytes
    assert await shelf.feeds.push(everybody, late, tick) == 1
    assert await members(shelf, older) == [late]
    assert await members(shelf, younger) == []
    assert await shelf.feeds.push(everybody, new, await shelf.feeds.tick()) == 2
    assert await members(shelf, older) == [new, late]
    assert await members(shelf, younger) == [new]
    assert not await shelf.valkey.execute("EXISTS", keys.feed(cold))


async def test_a_rebuild_drops_what_came_before_its_tick_and_keeps_what_came_after(shelf: Shelf) -> None:
    (user,) = of_one_bucket(1)
    tick = shelf.feeds.tick
    early, kept = a_post(), a_post()

    async def push_and_tick() -> int:
        # The bucket knows no rebuild that is as young as this push.
        assert await shelf.feeds.push(user.bytes, early, await tick()) == 1
        return await tick()

    await shelf.rebuilt(of_one_bucket(1)[0], [])
    shelf.feeds.tick = push_and_tick  # type: ignore[method-assign]
    marker = await shelf.feeds.begin(user)
    assert marker is not None
    assert await shelf.feeds.push(user.bytes, kept, await tick()) == 1
    built = await shelf.feeds.finish(user, marker, [], b"")
    assert built is not None
    assert built.members == [kept]


async def test_what_is_cut_off_leaves_the_newest_and_a_floor(shelf: Shelf) -> None:
    (user,) = of_one_bucket(1)
    posts = [a_post() for _ in range(LENGTH)][::-1]
    await shelf.rebuilt(user, posts)
    for _ in range(3 * (LENGTH + SPARE)):
        posts.insert(0, a_post_after(posts[0]))
        assert await shelf.feeds.push(user.bytes, posts[0], await shelf.feeds.tick()) == 1
        assert LENGTH <= await shelf.length(user) <= LENGTH + SPARE
        found = await shelf.feeds.read(user)
        assert found is not None
        assert found.members == posts[: len(found.members)]
        assert len(found.members) >= LENGTH
        assert not found.complete


async def test_a_feed_from_which_late_posts_pushed_newer_ones_is_cold(shelf: Shelf) -> None:
    (user,) = of_one_bucket(1)
    began = id_millis(new_id())
    # Three are cut off, of which the newest came last; those after it were made before it, all the others before them.
    arrivals = [a_post(began + age) for age in (1, 2, 1_000, *range(10, 10 + LENGTH + SPARE - 2))]
    await shelf.rebuilt(user, [])
    for number, post in enumerate(arrivals, 1):
        assert await members(shelf, user) == sorted(arrivals[: number - 1], reverse=True)
        await shelf.feeds.push(user.bytes, post, await shelf.feeds.tick())
    assert await shelf.length(user) == LENGTH + LEFT == len(arrivals) - 3
    assert await members(shelf, user) is None
    assert not await shelf.valkey.execute("EXISTS", keys.feed(user)), "nobody waits for it: the next one rebuilds it"


async def test_pushes_that_cut_a_rebuild_under_way_leave_no_hole_between_them_and_its_posts(shelf: Shelf) -> None:
    (user,) = of_one_bucket(1)
    posts = [a_post() for _ in range(LENGTH)][::-1]
    marker = await shelf.feeds.begin(user)
    assert marker is not None
    while len(posts) < 3 * (LENGTH + SPARE):
        posts.insert(0, a_post_after(posts[0]))
        await shelf.feeds.push(user.bytes, posts[0], await shelf.feeds.tick())
        assert await shelf.length(user) <= LENGTH + SPARE
    built = await shelf.feeds.finish(user, marker, posts[-LENGTH:], b"")
    assert built is not None
    assert LENGTH <= len(built.members) <= LENGTH + SPARE
    assert built.members == posts[: len(built.members)]


async def test_the_same_push_twice_is_shown_once_and_removed_with_its_copies(shelf: Shelf) -> None:
    (user,) = of_one_bucket(1)
    await shelf.rebuilt(user, [])
    post, tick = a_post(), await shelf.feeds.tick()
    for _ in range(2):
        assert await shelf.feeds.push(user.bytes, post, tick) == 1
    assert await members(shelf, user) == [post]
    assert await shelf.feeds.remove(user.bytes, [post]) == 1
    assert await members(shelf, user) == []


async def test_a_feed_is_rebuilt_when_it_is_to_be_longer(shelf: Shelf) -> None:
    full, short = of_one_bucket(2)
    await shelf.rebuilt(full, [a_post() for _ in range(LENGTH)][::-1])
    few = [a_post()]
    await shelf.rebuilt(short, few)
    longer: Any = FeedRepository(shelf.valkey, length=LENGTH + 1, ttl_seconds=600)
    assert await longer.read(full) is None
    assert (await longer.read(short)).members == few, "there are no more, however long it may be"
