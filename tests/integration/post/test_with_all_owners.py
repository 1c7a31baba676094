"""Posts among the real services: what each owner writes, the others read."""

from __future__ import annotations

from typing import Any

import pytest

from tests.waiting import eventually

pytestmark = pytest.mark.integration


async def _register(house: Any, profile: Any, name: str) -> str:
    body = {"username": name, "password": "a long enough passphrase", "display_name": name.title()}
    answer = await profile.post("/v1/accounts", json=body, headers=house.anonymous())
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


async def test_a_post_reaches_a_followers_feed_with_its_likes_and_leaves_it_when_deleted(house: Any, room: Any) -> None:
    profile, follow, feed = [await house.start(name) for name in ("profile", "follow", "feed")]
    await house.start("feed-worker")
    ada, bob = [await _register(house, profile, name) for name in ("ada.l", "bob")]
    answer = await follow.put(f"/v1/users/me/following/{ada}", headers=house.as_user(bob))
    assert answer.status_code == 204, answer.text

    async def fed() -> list[dict[str, Any]]:
        answer = await feed.get("/v1/feed", headers=house.as_user(bob))
        assert answer.status_code == 200, answer.text
        items: list[dict[str, Any]] = answer.json()["items"]
        return items

    assert await fed() == []
    made = await room.post(ada, "hello @bob")

    async def arrived() -> bool:
        return [post["id"] for post in await fed()] == [made["id"]]

    await eventually(arrived)
    assert made["author"]["username"] == "ada.l"
    await room.activity.put(f"/v1/posts/{made['id']}/like", headers=house.as_user(bob))
    assert await fed() == [made | {"like_count": 1, "liked_by_me": True}]
    answer = await room.api.delete(f"/v1/posts/{made['id']}", headers=house.as_user(ada))
    assert answer.status_code == 204
    assert await fed() == []
