"""Private accounts among the real services: posts are for followers, and who wants to follow asks."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from uuid import UUID

import pytest

from fanfold.contracts import events, keys
from fanfold.contracts.events import PostCreated
from fanfold.contracts.ids import new_id
from fanfold.follow import repository
from fanfold.kit.streams import publish
from tests.integration.relations.conftest import TAG
from tests.waiting import eventually

if TYPE_CHECKING:
    from tests.integration.relations.conftest import Town

pytestmark = pytest.mark.integration


def request(user: UUID) -> str:
    return f"/v1/users/me/follow-requests/{user}"


async def make_private(town: Town, user: UUID, *, private: bool = True) -> None:
    answer = await town.call("profile", "PATCH", "/v1/users/me", user, json={"private": private})
    assert answer.json()["private"] is private, answer.text


async def ways(town: Town, viewer: UUID, author: UUID, post: UUID) -> list[int]:
    """How each way to a post of a private account answers."""
    calls = [
        ("post", "GET", f"/v1/posts/{post}"),
        ("post", "GET", f"/v1/users/{author}/posts"),
        ("follow", "GET", f"/v1/users/{author}/followers"),
        ("follow", "GET", f"/v1/users/{author}/following"),
        ("activity", "GET", f"/v1/posts/{post}/likes"),
        ("activity", "GET", f"/v1/posts/{post}/comments"),
        ("activity", "PUT", f"/v1/posts/{post}/like"),
    ]
    found = [await town.status(*call, viewer) for call in calls]
    comment = {"json": {"text": "nice"}}
    return [*found, await town.status("activity", "POST", f"/v1/posts/{post}/comments", viewer, **comment)]


CLOSED = [404, 403, 403, 403, 404, 404, 404, 404]
OPEN = [200, 200, 200, 200, 200, 200, 204, 201]


async def test_posts_of_a_private_account_are_seen_by_its_followers_and_itself_on_every_way(town: Town) -> None:
    ada, old_friend, stranger = [await town.user() for _ in range(3)]
    assert await town.follow(old_friend, ada) == 204
    post = await town.post(ada)
    assert await ways(town, stranger, ada, post) == OPEN
    await make_private(town, ada)
    assert await ways(town, stranger, ada, post) == CLOSED
    assert str(post) not in await town.ids("post", f"/v1/tags/{TAG}/posts", stranger)
    seen = await town.call("profile", "GET", f"/v1/users/{ada}", stranger)
    assert (seen.status_code, seen.json()["private"]) == (200, True)
    for viewer in (ada, old_friend):
        assert await ways(town, viewer, ada, post) == OPEN
        assert str(post) in await town.ids("post", f"/v1/tags/{TAG}/posts", viewer)

    assert await town.follow(stranger, ada) == 202
    assert await ways(town, stranger, ada, post) == CLOSED
    assert await town.feed(stranger) == []
    assert await town.status("follow", "PUT", request(stranger), ada) == 204
    assert await ways(town, stranger, ada, post) == OPEN
    await eventually(lambda: _sees(town, stranger, post))
    gone = await town.status("follow", "DELETE", f"/v1/users/me/followers/{stranger}", ada)
    assert gone == 204
    assert await ways(town, stranger, ada, post) == CLOSED
    assert await town.feed(stranger) == []


async def _sees(town: Town, user: UUID, post: UUID) -> bool:
    return str(post) in await town.feed(user)


async def test_a_request_is_listed_told_granted_denied_and_taken_back(town: Town) -> None:
    ada, bob, eve, kim = await town.user(private=True), *[await town.user() for _ in range(3)]
    for asking in (bob, eve, kim, bob):
        assert await town.follow(asking, ada) == 202
    assert await town.ids("follow", "/v1/users/me/follow-requests", ada) == [str(user) for user in (kim, eve, bob)]
    assert await town.ids("follow", "/v1/users/me/follow-requests/sent", bob) == [str(ada)]
    asked = {("follow_request", str(user)) for user in (bob, eve, kim)}

    async def told() -> bool:
        return set(await town.told(ada)) == asked

    await eventually(told)
    assert await town.status("follow", "DELETE", f"/v1/users/me/following/{ada}", kim) == 204
    assert await town.status("follow", "PUT", request(kim), ada) == 404
    for _ in range(2):
        assert await town.status("follow", "DELETE", request(eve), ada) == 204
        assert await town.status("follow", "PUT", request(bob), ada) == 204
    assert await town.status("follow", "PUT", request(eve), ada) == 404
    assert await town.ids("follow", "/v1/users/me/follow-requests", ada) == []
    assert await town.ids("follow", "/v1/users/me/followers", ada) == [str(bob)]
    assert await town.follow(bob, ada) == 204

    async def approved() -> bool:
        return await town.told(bob) == [("follow_approved", str(ada))]

    await eventually(approved)
    assert await town.told(eve) == []


async def test_becoming_public_grants_what_was_asked_before(town: Town) -> None:
    ada, bob, eve = [await town.user() for _ in range(3)]
    await make_private(town, ada)
    assert await town.follow(bob, ada) == 202
    await make_private(town, ada, private=False)

    async def granted() -> bool:
        return await town.ids("follow", "/v1/users/me/followers", ada) == [str(bob)]

    await eventually(granted)
    await make_private(town, ada)
    assert await town.follow(eve, ada) == 202
    late = events.PrivacyChanged(user_id=ada, private=False, changed_ms=int.from_bytes(bob.bytes[:6], "big"))
    await publish(town.house.redis, late.topic, late.partition, events.encode(late))  # delivered a second time
    marker = events.AccountDeleted(user_id=bob)
    await publish(town.house.redis, marker.topic, late.partition, events.encode(marker))

    async def handled() -> bool:
        return await town.ids("follow", "/v1/users/me/followers", ada) == []

    await eventually(handled)
    assert await town.ids("follow", "/v1/users/me/follow-requests", ada) == [str(eve)]


async def test_a_request_that_meets_the_change_to_public_is_a_follow(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada, bob = await town.user(private=True), await town.user()
    add = repository.add_request

    async def becomes_public_meanwhile(*arguments: UUID) -> bool:
        added = await add(*arguments)  # type: ignore[arg-type]
        await make_private(town, ada, private=False)
        return added

    monkeypatch.setattr(repository, "add_request", becomes_public_meanwhile)
    assert await town.follow(bob, ada) == 204
    assert await town.ids("follow", "/v1/users/me/followers", ada) == [str(bob)]
    assert await town.ids("follow", "/v1/users/me/follow-requests/sent", bob) == []


async def test_approval_and_withdrawal_at_the_same_moment_leave_what_the_last_one_says(town: Town) -> None:
    ada = await town.user(private=True)
    for _ in range(6):
        bob = await town.user()
        assert await town.follow(bob, ada) == 202
        approved, withdrawn = await asyncio.gather(
            town.status("follow", "PUT", request(bob), ada),
            town.status("follow", "DELETE", f"/v1/users/me/following/{ada}", bob),
        )
        assert withdrawn == 204
        assert approved in (204, 404)
        assert await town.status("follow", "GET", f"/v1/users/me/following/{ada}", bob) == 404


async def test_who_may_not_open_a_post_is_not_told_of_being_mentioned_in_it(town: Town) -> None:
    ada, friend, stranger = await town.user(private=True), await town.user(), await town.user()
    assert await town.follow(friend, ada) == 202
    assert await town.status("follow", "PUT", request(friend), ada) == 204
    names = [
        (await town.call("profile", "GET", "/v1/users/me", user)).json()["username"] for user in (stranger, friend)
    ]
    made = PostCreated(post_id=new_id(), author_id=ada, mentioned_usernames=names)
    await publish(town.house.redis, made.topic, made.partition, events.encode(made))

    async def told() -> bool:
        return ("mention", str(ada)) in await town.told(friend)

    await eventually(told)
    assert await town.told(stranger) == []


async def test_a_block_takes_requests_with_it(town: Town) -> None:
    ada, bob = await town.user(private=True), await town.user()
    assert await town.follow(bob, ada) == 202
    assert await town.block(ada, bob) == 204
    assert await town.ids("follow", "/v1/users/me/follow-requests", ada) == []
    assert await town.status("follow", "PUT", request(bob), ada) == 404
    assert await town.house.redis.get(keys.blocks(ada)) == bob.bytes
