from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
import msgspec
import pytest

from fanfold.contracts import events, keys
from fanfold.contracts.blobs import UserBlob
from fanfold.contracts.events import Commented, Event, Followed, Liked, PostCreated, PostDeleted
from fanfold.contracts.ids import first_id, new_id
from fanfold.kit.fanin import FanIn
from fanfold.kit.streams import publish
from fanfold.notification import repository
from fanfold.notification.drafts import Draft
from fanfold.notification.models import Notification
from tests.waiting import eventually

pytestmark = pytest.mark.integration

PUSHES = 4
WINDOW_SECONDS = 120
"""Longer than a test takes on a busy machine."""


@dataclass
class Room:
    """The notification service and its worker, and what other services would send them."""

    house: Any
    api: httpx.AsyncClient

    async def user(self, name: str) -> UUID:
        user_id = new_id()
        blob = msgspec.msgpack.encode(UserBlob(user_id.bytes, name, name.title(), ""))
        await self.house.redis.set(keys.user(user_id), blob)
        await self.house.redis.set(keys.blocks(user_id), b"")
        return user_id

    async def send(self, *new: Event) -> None:
        for event in new:
            await publish(self.house.redis, event.topic, event.partition, events.encode(event))

    async def get(self, user: UUID, etag: str = "", **params: Any) -> httpx.Response:
        head = self.house.as_user(user) | ({"If-None-Match": etag} if etag else {})
        return await self.api.get("/v1/notifications", params=params, headers=head, timeout=60)

    async def page(self, user: UUID, **params: Any) -> dict[str, Any]:
        answer = await self.get(user, **params)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def until_told(self, user: UUID, count: int) -> dict[str, Any]:
        async def told() -> bool:
            return len((await self.page(user, limit=100))["items"]) >= count

        await eventually(told)
        return await self.page(user, limit=100)


@pytest.fixture
async def room(house: Any) -> Room:
    window = {"pushes_per_window": PUSHES, "window_seconds": WINDOW_SECONDS}
    api = await house.start("notification", **window)
    await house.start("notification-worker", **window)
    return Room(house, api)


@pytest.fixture
async def channel(room: Room) -> AsyncIterator[Callable[[UUID], Awaitable[Any]]]:
    """Called with a user: subscribes to the user's channel; the result's ``get`` gives the next message."""
    pubsub = room.house.redis.pubsub(ignore_subscribe_messages=True)

    class Channel:
        async def get(self, seconds: float = 60) -> dict[str, Any]:
            async with asyncio.timeout(seconds):
                while True:
                    message = await pubsub.get_message(timeout=1)
                    if message is not None:
                        found: dict[str, Any] = json.loads(message["data"])
                        return found

    async def subscribe(user: UUID) -> Channel:
        await pubsub.subscribe(keys.notifications(user))
        await pubsub.get_message(timeout=1)
        return Channel()

    yield subscribe
    await pubsub.aclose()


def a_like(by: UUID, owner: UUID, post: UUID) -> Liked:
    return Liked(activity_id=new_id(), user_id=by, owner_id=owner, parent_type="post", parent_id=post, post_id=post)


def a_comment(by: UUID, owner: UUID, post: UUID) -> Commented:
    return Commented(activity_id=new_id(), comment_id=new_id(), user_id=by, owner_id=owner, post_id=post, excerpt="")


async def test_a_like_a_comment_and_a_follow_are_told_and_pushed_in_one_shape(
    room: Room, channel: Callable[[UUID], Awaitable[Any]]
) -> None:
    ada, bob = await room.user("ada"), await room.user("bob")
    heard = await channel(ada)
    post, pushed = new_id(), []
    for event in (a_like(bob, ada, post), a_comment(bob, ada, post), Followed(follower_id=bob, followee_id=ada)):
        await room.send(event)
        pushed.append(await heard.get())
    page = await room.page(ada)
    assert [item["kind"] for item in page["items"]] == ["follow", "comment", "like"]
    assert page["unread"] == 3
    assert page["next_cursor"] is None
    assert list(reversed(page["items"])) == pushed
    assert pushed[0]["actor"] == {"id": str(bob), "username": "bob", "display_name": "Bob", "picture_url": None}
    assert pushed[0]["post_id"] == str(post)
    assert pushed[0]["read"] is False
    assert pushed[2]["post_id"] is None


async def test_an_event_that_comes_twice_is_told_once(room: Room) -> None:
    ada, bob = await room.user("ada"), await room.user("bob")
    like = a_like(bob, ada, new_id())
    await room.send(like, like, a_like(bob, ada, like.post_id), a_comment(bob, ada, new_id()))
    page = await room.until_told(ada, 2)
    assert sorted(item["kind"] for item in page["items"]) == ["comment", "like"]


async def test_mentions_are_told_to_those_who_exist(house: Any, room: Room) -> None:
    profile = await house.start("profile")
    made = await profile.post(
        "/v1/accounts",
        json={"username": "mentioned_one", "password": "correct horse battery"},
        headers=house.anonymous(),
    )
    assert made.status_code == 201, made.text
    mentioned, author = UUID(made.json()["id"]), await room.user("ada")
    await house.redis.set(keys.blocks(mentioned), b"")
    await room.send(
        PostCreated(post_id=new_id(), author_id=author, mentioned_usernames=["mentioned_one", "nobody_at_all"])
    )
    page = await room.until_told(mentioned, 1)
    assert page["items"][0]["kind"] == "mention"
    assert page["items"][0]["actor"]["username"] == "ada"


async def test_models_and_migrations_agree(schema_differences: Any) -> None:
    assert await schema_differences("notification") == []


async def test_who_mutes_a_kind_is_not_told_of_it_until_they_want_it_again(room: Room) -> None:
    ada, bob = await room.user("ada"), await room.user("bob")
    path, head = "/v1/notifications/preferences", room.house.as_user(ada)
    assert set((await room.api.get(path, headers=head)).json().values()) == {True}
    muted = await room.api.patch(path, json={"like": False, "mention": True}, headers=head)
    assert [kind for kind, wanted in muted.json().items() if not wanted] == ["like"]
    assert (await room.api.get(path, headers=head)).json() == muted.json()
    assert set((await room.api.get(path, headers=room.house.as_user(bob))).json().values()) == {True}
    post = new_id()
    await room.send(a_like(bob, ada, post), a_comment(bob, ada, post))  # one partition: in this order
    assert [item["kind"] for item in (await room.until_told(ada, 1))["items"]] == ["comment"]
    await room.api.patch(path, json={"like": True}, headers=head)
    await room.send(a_like(bob, ada, post))
    assert [item["kind"] for item in (await room.until_told(ada, 2))["items"]] == ["like", "comment"]
    assert (await room.api.patch(path, json={"poke": False}, headers=head)).status_code == 422


async def test_what_was_told_of_a_deleted_post_goes_with_it(room: Room) -> None:
    ada, bob = await room.user("ada"), await room.user("bob")
    post = new_id()
    await room.send(a_like(bob, ada, post), Followed(follower_id=bob, followee_id=ada))
    await room.until_told(ada, 2)
    await room.send(PostDeleted(post_id=post, author_id=ada))

    async def gone() -> bool:
        return [item["kind"] for item in (await room.page(ada))["items"]] == ["follow"]

    await eventually(gone)


async def test_pages_go_down_to_the_first_and_after_goes_up_from_any(room: Room) -> None:
    ada, bob = await room.user("ada"), await room.user("bob")
    for _ in range(5):
        await room.send(a_like(bob, ada, new_id()))
    newest_first = [item["id"] for item in (await room.until_told(ada, 5))["items"]]
    assert newest_first == sorted(newest_first, reverse=True)

    found: list[str] = []
    cursor = None
    while True:
        page = await room.page(ada, limit=2, **({"cursor": cursor} if cursor else {}))
        found += [item["id"] for item in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert found == newest_first
    missed = await room.page(ada, after=newest_first[3], limit=2)
    assert [item["id"] for item in missed["items"]] == [newest_first[2], newest_first[1]]


async def test_reading_moves_the_marker_forward_only(room: Room) -> None:
    ada, bob = await room.user("ada"), await room.user("bob")
    for _ in range(3):
        await room.send(a_like(bob, ada, new_id()))
    items = (await room.until_told(ada, 3))["items"]
    for index in (1, 2):
        body = {"up_to": items[index]["id"]}
        answer = await room.api.put("/v1/notifications/read", json=body, headers=room.house.as_user(ada))
        assert answer.status_code == 204
    page = await room.page(ada)
    assert page["unread"] == 1
    assert [item["read"] for item in page["items"]] == [False, True, True]

    future = {"up_to": str(UUID(int=UUID(items[0]["id"]).int + (1 << 90)))}
    answer = await room.api.put("/v1/notifications/read", json=future, headers=room.house.as_user(ada))
    assert answer.status_code == 422
    assert "seen" in answer.json()["detail"]


async def test_an_unchanged_list_is_answered_with_304(room: Room) -> None:
    ada, bob = await room.user("ada"), await room.user("bob")
    first = await room.get(ada)
    assert first.headers["poll-interval"] == "60"
    assert (await room.get(ada, etag=first.headers["etag"])).status_code == 304
    await room.send(a_like(bob, ada, new_id()))
    await room.until_told(ada, 1)
    second = await room.get(ada, etag=first.headers["etag"])
    assert second.status_code == 200
    assert second.headers["etag"] != first.headers["etag"]


async def test_a_long_poll_is_answered_by_the_next_notification(room: Room) -> None:
    ada, bob = await room.user("ada"), await room.user("bob")
    etag = (await room.get(ada)).headers["etag"]
    waiting = asyncio.create_task(room.get(ada, etag=etag, wait=20))

    async def listening() -> bool:
        _, count = (await room.house.redis.pubsub_numsub(keys.notifications(ada)))[0]
        return bool(count)

    await eventually(listening)
    assert not waiting.done()
    await room.send(a_like(bob, ada, new_id()))
    answer = await asyncio.wait_for(waiting, 60)
    assert answer.status_code == 200
    assert len(answer.json()["items"]) == 1

    resumed = await room.get(ada, after=answer.json()["items"][0]["id"], wait=0.2)
    assert resumed.json()["items"] == [], "its time is over, and nothing came"


async def test_a_long_poll_sees_what_came_between_its_look_and_its_subscription(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada, bob = await room.user("ada"), await room.user("bob")
    listen = FanIn.listen
    sent: list[asyncio.Task[Any]] = []

    def listen_late(self: FanIn, channel: bytes, listener: Any) -> None:
        async def told_first() -> None:
            await room.send(a_like(bob, ada, new_id()))
            await room.until_told(ada, 1)
            listen(self, channel, listener)

        sent.append(asyncio.create_task(told_first()))

    monkeypatch.setattr(FanIn, "listen", listen_late)
    etag = (await room.get(ada)).headers["etag"]
    async with asyncio.timeout(19):  # sooner than it ends by itself
        answer = await room.get(ada, etag=etag, wait=20)
    assert len(answer.json()["items"]) == 1
    await asyncio.gather(*sent)


async def test_a_crowd_is_told_by_one_hint_to_poll_and_nothing_is_lost(
    room: Room, channel: Callable[[UUID], Awaitable[Any]]
) -> None:
    star, fans = await room.user("star"), [await room.user(f"fan{number}") for number in range(PUSHES + 5)]
    heard = await channel(star)
    post = new_id()
    await room.send(*(a_like(fan, star, post) for fan in fans))
    messages = [await heard.get() for _ in range(PUSHES + 1)]
    assert [message["kind"] for message in messages] == ["like"] * PUSHES + ["poll"]
    assert messages[-1]["interval"] == 10
    await room.until_told(star, len(fans))
    answer = await room.get(star)
    assert answer.headers["poll-interval"] == "10"
    after = await room.page(star, after=messages[PUSHES - 1]["id"])
    assert len(after["items"]) == len(fans) - PUSHES
    with pytest.raises(TimeoutError):
        while True:
            assert (await heard.get(seconds=0.5))["kind"] == "poll", "the hint may come again, likes may not"


async def test_both_cursor_and_after_are_refused(room: Room) -> None:
    ada = await room.user("ada")
    answer = await room.get(ada, after=str(new_id()), cursor="abc")
    assert answer.status_code == 400
    assert "either" in answer.json()["detail"]
    assert (await room.get(ada, wait=26)).status_code == 422
    assert (await room.api.get("/v1/notifications", headers=room.house.anonymous())).status_code == 401


async def test_the_models_agree_with_the_migrations(schema_differences: Any) -> None:
    assert await schema_differences("notification") == []


async def test_a_reader_who_resumes_after_an_id_never_misses_one_that_was_committed_later(
    house: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await house.start("notification")
    database = house.runtimes["notification"].database
    user, seen, made = new_id(), [repository.NONE], [0]

    def by_clocks_that_differ() -> UUID:
        made[0] += 1
        return UUID(int=new_id().int - (made[0] % 3) * (1 << 92))

    async def write(number: int) -> None:
        actor = UUID(int=number + 1)
        async with database.transaction() as session:
            await repository.add(session, Draft(user, "like", actor, actor), datetime.now(UTC))
            await asyncio.sleep(0.001 * (number % 5))  # some commit later than they wrote

    async def resume() -> None:
        while len(seen) <= 40:
            async with database.reading() as session:
                seen.extend(row.id for row in await repository.after(session, user, seen[-1], 100))

    monkeypatch.setattr(repository, "new_id", by_clocks_that_differ)
    async with asyncio.timeout(60):
        await asyncio.gather(resume(), *(write(number) for number in range(40)))
    assert len(set(seen)) == 41


async def test_what_was_told_long_ago_goes_when_something_new_is_told(room: Room) -> None:
    ada, bob, eve = [await room.user(name) for name in ("ada", "bob", "eve")]
    ages = {89: [ada], 91: [ada, eve], 400: [ada]}
    async with room.house.runtimes["notification"].database.transaction() as session:
        for days, users in ages.items():
            moment = datetime.now(UTC) - timedelta(days=days)
            told = first_id(int(moment.timestamp() * 1000))
            for user in users:
                about = new_id()
                session.add(
                    Notification(user_id=user, id=told, kind="like", actor_id=bob, subject_id=about, created_at=moment)
                )
    await room.send(Followed(follower_id=bob, followee_id=ada))

    async def trimmed() -> bool:
        return [item["kind"] for item in (await room.page(ada))["items"]] == ["follow", "like"]

    await eventually(trimmed)
    assert len((await room.page(eve))["items"]) == 1  # nobody told her anything
