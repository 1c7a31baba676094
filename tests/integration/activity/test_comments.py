from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import pytest

from fanfold.activity import service
from fanfold.activity.schemas import Comment
from fanfold.contracts import events, keys
from fanfold.contracts.ids import new_id
from tests.waiting import eventually

pytestmark = pytest.mark.integration


async def test_a_comment_is_answered_as_it_will_be_read(room: Any) -> None:
    ada, bob = await room.user(), await room.user("bob")
    post = await room.post(ada)
    made = await room.comment(bob, post, "  what a lake \r\n!")
    assert Comment.model_validate(made)
    assert made["text"] == "what a lake \n!"
    assert made["author"]["username"] == "bob"
    assert await room.pages(f"/v1/posts/{post}/comments", ada, 10) == [made]
    assert await room.seen(ada, post) == [(0, 1, False)]


async def test_comments_are_paged_newest_first_and_stay_stable(room: Any) -> None:
    ada = await room.user()
    post = await room.post(ada)
    made = [await room.comment(ada, post, f"comment {number}") for number in range(7)][::-1]
    assert await room.pages(f"/v1/posts/{post}/comments", ada, 3) == made
    first = (await room.call("GET", f"/v1/posts/{post}/comments", ada, params={"limit": 2})).json()
    await room.comment(ada, post, "newer")
    await room.call("DELETE", f"/v1/comments/{made[1]['id']}", ada)
    params = {"limit": 2, "cursor": first["next_cursor"]}
    second = (await room.call("GET", f"/v1/posts/{post}/comments", ada, params=params)).json()
    assert first["items"] + second["items"] == made[:4]


@pytest.mark.parametrize("text", ["", "  \n ", "x" * 2_001, "a\0b", None])
async def test_a_text_that_cannot_be_is_422(room: Any, text: str | None) -> None:
    ada = await room.user()
    answer = await room.call("POST", f"/v1/posts/{await room.post(ada)}/comments", ada, json={"text": text})
    assert answer.status_code == 422
    assert answer.json()["errors"]


async def test_author_and_post_owner_delete_a_comment_and_nobody_else(room: Any) -> None:
    ada, bob, eve = [await room.user(name) for name in ("ada", "bob", "eve")]
    post = await room.post(ada)
    first, second = [f"/v1/comments/{(await room.comment(bob, post))['id']}" for _ in range(2)]
    calls = ((eve, first, 403), (bob, first, 204), (bob, first, 404), (eve, second, 403), (ada, second, 204))
    for user, path, status in calls:
        assert (await room.call("DELETE", path, user)).status_code == status
    assert await room.seen(ada, post) == [(0, 0, False)]


async def test_comments_are_liked_once_per_user(room: Any) -> None:
    ada, bob = await room.user(), await room.user("bob")
    post = await room.post(ada)
    comment = await room.comment(bob, post)
    path = f"/v1/comments/{comment['id']}/like"
    answers = await asyncio.gather(*(room.call("PUT", path, ada) for _ in range(5)))
    assert {answer.status_code for answer in answers} == {204}
    [seen] = await room.pages(f"/v1/posts/{post}/comments", ada, 10)
    assert (seen["like_count"], seen["liked_by_me"]) == (1, True)
    [seen] = await room.pages(f"/v1/posts/{post}/comments", bob, 10)
    assert (seen["like_count"], seen["liked_by_me"]) == (1, False)
    await room.call("DELETE", path, ada)
    [seen] = await room.pages(f"/v1/posts/{post}/comments", ada, 10)
    assert (seen["like_count"], seen["liked_by_me"]) == (0, False)
    assert (await room.call("PUT", f"/v1/comments/{new_id()}/like", ada)).status_code == 404
    assert await room.seen(ada, post) == [(0, 1, False)]


async def test_a_repeated_comment_is_made_once(room: Any) -> None:
    ada = await room.user()
    post = await room.post(ada)
    path, body = f"/v1/posts/{post}/comments", {"text": "once"}
    calls = [room.call("POST", path, ada, json=body, headers={"Idempotency-Key": "k"}) for _ in range(5)]
    assert {answer.status_code for answer in await asyncio.gather(*calls)} <= {201, 409}
    again = await room.call("POST", path, ada, json=body, headers={"Idempotency-Key": "k"})
    assert await room.pages(path, ada, 10) == [again.json()]
    other = await room.call("POST", path, ada, json={"text": "twice"}, headers={"Idempotency-Key": "k"})
    assert other.status_code == 422


async def test_a_comment_is_told_to_the_posts_owner(room: Any) -> None:
    ada, bob = await room.user(), await room.user("bob")
    post = await room.post(ada)
    made = await room.comment(bob, post, "x" * 300)
    comment = UUID(made["id"])
    expected = events.Commented(
        activity_id=comment, comment_id=comment, user_id=bob, owner_id=ada, post_id=post, excerpt="x" * service.EXCERPT
    )

    async def told() -> bool:
        sent = await room.house.redis.xrange(keys.stream("activity", expected.partition))
        return expected in [events.decode(fields[b"event"]) for _, fields in sent]

    await eventually(told)


async def test_a_deleted_post_takes_its_activity_along(room: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "BATCH", 3)
    ada, bob = await room.user(), await room.user("bob")
    post, kept = await room.post(ada), await room.post(ada)
    comments = [UUID((await room.comment(bob, post))["id"]) for _ in range(7)]
    for comment in comments:
        await room.call("PUT", f"/v1/comments/{comment}/like", ada)
        await room.like(await room.user(), post)
    await room.comment(bob, kept)
    await room.like(bob, kept)
    await room.tell(events.PostDeleted(post_id=post, author_id=ada))

    async def gone() -> bool:
        parents = [post, *comments]
        left = await room.rows("SELECT count(*) FROM activity.activity WHERE parent_id = ANY($1)", parents)
        return bool(left + await room.rows("SELECT count(*) FROM activity.comment WHERE post_id = $1", post) == 0)

    await eventually(gone)
    assert await room.seen(bob, kept) == [(1, 1, True)]


async def test_a_deleted_account_takes_its_activity_along(room: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "BATCH", 3)
    ada, bob = await room.user(), await room.user("bob")
    posts = [await room.post(ada) for _ in range(5)]
    for post in posts:
        comment = await room.comment(bob, post)
        await room.call("PUT", f"/v1/comments/{comment['id']}/like", ada)
        await room.like(bob, post)
        await room.like(ada, post)
    assert await room.seen(bob, *posts) == [(2, 1, True)] * 5
    await room.tell(events.AccountDeleted(user_id=bob))

    async def gone() -> bool:
        return bool(await room.seen(bob, *posts) == [(1, 0, False)] * 5)

    await eventually(gone)
    assert await room.rows("SELECT count(*) FROM activity.activity WHERE user_id = $1", bob) == 0
