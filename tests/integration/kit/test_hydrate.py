"""What a page of posts is made of, and what becomes of it when parts are missing. Owners answer from dictionaries."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import msgspec
import pytest
from prometheus_client import REGISTRY

from fanfold.contracts import internal, keys
from fanfold.contracts.blobs import COUNTS_FRESH_MS, CountsBlob, PostBlob, UserBlob
from fanfold.contracts.ids import id_millis, new_id
from fanfold.dev.stores import BackingStores
from fanfold.kit import hydrate
from fanfold.kit.errors import Unavailable
from fanfold.kit.hydrate import Hydrated, Hydrator
from fanfold.kit.media import MediaUrls
from fanfold.kit.valkey import Valkey

pytestmark = pytest.mark.integration
pack = msgspec.msgpack.encode
HOUR_MS = 3_600_000


@dataclass
class Owners:
    """The services behind, and what they were asked."""

    posts: dict[bytes, bytes] = field(default_factory=dict)
    users: dict[bytes, bytes] = field(default_factory=dict)
    counts: dict[bytes, tuple[int, int]] = field(default_factory=dict)
    liked: list[bytes] = field(default_factory=list)
    down: set[str] = field(default_factory=set)
    asked: list[tuple[str, list[bytes]]] = field(default_factory=list)

    async def call(self, endpoint: Any, request: Any) -> Any:
        ids = request.post_ids if endpoint is internal.ACTIVITY else request.ids
        self.asked.append((endpoint.service, ids))
        if endpoint.service in self.down:
            raise Unavailable(f"{endpoint.service} is down")
        if endpoint is internal.ACTIVITY:
            counts = {item: self.counts.get(item, (0, 0)) for item in ids}
            return internal.ActivityAnswer(counts, [item for item in ids if item in self.liked])
        source = self.posts if endpoint is internal.POSTS else self.users
        return internal.Blobs({item: source[item] for item in ids if item in source})


@dataclass
class World:
    valkey: Valkey
    owners: Owners
    hydrator: Hydrator
    viewer: UUID = field(default_factory=new_id)

    async def cached(self, *, counted_ms: int | None = None, liked: bool = False, floor: int = 0) -> bytes:
        """A post with all its parts in Valkey; its member."""
        post_id, author_id = new_id(), new_id()
        counted = (
            int(time.time() * 1000) + HOUR_MS if counted_ms is None else counted_ms
        )  # fresh, however slow it is here
        await self.valkey.execute("SET", keys.post(post_id), _post(post_id, author_id))
        await self.valkey.execute("SET", keys.user(author_id), _user(author_id))
        await self.valkey.execute("SET", keys.counts(post_id), pack(CountsBlob(5, 4, counted)))
        await self.valkey.execute("ZADD", keys.liked(self.viewer), floor, keys.COMPLETE)
        if liked:
            await self.valkey.execute("ZADD", keys.liked(self.viewer), id_millis(post_id), post_id.bytes)
        return post_id.bytes + author_id.bytes

    async def captions(self, *members: bytes) -> list[str]:
        return [post["caption"] for post in _shown(await self.hydrator.hydrate(members, self.viewer))]


def _shown(page: Hydrated) -> list[dict[str, Any]]:
    return [json.loads(post) for post in page.posts]


def _post(post_id: UUID, author_id: UUID) -> bytes:
    return pack(PostBlob(post_id.bytes, author_id.bytes, post_id.hex, id_millis(post_id), []))


def _user(user_id: UUID) -> bytes:
    return pack(UserBlob(user_id.bytes, "ada", "Ada", ""))


def _caption(member: bytes) -> str:
    return member[:16].hex()


@pytest.fixture
async def world(stores: BackingStores) -> AsyncIterator[World]:
    valkey, owners = Valkey(stores.valkey_url), Owners()
    await valkey.execute("FLUSHALL")
    peers: Any = owners
    yield World(valkey, owners, Hydrator(valkey, peers, MediaUrls("/media")))
    await valkey.close()


def counted(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"fanfold_cache_{name}_total", labels) or 0.0


async def test_pages_are_counted_by_whether_the_cache_had_everything(world: World) -> None:
    member = await world.cached()
    whole, filled, users = (
        counted("pages", outcome="whole"),
        counted("pages", outcome="filled"),
        counted("misses", what="users"),
    )
    await world.captions(member)
    assert counted("pages", outcome="whole") == whole + 1
    await world.valkey.execute("DEL", keys.USER + member[16:])
    world.owners.users[member[16:]] = _user(UUID(bytes=member[16:]))
    await world.captions(member)
    assert counted("pages", outcome="whole") == whole + 1
    assert counted("pages", outcome="filled") == filled + 1
    assert counted("misses", what="users") == users + 1


async def test_a_cached_page_asks_no_owner(world: World) -> None:
    members = [await world.cached(liked=True), await world.cached()]
    page = await world.hydrator.hydrate(members, world.viewer)
    assert [post["caption"] for post in _shown(page)] == [_caption(member) for member in members]
    assert [post["liked_by_me"] for post in _shown(page)] == [True, False]
    assert (_shown(page)[0]["like_count"], _shown(page)[0]["comment_count"]) == (5, 4)
    assert world.owners.asked == []


async def test_an_empty_page_asks_nobody(world: World) -> None:
    assert await world.captions() == []


async def test_each_owner_is_asked_once_for_all_that_is_missing(world: World) -> None:
    cached = await world.cached()
    missing = [new_id().bytes + new_id().bytes for _ in range(2)]
    for member in missing:
        post_id, author_id = UUID(bytes=member[:16]), UUID(bytes=member[16:])
        world.owners.posts[post_id.bytes] = _post(post_id, author_id)
        world.owners.users[author_id.bytes] = _user(author_id)
        world.owners.counts[post_id.bytes] = (7, 1)
    page = await world.hydrator.hydrate([missing[0], cached, missing[1]], world.viewer)
    assert [post["like_count"] for post in _shown(page)] == [7, 5, 7]
    assert sorted(service for service, _ in world.owners.asked) == ["activity", "post", "profile"]
    assert all(len(ids) == 2 for _, ids in world.owners.asked)


async def test_a_deleted_post_is_left_out_and_told(world: World) -> None:
    members = [await world.cached(), await world.cached()]
    await world.valkey.execute("SET", keys.POST + members[0][:16], keys.TOMBSTONE)
    page = await world.hydrator.hydrate(members, world.viewer)
    assert [post["caption"] for post in _shown(page)] == [_caption(members[1])]
    assert page.gone == members[:1]


async def test_a_post_its_owner_does_not_know_is_gone(world: World) -> None:
    members = [await world.cached(), new_id().bytes + new_id().bytes]
    page = await world.hydrator.hydrate(members, world.viewer)
    assert len(page.posts) == 1
    assert page.gone == members[1:]


async def test_a_deleted_author_takes_the_posts_along(world: World) -> None:
    members = [await world.cached(), await world.cached()]
    await world.valkey.execute("SET", keys.USER + members[0][16:], keys.TOMBSTONE)
    assert await world.captions(*members) == [_caption(members[1])]


async def test_a_missing_post_is_left_out_but_not_gone_while_its_owner_is_down(world: World) -> None:
    members = [await world.cached(), await world.cached()]
    await world.valkey.execute("DEL", keys.POST + members[1][:16])
    world.owners.down = {"post"}
    page = await world.hydrator.hydrate(members, world.viewer)
    assert [post["caption"] for post in _shown(page)] == [_caption(members[0])]
    assert page.gone == []


async def test_a_page_that_an_outage_would_empty_is_refused(world: World) -> None:
    world.owners.down = {"post"}
    with pytest.raises(Unavailable):
        await world.captions(new_id().bytes + new_id().bytes)


async def test_an_owner_that_hangs_counts_as_down(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hydrate, "OWNER_SECONDS", 0.05)
    hang: Any = lambda *_: asyncio.sleep(60)  # noqa: E731
    monkeypatch.setattr(world.owners, "call", hang)
    async with asyncio.timeout(30):
        assert len(await world.captions(await world.cached(), new_id().bytes + new_id().bytes)) == 1


async def test_old_counts_are_asked_for_again(world: World) -> None:
    member = await world.cached(counted_ms=int(time.time() * 1000) - COUNTS_FRESH_MS - 1000)
    world.owners.counts[member[:16]] = (6, 4)
    page = await world.hydrator.hydrate([member], world.viewer)
    assert _shown(page)[0]["like_count"] == 6


async def test_old_counts_serve_while_the_activity_service_is_down(world: World) -> None:
    world.owners.down = {"activity"}
    page = await world.hydrator.hydrate([await world.cached(counted_ms=0)], world.viewer)
    assert _shown(page)[0]["like_count"] == 5


async def test_likes_below_the_floor_are_asked_for(world: World) -> None:
    member = await world.cached(floor=id_millis(new_id()) + HOUR_MS)
    world.owners.liked = [member[:16]]
    page = await world.hydrator.hydrate([member], world.viewer)
    assert _shown(page)[0]["liked_by_me"]
    assert world.owners.asked == [("activity", [member[:16]])]


async def test_likes_without_the_sentinel_are_asked_for(world: World) -> None:
    member = await world.cached()
    await world.valkey.execute("ZREM", keys.liked(world.viewer), keys.COMPLETE)
    world.owners.liked = [member[:16]]
    page = await world.hydrator.hydrate([member], world.viewer)
    assert _shown(page)[0]["liked_by_me"]


async def test_an_unreadable_blob_is_asked_of_its_owner(world: World) -> None:
    member = await world.cached()
    await world.valkey.execute("SET", keys.POST + member[:16], b"\xc1 of another age")
    world.owners.posts[member[:16]] = _post(UUID(bytes=member[:16]), UUID(bytes=member[16:]))
    assert await world.captions(member) == [_caption(member)]
