"""What settings of feeds and fan-out change, on a real Valkey, with the model of the other services."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from fanfold.contracts import internal, keys
from fanfold.feed.fanout import Pace
from fanfold.feed.jobs import LARGE, SMALL, Chunk, decode
from fanfold.feed.settings import FanoutSettings
from tests.integration.feed.test_equivalence import LENGTH, SETTINGS, House

if TYPE_CHECKING:
    from fanfold.dev.stores import BackingStores

pytestmark = pytest.mark.integration

Make = Callable[..., House]


@pytest.fixture
async def make(stores: BackingStores) -> AsyncIterator[Make]:
    """A feed service and its worker whose settings differ so."""
    made: list[House] = []

    def house(**over: Any) -> House:
        made.append(House(stores.valkey_url, FanoutSettings(**SETTINGS.model_dump() | over)))
        return made[-1]

    yield house
    for one in made:
        await one.valkey.close()


@pytest.mark.parametrize("own", [True, False])
async def test_own_posts_are_in_the_feed_or_not_however_they_would_come_there(make: Make, own: bool) -> None:
    house = make(own_posts=own)
    me, friend = house.world.users[:2]
    await house.follow(me, friend)
    await house.post(me)
    await house.read(me)  # by a rebuild
    await house.post(me)  # by a push
    await house.post(friend)
    for _ in range(LENGTH):
        await house.post(me)  # so many that the friend's is below what is cached
    await house.become_quiet()
    expected = house.world.newest({me, friend} if own else {friend})
    assert (await house.read(me)).members == expected[:LENGTH]
    assert await house.read_all(me, 2) == expected
    await house.evict(keys.feed(me))
    assert await house.read_all(me, LENGTH) == expected


async def test_after_a_loss_of_the_cache_so_many_feeds_are_rebuilt_at_once_and_no_more(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = make(rebuilds=2)
    under_way, most = 0, 0
    call = house.peers.call

    async def counted(endpoint: internal.Endpoint[Any, Any], request: Any) -> Any:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.05)  # as long as another might come
        under_way -= 1
        return await call(endpoint, request)

    monkeypatch.setattr(house.peers, "call", counted)
    await asyncio.gather(*(house.read(user) for user in house.world.users for _ in range(3)))
    assert most == 2
    assert house.peers.calls.count(internal.TIMELINES.path) == len(house.world.users), "each once"


async def test_batched_posts_of_celebrities_are_pushed_through_the_large_lane(make: Make) -> None:
    house = make(celebrity_mode="batched")
    star, *fans = house.world.users
    for fan in fans:
        await house.follow(fan, star)
        await house.read(fan)
    house.world.celebrities.add(star)
    house.world.events.clear()
    await house.post(star)
    await house.handle_event(0)
    assert {lane for lane, _ in house.world.jobs} == {LARGE}
    while house.world.jobs:
        await house.run_job(0)
    for fan in fans:
        cached = await house.repository.read(fan)
        assert cached is not None
        assert cached.members == house.world.brute_force(fan)
        assert not cached.celebrities, "nothing to fold in"


async def test_the_lane_is_chosen_by_the_number_of_followers(make: Make) -> None:
    house = make(followers_page=2, small_lane_followers=2)
    star, *fans = house.world.users
    for count, lane in ((1, SMALL), (2, SMALL), (3, LARGE)):
        await house.follow(fans[count - 1], star)
        house.world.events.clear()
        await house.post(star)
        await house.handle_event(0)
        assert {found for found, _ in house.world.jobs} == {lane}, count
        await house.become_quiet()


async def test_the_large_lane_is_paced_and_the_small_one_does_not_wait_for_it(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = make(large_lane_rate=1)
    waits: list[float] = []

    async def wait(seconds: float) -> None:
        waits.append(seconds)

    star, *fans = house.world.users
    everybody = b"".join(fan.bytes for fan in fans)
    chunk = Chunk("push", (await house.post(star)).bytes, star.bytes, await house.repository.tick(), everybody)
    loop = asyncio.get_running_loop()
    monkeypatch.setattr("fanfold.feed.fanout.asyncio.sleep", wait)
    monkeypatch.setattr(loop, "time", partial(float, loop.time()))  # how long a script takes here does not count
    for lane in (LARGE, LARGE, SMALL, LARGE):
        await house.fanout.run(lane, chunk)
    assert waits == [pytest.approx(len(fans)), pytest.approx(2 * len(fans))]


async def test_a_pace_is_kept_on_average_and_nothing_is_saved_up(monkeypatch: pytest.MonkeyPatch) -> None:
    now, loop = 100.0, asyncio.get_running_loop()
    waits: list[float] = []

    async def wait(seconds: float) -> None:
        nonlocal now
        waits.append(seconds)
        now += seconds

    with monkeypatch.context() as patched:
        patched.setattr(loop, "time", lambda: now)
        patched.setattr("fanfold.feed.fanout.asyncio.sleep", wait)
        pace = Pace(1_000)
        for _ in range(3):
            await pace.take(500)
        now += 3_600
        for _ in range(2):
            await pace.take(500)
    assert waits == [0.5, 0.5, 0.5], "the first of each crowd goes at once, an idle hour lets no more through"


async def test_a_page_of_followers_is_a_message_of_its_own(make: Make) -> None:
    house = make(followers_page=2)
    star, *fans = house.world.users
    for fan in fans:
        await house.follow(fan, star)
    house.world.events.clear()
    await house.post(star)
    await house.handle_event(0)
    delivered: list[UUID] = []
    while house.world.jobs:
        job = decode(house.world.jobs[0][1])
        if isinstance(job, Chunk):
            assert len(job.recipients) <= 3 * 16, "a page, and the author's own feed with the first"
            delivered += [UUID(bytes=job.recipients[at : at + 16]) for at in range(0, len(job.recipients), 16)]
        await house.run_job(0)
    assert sorted(delivered) == sorted([star, *fans])
