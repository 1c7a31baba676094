"""Moderation among the real services: what is hidden is seen by nobody else, on any way to it, until it is shown."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import jwt
import pytest

from fanfold.contracts import events, keys
from fanfold.contracts.ids import new_id
from fanfold.contracts.roles import MODERATOR
from fanfold.kit.streams import publish
from fanfold.post.timelines import member
from tests.integration.api.commands import run
from tests.integration.relations.conftest import TAG
from tests.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path
    from uuid import UUID

    import httpx

    from tests.integration.relations.conftest import Town

pytestmark = pytest.mark.integration

SERVICE = {"posts": "post", "users": "profile"}


async def judge(town: Town, moderator: UUID, what: str, thing: UUID, verb: str, reason: str = "rule 3") -> int:
    """A moderator's decision; its status."""
    head = town.house.as_user(moderator, role=MODERATOR)
    path = f"/v1/moderation/{what}/{thing}/{verb}"
    return (await town.apis[SERVICE[what]].put(path, json={"reason": reason}, headers=head)).status_code


async def pages(town: Town, moderator: UUID, path: str, limit: int = 100) -> list[dict[str, Any]]:
    """All items of a moderators' list, through all its pages."""
    found: list[dict[str, Any]] = []
    params: dict[str, Any] = {"limit": limit}
    while True:
        head = town.house.as_user(moderator, role=MODERATOR)
        page = (
            await town.apis[SERVICE[path.split("/", maxsplit=1)[0]]].get(
                f"/v1/moderation/{path}", params=params, headers=head
            )
        ).json()
        found += page["items"]
        if page["next_cursor"] is None:
            return found
        params["cursor"] = page["next_cursor"]


async def report(town: Town, user: UUID, what: str, thing: UUID, **said: str) -> httpx.Response:
    body = {"reason": "spam", **said}
    return await town.call(SERVICE[what], "PUT", f"/v1/{what}/{thing}/report", user, json=body)


async def seen(town: Town, viewer: UUID, author: UUID, post: UUID) -> set[str]:
    """On which ways a viewer meets a post."""
    lists = {
        "feed": ("feed", "/v1/feed"),
        "timeline": ("post", f"/v1/users/{author}/posts"),
        "tag": ("post", f"/v1/tags/{TAG}/posts"),
    }
    found = set()
    for name, (service, path) in lists.items():
        answer = await town.call(service, "GET", path, viewer)
        if answer.status_code == 200 and str(post) in {item["id"] for item in answer.json()["items"]}:
            found.add(name)
    alone = {
        "post": ("post", "GET", f"/v1/posts/{post}"),
        "likes": ("activity", "GET", f"/v1/posts/{post}/likes"),
        "comments": ("activity", "GET", f"/v1/posts/{post}/comments"),
    }
    return found | {name for name, call in alone.items() if await town.status(*call, viewer) == 200}


EVERYWHERE = {"feed", "timeline", "tag", "post", "likes", "comments"}


async def test_a_hidden_post_is_seen_by_its_author_only_and_comes_back_when_it_is_shown(town: Town) -> None:
    ada, bob, mod = [await town.user() for _ in range(3)]
    assert await town.follow(bob, ada) == 204
    posts = [await town.post(ada) for _ in range(3)]
    hidden = posts[1]

    async def everywhere() -> bool:
        return await seen(town, bob, ada, hidden) == EVERYWHERE

    await eventually(everywhere)
    for _ in range(2):
        assert await judge(town, mod, "posts", hidden, "hidden") == 204
    assert await seen(town, bob, ada, hidden) == set()
    assert await town.feed(bob) == [str(posts[2]), str(posts[0])]
    assert await seen(town, ada, ada, hidden) == {"post"}
    assert await town.status("post", "PATCH", f"/v1/posts/{hidden}", ada, json={"caption": "not so bad"}) == 403
    assert await town.status("post", "PATCH", f"/v1/posts/{hidden}", bob, json={"caption": "mine"}) == 404
    head = town.house.as_user(mod, role=MODERATOR)
    assert (await town.apis["post"].get(f"/v1/moderation/posts/{hidden}", headers=head)).json()["id"] == str(hidden)

    # The cache forgets everything: rows and nothing else say what is hidden.
    await town.house.redis.flushall()
    assert await seen(town, bob, ada, hidden) == set()
    assert await town.feed(bob) == [str(posts[2]), str(posts[0])]

    for _ in range(2):
        assert await judge(town, mod, "posts", hidden, "shown") == 204
    await eventually(everywhere)
    assert await town.feed(bob) == [str(post) for post in reversed(posts)]
    assert [entry["action"] for entry in await pages(town, mod, "posts/log", 1)][:2] == ["show", "hide"]


async def test_a_post_that_is_hidden_and_shown_twice_comes_back_twice(town: Town) -> None:
    ada, bob, mod = [await town.user() for _ in range(3)]
    assert await town.follow(bob, ada) == 204
    post = await town.post(ada)
    for _ in range(2):
        await eventually(lambda: _fed(town, bob, post))
        assert await judge(town, mod, "posts", post, "hidden") == 204
        assert await town.feed(bob) == []
        assert await judge(town, mod, "posts", post, "shown") == 204
    await eventually(lambda: _fed(town, bob, post))


async def _fed(town: Town, user: UUID, post: UUID) -> bool:
    return str(post) in await town.feed(user)


async def test_late_events_and_refills_do_not_show_a_hidden_post(town: Town) -> None:
    ada, bob, mod = [await town.user() for _ in range(3)]
    post = await town.post(ada)
    assert await judge(town, mod, "posts", post, "hidden") == 204
    assert await judge(town, mod, "posts", post, "shown") == 204
    assert await judge(town, mod, "posts", post, "hidden") == 204
    assert await town.ids("post", f"/v1/users/{ada}/posts", bob) == []  # now the timeline is warm, and takes what comes
    for event in (
        events.PostCreated(post_id=post, author_id=ada),
        events.PostShown(post_id=post, author_id=ada),
        marker := events.PostCreated(post_id=new_id(), author_id=ada),
    ):
        await publish(town.house.redis, event.topic, event.partition, events.encode(event))
    async with asyncio.timeout(60):  # the post service took them in their order when the last one is on the timeline
        timeline = keys.timeline(ada)
        while await town.house.redis.zscore(timeline, member(marker.post_id, ada)) is None:
            await asyncio.sleep(0.05)
    assert await seen(town, bob, ada, post) == set()
    await town.house.redis.delete(keys.post(post))
    assert await seen(town, bob, ada, post) == set()


async def test_a_hidden_account_and_all_it_wrote_is_gone_for_others_until_it_is_shown(town: Town) -> None:
    ada, bob, mod = [await town.user() for _ in range(3)]
    assert await town.follow(bob, ada) == 204
    post, by_bob = await town.post(ada), await town.post(bob)

    async def everywhere() -> bool:
        return await seen(town, bob, ada, post) == EVERYWHERE

    await eventually(everywhere)
    assert await town.status("activity", "PUT", f"/v1/posts/{by_bob}/like", ada) == 204
    comment = {"json": {"text": "nice"}}
    assert await town.status("activity", "POST", f"/v1/posts/{by_bob}/comments", ada, **comment) == 201
    name = (await town.call("profile", "GET", "/v1/users/me", ada)).json()["username"]

    assert await judge(town, mod, "users", ada, "hidden") == 204
    for lost in (False, True):
        if lost:  # rows alone say what is hidden
            await town.house.redis.flushall()
        assert await seen(town, bob, ada, post) == set()
        assert await town.status("profile", "GET", f"/v1/users/{ada}", bob) == 404
        assert await town.ids("profile", f"/v1/users?username={name}", bob) == []
        assert await town.ids("activity", f"/v1/posts/{by_bob}/likes", bob) == []
        assert await town.ids("activity", f"/v1/posts/{by_bob}/comments", bob) == []
        assert await town.follow(bob, ada) == 404
        # What the account may still do: see itself, and change itself without coming back by that.
        assert await town.status("profile", "PATCH", "/v1/users/me", ada, json={"bio": "hello"}) == 200
        assert await town.status("activity", "POST", f"/v1/posts/{by_bob}/comments", ada, **comment) == 403

    assert await judge(town, mod, "users", ada, "shown") == 204
    await eventually(everywhere)
    assert await town.status("profile", "GET", f"/v1/users/{ada}", bob) == 200
    assert len(await town.ids("activity", f"/v1/posts/{by_bob}/comments", bob)) == 1

    assert await judge(town, mod, "users", ada, "hidden") == 204
    assert await seen(town, bob, ada, post) == set()
    assert await judge(town, mod, "users", ada, "shown") == 204
    await eventually(everywhere)


async def test_reports_are_listed_once_for_each_user_until_they_are_decided_about(town: Town) -> None:
    ada, bob, eve, mod = [await town.user() for _ in range(4)]
    post, other = await town.post(ada), await town.post(ada)
    for user in (bob, eve):
        assert (await report(town, user, "posts", post)).status_code == 204
    assert (await report(town, bob, "posts", post, reason="hate", note="look at it")).status_code == 204
    assert (await report(town, bob, "posts", other)).status_code == 204
    assert (await report(town, bob, "posts", new_id())).status_code == 404
    assert (await report(town, bob, "posts", post, reason="ugly")).status_code == 422
    assert (await report(town, bob, "posts", post, note="\0")).status_code == 422
    listed = [
        (item["subject_id"], item["reporter_id"], item["reason"]) for item in await pages(town, mod, "posts/reports", 2)
    ]
    assert listed == [(str(other), str(bob), "spam"), (str(post), str(eve), "spam"), (str(post), str(bob), "hate")]
    assert await judge(town, mod, "posts", post, "hidden") == 204
    for _ in range(2):
        assert await judge(town, mod, "posts", other, "dismissal", "nothing wrong") == 204
    assert await pages(town, mod, "posts/reports") == []
    logged = [
        (item["action"], item["subject_id"], item["moderator_id"]) for item in await pages(town, mod, "posts/log")
    ]
    assert logged[:2] == [("dismiss", str(other), str(mod)), ("hide", str(post), str(mod))]

    assert (await report(town, bob, "users", ada)).status_code == 204
    assert [item["subject_id"] for item in await pages(town, mod, "users/reports")] == [str(ada)]


@pytest.fixture
def roles(secrets_dir: Path) -> Callable[..., Awaitable[tuple[int, str]]]:
    """`fanfold roles`, as an operator of the platform types it."""
    command = (sys.executable, "-m", "fanfold", "roles")
    return lambda *words: run(*command, *words, FANFOLD_SECRETS_DIR=str(secrets_dir))


async def test_roles_are_granted_by_a_command_and_end_with_their_sessions(town: Town, roles: Any) -> None:
    account = {"username": "grace.h", "password": "a long enough passphrase"}
    head = town.house.anonymous()
    user_id = (await town.apis["profile"].post("/v1/accounts", json=account, headers=head)).json()["id"]

    async def login() -> dict[str, Any]:
        answer: dict[str, Any] = (await town.apis["profile"].post("/v1/sessions", json=account, headers=head)).json()
        return answer

    before = await login()
    assert _role(before["access_token"]) is None
    assert (await roles("grant", "nobody.here"))[0] == 1
    assert (await roles("grant", "grace.h", "emperor"))[0] == 2
    code, said = await roles("grant", "Grace.H", "--reason", "joined the team")
    assert code == 0, said
    assert "grace.h" in (await roles("list"))[1]
    refreshed = await town.apis["profile"].post(
        "/v1/sessions/refresh", json={"refresh_token": before["refresh_token"]}, headers=head
    )
    assert _role(refreshed.json()["access_token"]) == _role((await login())["access_token"]) == MODERATOR
    mod = await town.user()
    assert await judge(town, mod, "users", user_id, "hidden") == 409

    assert (await roles("revoke", "grace.h"))[0] == 0
    assert await town.house.redis.zcard(keys.REVOKED_SESSIONS) == 2
    assert _role((await login())["access_token"]) is None
    assert "grace.h" not in (await roles("list"))[1]
    log = [(item["action"], item["moderator_id"], item["reason"]) for item in await pages(town, mod, "users/log")]
    assert log[:2] == [("revoke", None, ""), ("grant", None, "joined the team")]


def _role(token: str) -> Any:
    return jwt.decode(token, options={"verify_signature": False}).get("role")
