from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any
from uuid import UUID

import httpx
import msgspec
import pytest
from fastapi import APIRouter

from fanfold.contracts import events, internal, keys
from fanfold.contracts.ids import new_id
from fanfold.dev.process import free_ports
from fanfold.feed.stored import WHOLE
from fanfold.follow import repository
from fanfold.follow.celebrities import FollowerTotals
from fanfold.kit.db import Database
from fanfold.kit.peers import PeerProblem
from fanfold.kit.runtime import Runtime
from fanfold.kit.web import create_app, internal_route
from tests.waiting import eventually

if TYPE_CHECKING:
    from tests.integration.conftest import House, SchemaDifferences

pytestmark = pytest.mark.integration

PASSWORD = "tr0ubador&3"


class FeedEar:
    """In the feed service's place: hears what it is told, and sees whether the row was there at that moment."""

    def __init__(self) -> None:
        self.told: list[tuple[str, UUID, UUID, bool]] = []
        self.database: Database | None = None

    async def build(self, _: Runtime[Any]) -> Any:
        app = create_app("ear", "0")
        router = APIRouter()
        internal_route(router, internal.FEED_FOLLOW, lambda change: self._hear("follow", change))
        internal_route(router, internal.FEED_UNFOLLOW, lambda change: self._hear("unfollow", change))
        app.include_router(router)
        return app

    async def _hear(self, what: str, change: internal.FollowChange) -> internal.Done:
        follower, followee = UUID(bytes=change.follower_id), UUID(bytes=change.followee_id)
        assert self.database is not None
        async with self.database.reading() as session:
            there = await repository.get(session, follower, followee) is not None
        self.told.append((what, follower, followee, there))
        return internal.Done()


@pytest.fixture
def ear() -> FeedEar:
    return FeedEar()


@pytest.fixture
async def alone(house: House) -> httpx.AsyncClient:
    """The follow service with profile, but without a feed service."""
    await house.start("profile")
    return await house.start("follow", celebrity_threshold=3)


@pytest.fixture
async def follow(house: House, alone: httpx.AsyncClient, ear: FeedEar) -> httpx.AsyncClient:
    """The follow service with profile, and an ear in the feed service's place."""
    await house.start("feed", build=ear.build)
    ear.database = house.runtimes["follow"].database
    return alone


Join = Callable[[], Awaitable[UUID]]


@pytest.fixture
def join(house: House, alone: httpx.AsyncClient) -> Join:
    """Register somebody."""

    async def register() -> UUID:
        async with httpx.AsyncClient(base_url=house.urls["profile"], timeout=60) as profile:
            account = {"username": f"user_{secrets.token_hex(6)}", "password": PASSWORD}
            answer = await profile.post("/v1/accounts", json=account, headers=house.anonymous())
        assert answer.status_code == 201
        return UUID(answer.json()["id"])

    return register


def to(user_id: UUID) -> str:
    return f"/v1/users/me/following/{user_id}"


async def published(house: House, event: events.Event) -> int:
    """How often the event stands in its stream."""
    entries = await house.redis.xrange(keys.stream(event.topic, event.partition))
    return [fields[b"event"] for _, fields in entries].count(events.encode(event))


async def test_models_and_migrations_agree(schema_differences: SchemaDifferences) -> None:
    assert await schema_differences("follow") == []


async def test_following_is_idempotent_and_told_as_one_event(
    house: House, follow: httpx.AsyncClient, join: Join, ear: FeedEar
) -> None:
    ada, bob = await join(), await join()
    me = house.as_user(ada)
    assert (await follow.get(to(bob), headers=me)).status_code == 404
    for _ in range(2):
        assert (await follow.put(to(bob), headers=me)).status_code == 204
    following = (await follow.get(to(bob), headers=me)).json()
    assert following == {"user_id": str(bob), "created_at": following["created_at"]}
    assert ear.told == [("follow", ada, bob, True)] * 2
    unrelated = events.Followed(follower_id=ada, followee_id=ada)
    await eventually(lambda: _is(house, events.Followed(follower_id=ada, followee_id=bob), 1))
    assert await published(house, unrelated) == 0


async def _is(house: House, event: events.Event, times: int) -> bool:
    return await published(house, event) == times


async def test_two_who_follow_at_the_same_moment_make_one_follow(
    house: House, follow: httpx.AsyncClient, join: Join
) -> None:
    ada, bob = await join(), await join()
    answers = await asyncio.gather(*(follow.put(to(bob), headers=house.as_user(ada)) for _ in range(6)))
    assert {answer.status_code for answer in answers} == {204}
    await eventually(lambda: _is(house, events.Followed(follower_id=ada, followee_id=bob), 1))
    page = await follow.get(f"/v1/users/{bob}/followers", headers=house.as_user(ada))
    assert [item["id"] for item in page.json()["items"]] == [str(ada)]


async def test_nobody_follows_themselves_or_somebody_who_is_not_there(
    house: House, follow: httpx.AsyncClient, join: Join, ear: FeedEar
) -> None:
    ada = await join()
    assert (await follow.put(to(ada), headers=house.as_user(ada))).status_code == 422
    assert (await follow.put(to(new_id()), headers=house.as_user(ada))).status_code == 404
    assert (await follow.put("/v1/users/me/following/x", headers=house.as_user(ada))).status_code == 422
    assert ear.told == []


async def test_the_feed_is_told_of_an_unfollow_after_the_row_is_gone_and_before_the_answer(
    house: House, follow: httpx.AsyncClient, join: Join, ear: FeedEar
) -> None:
    ada, bob = await join(), await join()
    me = house.as_user(ada)
    await follow.put(to(bob), headers=me)
    assert (await follow.delete(to(bob), headers=me)).status_code == 204
    assert ear.told[-1] == ("unfollow", ada, bob, False)
    assert (await follow.get(to(bob), headers=me)).status_code == 404
    await eventually(lambda: _is(house, events.Unfollowed(follower_id=ada, followee_id=bob), 1))


async def test_an_unfollow_the_feed_did_not_confirm_is_503_until_it_does(
    house: House, alone: httpx.AsyncClient, join: Join, ear: FeedEar
) -> None:
    ada, bob = await join(), await join()
    me = house.as_user(ada)
    assert (await alone.put(to(bob), headers=me)).status_code == 204
    refused = await alone.delete(to(bob), headers=me)
    assert refused.status_code == 503
    assert refused.headers["retry-after"]
    assert refused.json()["type"].endswith("/unfollow-unconfirmed")
    assert (await alone.get(to(bob), headers=me)).status_code == 404
    await eventually(lambda: _is(house, events.Unfollowed(follower_id=ada, followee_id=bob), 1))
    await house.start("feed", build=ear.build)
    ear.database = house.runtimes["follow"].database
    assert (await alone.delete(to(bob), headers=me)).status_code == 204
    assert ear.told == [("unfollow", ada, bob, False)]


async def test_lists_are_newest_first_and_stable_while_people_come_and_go(
    house: House, follow: httpx.AsyncClient, join: Join
) -> None:
    star, fans = await join(), [await join() for _ in range(5)]
    for fan in fans:
        await follow.put(to(star), headers=house.as_user(fan))
    url, reader = f"/v1/users/{star}/followers", house.as_user(fans[0])
    first = (await follow.get(url, params={"limit": 2}, headers=reader)).json()
    late = await join()
    await follow.put(to(star), headers=house.as_user(late))
    await follow.delete(to(star), headers=house.as_user(fans[1]))
    seen = [item["id"] for item in first["items"]]
    cursor = first["next_cursor"]
    while cursor:
        page = (await follow.get(url, params={"limit": 2, "cursor": cursor}, headers=reader)).json()
        seen += [item["id"] for item in page["items"]]
        cursor = page["next_cursor"]
    assert seen == [str(fans[index]) for index in (4, 3, 2, 0)]
    mine = (await follow.get("/v1/users/me/followers", headers=house.as_user(star))).json()
    assert [item["id"] for item in mine["items"]] == [str(fan) for fan in (late, *(fans[i] for i in (4, 3, 2, 0)))]
    assert mine["next_cursor"] is None
    assert set(mine["items"][0]) == {"id", "username", "display_name", "picture_url"}


async def test_the_list_of_whom_one_follows_has_cursors_of_its_own(
    house: House, follow: httpx.AsyncClient, join: Join
) -> None:
    ada, others = await join(), [await join() for _ in range(3)]
    for other in others:
        await follow.put(to(other), headers=house.as_user(ada))
    page = (await follow.get("/v1/users/me/following", params={"limit": 2}, headers=house.as_user(ada))).json()
    assert [item["id"] for item in page["items"]] == [str(others[2]), str(others[1])]
    parameters = {"cursor": page["next_cursor"]}
    rest = await follow.get(f"/v1/users/{ada}/following", params=parameters, headers=house.as_user(others[0]))
    assert [item["id"] for item in rest.json()["items"]] == [str(others[0])]
    wrong_list = await follow.get(f"/v1/users/{ada}/followers", params=parameters, headers=house.as_user(ada))
    assert wrong_list.status_code == 400
    assert (await follow.get(f"/v1/users/{new_id()}/followers", headers=house.as_user(ada))).status_code == 404


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", to(UUID(int=7))),
        ("DELETE", to(UUID(int=7))),
        ("GET", to(UUID(int=7))),
        ("GET", "/v1/users/me/following"),
        ("GET", "/v1/users/me/followers"),
        ("GET", f"/v1/users/{UUID(int=7)}/followers"),
        ("GET", f"/v1/users/{UUID(int=7)}/following"),
    ],
)
async def test_only_users_see_and_change_follows(
    house: House, alone: httpx.AsyncClient, method: str, path: str
) -> None:
    for headers in ({}, house.anonymous(), house.as_service("feed")):
        assert (await alone.request(method, path, headers=headers)).status_code == 401


@pytest.mark.parametrize("endpoint", [internal.FOLLOWERS, internal.FOLLOWEES], ids=["followers", "followees"])
async def test_internal_lists_are_for_services_only(house: House, alone: httpx.AsyncClient, endpoint: Any) -> None:
    body = msgspec.msgpack.encode(endpoint.request(new_id().bytes))
    for headers, status in [({}, 401), (house.anonymous(), 403), (house.as_user(new_id()), 403)]:
        assert (await alone.post(endpoint.path, content=body, headers=headers)).status_code == status


@pytest.mark.parametrize(
    "query",
    [
        internal.FollowersQuery(b"short"),
        internal.FollowersQuery(bytes(16), b"short"),
        internal.FollowersQuery(bytes(16), limit=0),
        internal.FollowersQuery(bytes(16), limit=internal.FOLLOWERS_PAGE + 1),
    ],
)
async def test_malformed_internal_queries_are_refused(
    house: House, alone: httpx.AsyncClient, query: internal.FollowersQuery
) -> None:
    with pytest.raises(PeerProblem) as caught:
        await house.peers.call(internal.FOLLOWERS, query)
    assert caught.value.status == 422


async def insert(house: House, pairs: list[tuple[UUID, UUID]]) -> None:
    """Follows without the API: of many people who need not exist."""
    async with house.runtimes["follow"].database.transaction() as session:
        for follower, followee in pairs:
            await repository.add(session, follower, followee)


async def test_all_followers_come_once_in_id_order_page_by_page(house: House, alone: httpx.AsyncClient) -> None:
    star, fans = new_id(), [new_id() for _ in range(7)]
    await insert(house, [(fan, star) for fan in reversed(fans)] + [(star, fan) for fan in fans])
    pages, after = [], b""
    while True:
        page = await house.peers.call(internal.FOLLOWERS, internal.FollowersQuery(star.bytes, after, limit=3))
        assert page.total == 7
        pages.append(page.follower_ids)
        if len(page.follower_ids) < 3 * 16:
            break
        after = page.follower_ids[-16:]
    assert [len(page) // 16 for page in pages] == [3, 3, 1]
    assert b"".join(pages) == b"".join(sorted(fan.bytes for fan in fans))
    nobody = await house.peers.call(internal.FOLLOWERS, internal.FollowersQuery(new_id().bytes))
    assert nobody == internal.FollowersPage(b"", 0, celebrity=False)


async def test_followees_are_split_into_pushed_and_celebrities(
    house: House, follow: httpx.AsyncClient, join: Join
) -> None:
    ada, star, friend = await join(), await join(), await join()
    for followee in (star, friend):
        await follow.put(to(followee), headers=house.as_user(ada))
    query = internal.FolloweesQuery(ada.bytes)
    before = await house.peers.call(internal.FOLLOWEES, query)
    assert {before.pushed[:16], before.pushed[16:]} == {star.bytes, friend.bytes}
    assert before.celebrities == b""
    fans = [await join() for _ in range(3)]
    for fan in fans:
        await follow.put(to(star), headers=house.as_user(fan))
    crossed = await house.peers.call(internal.FOLLOWEES, query)
    assert (crossed.pushed, crossed.celebrities) == (friend.bytes, star.bytes)
    await follow.delete(to(star), headers=house.as_user(fans[0]))
    still = await house.peers.call(internal.FOLLOWEES, query)
    assert still == crossed
    await follow.delete(to(star), headers=house.as_user(fans[1]))
    back = await house.peers.call(internal.FOLLOWEES, query)
    assert (len(back.pushed), back.celebrities) == (32, b"")


async def test_a_crossing_that_no_follow_saw_is_noticed_before_the_next_post_is_delivered(
    house: House, alone: httpx.AsyncClient
) -> None:
    star, fans = new_id(), [new_id() for _ in range(5)]
    await insert(house, [(fan, star) for fan in fans])
    followees = internal.FolloweesQuery(fans[0].bytes)
    assert (await house.peers.call(internal.FOLLOWEES, followees)).celebrities == b""
    page = await house.peers.call(internal.FOLLOWERS, internal.FollowersQuery(star.bytes))
    assert page.celebrity
    assert (await house.peers.call(internal.FOLLOWEES, followees)).celebrities == star.bytes


async def test_nobody_follows_more_people_than_the_limit(house: House, join: Join) -> None:
    (port,) = free_ports(1)
    follow = await house.start("follow", following_limit=2, traffic_port=port)
    ada, others = await join(), [await join() for _ in range(3)]
    statuses = [(await follow.put(to(other), headers=house.as_user(ada))).status_code for other in others]
    assert statuses == [204, 204, 409]
    assert (await follow.put(to(others[0]), headers=house.as_user(ada))).status_code == 204
    page = await follow.get("/v1/users/me/following", headers=house.as_user(ada))
    assert len(page.json()["items"]) == 2


async def test_a_deleted_account_follows_nobody_and_is_followed_by_nobody(
    house: House, alone: httpx.AsyncClient, join: Join, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fanfold.follow.service.PURGE_BATCH", 2)
    gone, stranger = await join(), new_id()
    others = [new_id() for _ in range(5)]
    await insert(house, [(gone, other) for other in others] + [(other, gone) for other in others])
    await insert(house, [(stranger, others[0])])
    await house.peers.call(internal.FOLLOWERS, internal.FollowersQuery(gone.bytes))
    async with httpx.AsyncClient(base_url=house.urls["profile"], timeout=60) as profile:
        answer = await profile.request(
            "DELETE", "/v1/users/me", json={"password": PASSWORD}, headers=house.as_user(gone)
        )
    assert answer.status_code == 204

    async def purged() -> bool:
        followers = await house.peers.call(internal.FOLLOWERS, internal.FollowersQuery(gone.bytes))
        followees = await house.peers.call(internal.FOLLOWEES, internal.FolloweesQuery(gone.bytes))
        return (followers.follower_ids, followees.pushed, followees.celebrities) == (b"", b"", b"")

    await eventually(purged)
    async with house.runtimes["follow"].database.reading() as session:
        assert not await repository.is_celebrity(session, gone)
    untouched = await house.peers.call(internal.FOLLOWERS, internal.FollowersQuery(others[0].bytes))
    assert untouched.follower_ids == stranger.bytes


async def test_a_total_is_counted_once_however_many_ask_and_again_when_it_is_old(
    house: House, alone: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    database, star = house.runtimes["follow"].database, new_id()
    await insert(house, [(new_id(), star) for _ in range(2)])
    counted: list[UUID] = []
    genuine = repository.count_followers

    async def counting(session: Any, user_id: UUID, at_most: int | None = None) -> int:
        counted.append(user_id)
        return await genuine(session, user_id, at_most)

    monkeypatch.setattr(repository, "count_followers", counting)
    clock = [100.0]
    totals = FollowerTotals(database, 5.0, lambda: clock[0])
    assert await asyncio.gather(*(totals.get(star) for _ in range(20))) == [2] * 20
    assert counted == [star]
    await insert(house, [(new_id(), star)])
    clock[0] += 4.9
    assert await totals.get(star) == 2
    clock[0] += 0.2
    assert await totals.get(star) == 3


async def test_the_feed_service_itself_confirms_an_unfollow(house: House, alone: httpx.AsyncClient, join: Join) -> None:
    await house.start("feed")
    ada, bob = await join(), await join()
    feed = keys.feed(ada)
    await house.redis.rpush(feed, WHOLE)
    assert (await alone.put(to(bob), headers=house.as_user(ada))).status_code == 204
    assert not await house.redis.exists(feed)
    await house.redis.rpush(feed, WHOLE)
    assert (await alone.delete(to(bob), headers=house.as_user(ada))).status_code == 204
    assert not await house.redis.exists(feed)
