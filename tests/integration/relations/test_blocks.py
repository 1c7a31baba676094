"""Blocks among the real services: what one of the two does the other does not see, on any way to it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from fanfold.contracts import events, internal, keys
from fanfold.contracts.events import Liked
from fanfold.contracts.ids import new_id
from fanfold.dev.process import free_ports
from fanfold.feed.repository import FeedRepository, member
from fanfold.follow import repository
from fanfold.kit.errors import Unavailable
from fanfold.kit.streams import publish
from tests.integration.relations.conftest import TAG
from tests.waiting import eventually

if TYPE_CHECKING:
    from tests.integration.relations.conftest import Town

pytestmark = pytest.mark.integration


async def views(town: Town, viewer: UUID, other: UUID, post: UUID) -> dict[str, int]:
    """How each way to a post of the other, and to the other, answers."""
    asked = {
        "post": ("post", "GET", f"/v1/posts/{post}"),
        "timeline": ("post", "GET", f"/v1/users/{other}/posts"),
        "profile": ("profile", "GET", f"/v1/users/{other}"),
        "followers": ("follow", "GET", f"/v1/users/{other}/followers"),
        "following": ("follow", "GET", f"/v1/users/{other}/following"),
        "likes": ("activity", "GET", f"/v1/posts/{post}/likes"),
        "comments": ("activity", "GET", f"/v1/posts/{post}/comments"),
        "like": ("activity", "PUT", f"/v1/posts/{post}/like"),
    }
    found = {what: await town.status(*call, viewer) for what, call in asked.items()}
    comment = {"json": {"text": "nice"}}
    found["comment"] = await town.status("activity", "POST", f"/v1/posts/{post}/comments", viewer, **comment)
    found["follow"] = await town.follow(viewer, other)
    return found


async def test_a_block_hides_two_users_from_each_other_and_its_end_shows_them_again(town: Town) -> None:
    ada, bob, eve = [await town.user() for _ in range(3)]
    assert await town.follow(ada, bob) == await town.follow(bob, ada) == 204
    by_ada, by_bob, by_eve = [await town.post(user) for user in (ada, bob, eve)]

    async def fed() -> bool:
        return set(await town.feed(ada)) == {str(by_ada), str(by_bob)}

    await eventually(fed)
    for user in (ada, bob):
        assert await town.status("activity", "PUT", f"/v1/posts/{by_eve}/like", user) == 204
        comment = await town.call("activity", "POST", f"/v1/posts/{by_eve}/comments", user, json={"text": "me"})
        assert comment.status_code == 201
    comment_of_bob = comment.json()["id"]
    await eventually(lambda: _told(town, bob, ("follow", str(ada))))

    assert await town.block(ada, bob) == 204
    blocked = dict.fromkeys(await views(town, bob, ada, by_ada), 404)
    assert await views(town, bob, ada, by_ada) == blocked
    blocker = blocked | {"profile": 200, "timeline": 403, "followers": 403, "following": 403, "follow": 409}
    assert await views(town, ada, bob, by_bob) == blocker
    name = (await town.call("profile", "GET", "/v1/users/me", ada)).json()["username"]
    assert await town.ids("profile", f"/v1/users?username={name}", bob) == []
    for viewer, other, hidden in ((ada, bob, by_bob), (bob, ada, by_ada)):
        assert str(hidden) not in await town.feed(viewer)
        assert str(hidden) not in await town.ids("post", f"/v1/tags/{TAG}/posts", viewer)
        assert await town.ids("activity", f"/v1/posts/{by_eve}/likes", viewer) == [str(viewer)]
        comments = (await town.call("activity", "GET", f"/v1/posts/{by_eve}/comments", viewer)).json()["items"]
        assert [item["author"]["id"] for item in comments] == [str(viewer)]
        assert str(other) not in {actor for _, actor in await town.told(viewer)}
        assert (await town.call("follow", "GET", f"/v1/users/me/following/{other}", viewer)).status_code == 404
    assert await town.status("activity", "PUT", f"/v1/comments/{comment_of_bob}/like", ada) == 404
    assert len(await town.ids("activity", f"/v1/posts/{by_eve}/likes", eve)) == 2
    assert await town.ids("follow", "/v1/users/me/blocks", ada) == [str(bob)]
    assert await town.ids("follow", "/v1/users/me/blocks", bob) == []
    assert await town.status("follow", "GET", f"/v1/users/me/blocks/{bob}", ada) == 200
    assert await town.status("follow", "GET", f"/v1/users/me/blocks/{ada}", bob) == 404

    for _ in range(2):
        assert await town.status("follow", "DELETE", f"/v1/users/me/blocks/{bob}", ada) == 204
    assert await town.feed(bob) == [str(by_bob)]
    assert set((await views(town, bob, ada, by_ada)).values()) == {200, 201, 204}


async def _told(town: Town, user: UUID, what: tuple[str, str]) -> bool:
    return what in await town.told(user)


async def test_no_push_in_flight_brings_a_post_back_into_a_feed_after_a_block(town: Town) -> None:
    ada, bob = await town.user(), await town.user()
    assert await town.follow(ada, bob) == await town.follow(bob, ada) == 204
    feeds = FeedRepository(town.house.runtimes["feed-worker"].valkey, length=20, ttl_seconds=600)
    tick = await feeds.tick()  # a worker has read both lists of followers, and pushes late
    assert await town.feed(ada) == await town.feed(bob) == []
    assert await town.block(ada, bob) == 204
    assert await town.feed(ada) == await town.feed(bob) == []
    for reader, author in ((ada, bob), (bob, ada)):
        assert await feeds.push(reader.bytes, member((await town.post(author)).bytes, author.bytes), tick) == 0
        assert await town.feed(reader) in ([], [str(post) for post in await _own(town, reader)])


async def _own(town: Town, user: UUID) -> list[str]:
    return await town.ids("post", f"/v1/users/{user}/posts", user)


async def test_follows_and_blocks_at_the_same_moment_leave_no_follow_beside_a_block(town: Town) -> None:
    for _ in range(6):
        ada, bob = await town.user(), await town.user()
        statuses = await asyncio.gather(
            town.follow(bob, ada), town.block(ada, bob), town.follow(bob, ada), town.follow(ada, bob)
        )
        assert statuses[1] == 204
        assert set(statuses) <= {204, 404, 409}
        for viewer, other in ((ada, bob), (bob, ada)):
            assert await town.status("follow", "GET", f"/v1/users/me/following/{other}", viewer) == 404


async def test_blocks_of_one_user_at_the_same_moment_all_stand_in_what_others_read(town: Town) -> None:
    ada, others = await town.user(), [await town.user() for _ in range(5)]
    statuses = await asyncio.gather(*(town.block(ada, other) for other in others))
    assert set(statuses) == {204}
    stored = await town.house.redis.get(keys.blocks(ada))
    assert sorted(stored[at : at + 16] for at in range(0, len(stored), 16)) == sorted(other.bytes for other in others)
    await town.house.redis.delete(keys.blocks(ada))
    answer = await town.house.peers.call(internal.BLOCKS, internal.Ids([ada.bytes, others[0].bytes]))
    assert (len(answer.blobs[ada.bytes]), answer.blobs[others[0].bytes]) == (5 * 16, b"")
    assert await town.house.redis.get(keys.blocks(ada)) == answer.blobs[ada.bytes]
    assert await town.house.redis.get(keys.blocks(others[0])) == b""


async def test_what_was_done_before_a_block_is_not_told_after_it(town: Town) -> None:
    ada, bob, eve = [await town.user() for _ in range(3)]
    post = await town.post(ada)
    assert await town.block(ada, bob) == 204
    for actor in (bob, eve):  # bob's like was committed before the block, and its event comes after it
        like = Liked(
            activity_id=new_id(), user_id=actor, owner_id=ada, parent_type="post", parent_id=post, post_id=post
        )
        await publish(town.house.redis, like.topic, like.partition, events.encode(like))
    await eventually(lambda: _told(town, ada, ("like", str(eve))))
    assert await town.told(ada) == [("like", str(eve))]


async def test_nobody_blocks_themselves_or_nobody_or_more_than_the_limit(town: Town) -> None:
    ada, bob, eve = [await town.user() for _ in range(3)]
    assert await town.block(ada, ada) == 422
    assert await town.block(ada, new_id()) == 404
    (port,) = free_ports(1)
    town.apis["follow"] = await town.house.start("follow", blocks_limit=1, traffic_port=port)
    assert await town.block(ada, bob) == 204
    assert await town.block(ada, eve) == 409
    assert await town.house.redis.get(keys.blocks(ada)) == bob.bytes
    assert await town.ids("follow", "/v1/users/me/blocks", ada) == [str(bob)]


async def test_while_nobody_can_say_who_blocks_whom_nothing_is_shown(house: Any) -> None:
    profile = await house.start("profile")
    body = {"username": "ada.l", "password": "a long enough passphrase"}
    ada = (await profile.post("/v1/accounts", json=body, headers=house.anonymous())).json()["id"]
    bob = new_id()
    assert (await profile.get(f"/v1/users/{ada}", headers=house.as_user(bob))).status_code == 503
    for user in (UUID(ada), bob):
        await house.redis.set(keys.blocks(user), b"")
    assert (await profile.get(f"/v1/users/{ada}", headers=house.as_user(bob))).status_code == 200
    with pytest.raises(Unavailable):
        await house.peers.call(internal.BLOCKS, internal.Ids([bob.bytes]))


async def test_a_deleted_account_leaves_no_block(town: Town) -> None:
    ada, bob, eve = [await town.user() for _ in range(3)]
    assert await town.block(ada, bob) == await town.block(eve, ada) == 204
    gone = events.AccountDeleted(user_id=ada)
    await publish(town.house.redis, gone.topic, gone.partition, events.encode(gone))

    async def forgotten() -> bool:
        async with town.house.runtimes["follow"].database.reading() as session:
            return not await repository.blockers(session, ada, bob) and not await repository.blockers(session, ada, eve)

    await eventually(forgotten)
