"""The feed between the real follow, post, image and activity services, through the real queue."""

from __future__ import annotations

import asyncio
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import msgspec
import pytest
from PIL import Image
from prometheus_client import REGISTRY

from fanfold.contracts import keys
from fanfold.contracts.blobs import UserBlob
from fanfold.contracts.ids import new_id
from fanfold.feed.repository import FeedRepository
from fanfold.kit.hydrate import Hydrator
from tests.waiting import eventually

pytestmark = pytest.mark.integration

LENGTH = 3
CELEBRITY_ABOVE = 2


@dataclass
class Town:
    """All services a feed needs, and the people who use them."""

    house: Any
    clients: dict[str, httpx.AsyncClient]

    async def user(self, name: str) -> UUID:
        user_id = new_id()
        blob = msgspec.msgpack.encode(UserBlob(user_id.bytes, name, name.title(), ""))
        await self.house.redis.set(keys.user(user_id), blob)
        return user_id

    async def call(self, service: str, method: str, path: str, user: UUID, **more: Any) -> httpx.Response:
        answer = await self.clients[service].request(method, path, headers=self.house.as_user(user), **more)
        assert answer.is_success, answer.text
        return answer

    async def follow(self, user: UUID, author: UUID) -> None:
        await self.call("follow", "PUT", f"/v1/users/me/following/{author}", user)

    async def unfollow(self, user: UUID, author: UUID) -> None:
        await self.call("follow", "DELETE", f"/v1/users/me/following/{author}", user)

    async def post(self, author: UUID, caption: str = "") -> str:
        file = io.BytesIO()
        Image.new("RGB", (24, 16), tuple(new_id().bytes[-3:])).save(file, "PNG")
        image = await self.call("image", "POST", "/v1/images", author, files={"file": ("a.png", file.getvalue())})
        body = {"image_ids": [image.json()["id"]], "caption": caption}
        made: str = (await self.call("post", "POST", "/v1/posts", author, json=body)).json()["id"]
        return made

    async def delete(self, author: UUID, post: str) -> None:
        await self.call("post", "DELETE", f"/v1/posts/{post}", author)

    async def feed(self, user: UUID, **params: Any) -> list[str]:
        """Ids of the first page."""
        page = (await self.call("feed", "GET", "/v1/feed", user, params=params)).json()
        return [post["id"] for post in page["items"]]

    async def whole_feed(self, user: UUID, limit: int) -> list[str]:
        """Ids through all pages."""
        found: list[str] = []
        params: dict[str, Any] = {"limit": limit}
        while True:
            page = (await self.call("feed", "GET", "/v1/feed", user, params=params)).json()
            found += [post["id"] for post in page["items"]]
            if page["next_cursor"] is None:
                return found
            params["cursor"] = page["next_cursor"]

    async def shown(self, user: UUID, *expected: str) -> None:
        """Until the first page is this."""

        async def holds() -> bool:
            return await self.feed(user, limit=LENGTH) == list(expected)

        await eventually(holds)


@pytest.fixture
async def town(house: Any, bucket: str, tmp_path: Path) -> Town:
    spool = tmp_path / "spool"
    spool.mkdir()
    return await settle(house, spool)


async def settle(house: Any, spool: Path, **worker: Any) -> Town:
    """Start everything; ``worker``: settings of the fan-out worker."""
    clients = {
        "image": await house.start("image", image_processes=1, image_process_mib=400, spool_dir=spool),
        "post": await house.start("post"),
        "activity": await house.start("activity"),
        "follow": await house.start("follow", celebrity_threshold=CELEBRITY_ABOVE),
        "feed": await house.start("feed", feed_length=LENGTH),
    }
    await house.start("feed-worker", feed_length=LENGTH, **worker)
    return Town(house, clients)


def reads(outcome: str) -> float:
    return REGISTRY.get_sample_value("fanfold_feed_reads_total", {"outcome": outcome}) or 0.0


async def test_a_post_arrives_in_warm_feeds_and_a_deleted_one_is_gone_at_once(town: Town) -> None:
    ada, bob = await town.user("ada"), await town.user("bob")
    await town.follow(bob, ada)
    assert await town.feed(bob) == []
    first = await town.post(ada, "first")
    await town.shown(bob, first)
    rebuilt = reads("rebuilt")
    second = await town.post(ada, "second")
    await town.shown(bob, second, first)
    assert reads("rebuilt") == rebuilt, "it was pushed, not rebuilt"
    await town.shown(ada, second, first)

    await town.delete(ada, second)
    assert await town.feed(bob) == [first]
    assert await town.feed(ada) == [first]


async def test_an_unfollow_is_final_when_it_is_answered(town: Town) -> None:
    ada, bob = await town.user("ada"), await town.user("bob")
    for _ in range(5):
        await town.follow(bob, ada)
        await town.feed(bob)
        await town.post(ada)  # perhaps still on its way
        await town.unfollow(bob, ada)
        assert await town.feed(bob) == []
    await asyncio.sleep(0.5)  # whatever was late has arrived
    assert await town.feed(bob) == []


async def test_following_brings_the_posts_there_are(town: Town) -> None:
    ada, bob = await town.user("ada"), await town.user("bob")
    posts = [await town.post(ada) for _ in range(2)]
    assert await town.feed(bob) == []
    await town.follow(bob, ada)
    assert await town.feed(bob) == posts[::-1]


async def test_pages_go_below_the_cached_posts_down_to_the_first(town: Town) -> None:
    ada, bob, eve = await town.user("ada"), await town.user("bob"), await town.user("eve")
    await town.follow(eve, ada)
    await town.follow(eve, bob)
    posts = [await town.post(author) for author in (ada, bob, ada, ada, bob, ada, bob)]
    await town.shown(eve, *posts[:-4:-1])
    for limit in (1, 2, 3, 4, 50):
        assert await town.whole_feed(eve, limit) == posts[::-1]


def completed(lane: str) -> float:
    return REGISTRY.get_sample_value("fanfold_fanout_completion_seconds_count", {"lane": lane}) or 0.0


@pytest.mark.parametrize(("fans", "page"), [(5, 2), (4, 2), (1, 2)])
async def test_the_last_follower_of_a_post_is_noticed_once(
    house: Any, bucket: str, tmp_path: Path, fans: int, page: int
) -> None:
    town = await settle(house, tmp_path, followers_page=page, small_lane_followers=2, celebrity_mode="batched")
    lane = "fanout-large" if fans > 2 else "fanout-small"
    star = await town.user("star")
    for number in range(fans):
        await town.follow(await town.user(f"fan{number}"), star)
    for _ in range(2):
        before = completed(lane)
        await town.post(star)

        async def told(before: float = before) -> bool:
            return completed(lane) > before

        await eventually(told)
        await asyncio.sleep(0.3)  # a second time would come at once
        assert completed(lane) == before + 1


async def test_a_chunk_that_comes_twice_completes_a_post_once(house: Any) -> None:
    await house.start("feed-worker")
    valkey = house.runtimes["feed-worker"].valkey
    repository = FeedRepository(valkey, length=LENGTH, ttl_seconds=60)
    post = new_id().bytes
    assert not await repository.arrived(post, 1, of=3)
    assert not await repository.arrived(post, 0)
    assert not await repository.arrived(post, 0)
    assert await repository.arrived(post, 2, of=3)
    assert not await repository.arrived(post, 2, of=3)
    assert 0 < await valkey.execute("TTL", b"progress:" + post) <= 3_600


async def test_a_celebritys_posts_are_folded_in_and_not_pushed(town: Town) -> None:
    star = await town.user("star")
    fans = [await town.user(f"fan{number}") for number in range(CELEBRITY_ABOVE + 1)]
    friend = await town.user("friend")
    for fan in fans:
        await town.follow(fan, star)
    await town.follow(fans[0], friend)
    early = await town.post(friend)
    await town.shown(fans[0], early)
    post = await town.post(star)
    await town.shown(fans[0], post, early)
    for fan in fans[1:]:
        await town.shown(fan, post)
    cached = await town.house.redis.lrange(keys.feed(fans[0]), 1, -1)
    assert [entry[:16] for entry in cached] == [UUID(early).bytes]
    await town.shown(star, post)


async def test_a_post_is_announced_to_the_sockets_of_followers_if_they_are_no_crowd(
    house: Any, bucket: str, tmp_path: Path
) -> None:
    assert bucket
    town = await settle(house, tmp_path, announced_followers=2)  # the author is one of those it is pushed to
    ada, cel, bob, cid = [await town.user(name) for name in ("ada", "cel", "bob", "cid")]
    for user, author in ((bob, ada), (bob, cel), (cid, cel)):
        await town.follow(user, author)
    await town.feed(bob)
    async with house.redis.pubsub() as channel:
        await channel.subscribe(keys.notifications(bob))
        of_crowd = await town.post(cel)
        await town.shown(bob, of_crowd)
        post = await town.post(ada)
        heard: list[dict[str, Any]] = []
        async with asyncio.timeout(60):
            while not heard:
                message = await channel.get_message(ignore_subscribe_messages=True, timeout=1)
                heard += [json.loads(message["data"])] if message else []
    assert heard == [{"kind": "post", "post_id": post, "author_id": str(ada)}]


async def test_the_hot_route_and_the_documented_one_answer_alike(town: Town) -> None:
    ada = await town.user("ada")
    posts = [await town.post(ada) for _ in range(2)]
    await town.shown(ada, *posts[::-1])
    hot = await town.call("feed", "GET", "/v1/feed?limit=1", ada)
    documented = await town.call("feed", "GET", "/v1/feed?limit=01&", ada)
    plain = await town.call("feed", "GET", "/v1/feed?limit=1&ignored=1", ada)
    assert hot.json() == documented.json() == plain.json()
    assert {name: hot.headers[name] for name in ("content-type", "cache-control")} == {
        name: plain.headers[name] for name in ("content-type", "cache-control")
    }
    labels = {"route": "/v1/feed", "method": "GET", "status": "200"}
    assert (REGISTRY.get_sample_value("fanfold_http_requests_total", labels) or 0) >= 3


@pytest.mark.parametrize(
    ("query", "status"), [("limit=0", 422), ("limit=101", 422), ("limit=x", 422), ("cursor=forged", 400)]
)
async def test_a_wrong_query_is_explained(house: Any, query: str, status: int) -> None:
    feed = await house.start("feed")
    answer = await feed.get(f"/v1/feed?{query}", headers=house.as_user(new_id()))
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["detail"]


async def test_nobody_reads_a_feed_without_being_somebody(house: Any) -> None:
    feed = await house.start("feed")
    assert (await feed.get("/v1/feed", headers=house.anonymous())).status_code == 401
    assert (await feed.get("/v1/feed")).status_code == 401


async def test_a_cold_feed_whose_owners_are_away_is_503_and_soon_comes_back(house: Any) -> None:
    feed = await house.start("feed")
    user = new_id()
    answer = await feed.get("/v1/feed", headers=house.as_user(user), timeout=60)
    assert answer.status_code == 503
    assert answer.headers["retry-after"]
    assert not await house.redis.exists(keys.feed(user)), "no marker is left for readers to wait on"
    await house.start("follow")
    await house.start("post")
    again = await feed.get("/v1/feed", headers=house.as_user(user))
    assert again.json() == {"items": [], "next_cursor": None}


@pytest.mark.parametrize("way", ["hot", "app"])
async def test_a_poll_for_posts_of_celebrities_costs_no_post_until_there_is_one(
    town: Town, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    celebrity, *fans = [await town.user(name) for name in ("cel", "ann", "bob", "cid")]
    for fan in fans:
        await town.follow(fan, celebrity)
    first = await town.post(celebrity, "first")
    await town.shown(fans[0], first)
    hydrated: list[int] = []
    hydrate = Hydrator.hydrate

    async def counted(self: Hydrator, members: Any, viewer: UUID) -> Any:
        hydrated.append(len(members))
        return await hydrate(self, members, viewer)

    monkeypatch.setattr(Hydrator, "hydrate", counted)
    head = town.house.as_user(fans[0]) | (
        {"connection": "close"} if way == "app" else {}
    )  # unusual: not for the hot way

    async def poll(tag: str = "") -> httpx.Response:
        return await town.clients["feed"].get("/v1/feed", headers=head | ({"if-none-match": tag} if tag else {}))

    page = await poll()
    assert page.status_code == 200
    assert page.headers["poll-interval"] == "10"
    again = await poll(page.headers["etag"])
    assert (again.status_code, again.content, hydrated) == (304, b"", [1])
    assert (again.headers["etag"], again.headers["poll-interval"]) == (page.headers["etag"], "10")
    second = await town.post(celebrity, "second")
    async with asyncio.timeout(60):  # readers share a celebrity's timeline for a second
        while (news := await poll(page.headers["etag"])).status_code == 304:
            await asyncio.sleep(0.05)
    assert [post["id"] for post in news.json()["items"]] == [second, first]
    assert len(hydrated) == 2
