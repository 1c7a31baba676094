"""kill -9 of the relay's process, the fan-out worker and the feed service at random points over 200 posts.

A checker then looks for any delivery that was lost or doubled. Feeds are warm from the beginning and as long as what
comes, and none of them may have been rebuilt: whatever is in them was pushed.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import httpx
import msgspec
import pytest

from fanfold.contracts import keys
from fanfold.contracts.blobs import UserBlob
from fanfold.contracts.events import PostCreated
from fanfold.contracts.ids import new_id
from fanfold.dev.process import ChildProcess, free_ports
from fanfold.feed.stored import WHOLE
from fanfold.follow.models import Follow
from fanfold.kit.db import Database
from fanfold.kit.identity import Identity, IdentitySigner
from fanfold.kit.outbox import Outbox
from fanfold.kit.settings import Settings
from fanfold.kit.valkey import redis_client
from fanfold.post.models import Post, outbox
from tests.fault.conftest import HOST, START_SECONDS, answers
from tests.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from fanfold.dev.stores import BackingStores
    from tests.integration.conftest import SettingsFor

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]

POSTS: Final = 200
LENGTH: Final = 100
"""The longest feed there is: two authors post as much each."""
FOLLOWERS: Final = {"small": 3, "large": 8}
"""Of either author: the one's posts go by the small lane, the other's are split over four messages of the large one."""
KILLS: Final = 9
VICTIMS: Final = ("post", "feed-worker", "feed")
SEED: Final = 11
SECONDS: Final = 200
"""Messages of who died are claimed after half a minute, and again if that one dies too."""


class Town:
    """Four components as processes; what was killed is started again under its name."""

    def __init__(self, secrets: Path, folder: Path) -> None:
        names = ("follow", "post", "feed", "feed-worker")
        self._ports = {name: free_ports(2) for name in names}
        self._folder = folder
        peers = {name: f"http://{HOST}:{ports[0]}" for name, ports in self._ports.items()}
        self.feed_url = peers["feed"]
        self._environment = {
            **os.environ,
            "FANFOLD_SECRETS_DIR": str(secrets),
            "FANFOLD_TRAFFIC_HOST": HOST,
            "FANFOLD_ADMIN_HOST": HOST,
            "FANFOLD_DRAIN_SECONDS": "0",
            "FANFOLD_GRACE_SECONDS": "1",
            "FANFOLD_PEERS": json.dumps(peers),
            "FANFOLD_FEED_LENGTH": str(LENGTH),
            "FANFOLD_FOLLOWERS_PAGE": "2",
            "FANFOLD_SMALL_LANE_FOLLOWERS": str(FOLLOWERS["small"]),
        }
        self._running = {name: self._start(name) for name in names}

    def _start(self, name: str) -> ChildProcess:
        traffic, admin = self._ports[name]
        environment = {
            **self._environment,
            "FANFOLD_INSTANCE": f"{name}-0",
            "FANFOLD_TRAFFIC_PORT": str(traffic),
            "FANFOLD_ADMIN_PORT": str(admin),
        }
        command = [sys.executable, "-m", "fanfold", "run", name]
        return ChildProcess(name, command, log=self._folder / f"{name}.log", env=environment)

    def wait(self) -> None:
        for name, (_, admin) in self._ports.items():
            self._running[name].wait_until(partial(answers, f"http://{HOST}:{admin}/readyz"), START_SECONDS)

    def kill_and_restart(self, name: str) -> None:
        self._running[name].kill()
        self._running[name].stop()  # reaped
        self._running[name] = self._start(name)

    def stop(self) -> None:
        for process in self._running.values():
            process.stop()


@pytest.fixture
async def town(secrets_dir: Path, tmp_path: Path) -> AsyncIterator[Town]:
    made = Town(secrets_dir, tmp_path)
    try:
        await asyncio.to_thread(made.wait)
        yield made
    finally:
        await asyncio.to_thread(made.stop)


class Scribe:
    """Writes follows and posts as their services do, and reads feeds as their owners and as they are stored."""

    def __init__(self, settings: Settings, redis: Any, feed_url: str) -> None:
        self.database = Database.connect(settings)
        self.redis = redis
        self._signer = IdentitySigner(settings.secrets.read("identity_key"))
        self.client = httpx.AsyncClient(base_url=feed_url, timeout=60)

    async def author(self, followers: int) -> tuple[UUID, list[UUID]]:
        """Somebody, and those who follow them."""
        author, *people = [new_id() for _ in range(followers + 1)]
        for person in (author, *people):
            blob = UserBlob(person.bytes, f"u{person.hex[:12]}", "U", "")
            await self.redis.set(keys.user(person), msgspec.msgpack.encode(blob))
        async with self.database.transaction() as session:
            for person in people:
                session.add(Follow(follower_id=person, followee_id=author, id=new_id(), created_at=datetime.now(UTC)))
        return author, people

    async def post(self, author: UUID) -> UUID:
        post_id = new_id()
        async with self.database.transaction() as session:
            session.add(Post(id=post_id, author_id=author, caption="", created_at=datetime.now(UTC)))
            await session.flush()
            await Outbox(outbox).add(session, PostCreated(post_id=post_id, author_id=author))
        return post_id

    async def read(self, user: UUID) -> list[UUID]:
        """Ids through all pages of a feed; asked again while the service is away."""
        found: list[UUID] = []
        params: dict[str, Any] = {"limit": 40}
        while True:
            head = {"x-fanfold-identity": self._signer.sign(Identity(user_id=user, session_id=new_id()))}
            try:
                answer = await self.client.get("/v1/feed", params=params, headers=head)
            except httpx.TransportError:
                await asyncio.sleep(0.2)
                continue
            if answer.status_code == 503:
                await asyncio.sleep(0.2)
                continue
            assert answer.status_code == 200, answer.text
            page = answer.json()
            found += [UUID(item["id"]) for item in page["items"]]
            if page["next_cursor"] is None:
                return found
            params["cursor"] = page["next_cursor"]

    async def stored(self, user: UUID) -> tuple[bytes, set[bytes]]:
        """When the feed was built, and the ids of its posts."""
        head, *members = await self.redis.lrange(keys.feed(user), 0, -1)
        assert head.startswith(WHOLE)
        return head[16:32], {member[:16] for member in members}

    async def buried(self) -> list[int]:
        """Dead letters of all topics that a post goes through."""
        return [await self.redis.xlen(keys.dead_letters(topic)) for topic in ("posts", "fanout-small", "fanout-large")]

    async def relayed(self) -> bool:
        """Whether the outbox is empty."""
        async with self.database.engine.connect() as connection:
            return (await connection.exec_driver_sql("SELECT count(*) FROM post.outbox")).scalar() == 0


@pytest.fixture
async def scribe(town: Town, settings_for: SettingsFor, stores: BackingStores) -> AsyncIterator[Scribe]:
    async with redis_client(stores.valkey_url) as redis:
        made = Scribe(settings_for("test", kind=Settings), redis, town.feed_url)
        yield made
        await made.client.aclose()
        await made.database.close()


class Play:
    """Two authors with their followers, whose feeds are warm; what was posted."""

    def __init__(self, scribe: Scribe) -> None:
        self.scribe = scribe
        self.followers: dict[UUID, list[UUID]] = {}
        self.posts: dict[UUID, list[UUID]] = {}
        self.built: dict[UUID, bytes] = {}

    async def open(self) -> None:
        for count in FOLLOWERS.values():
            author, people = await self.scribe.author(count)
            self.followers[author], self.posts[author] = people, []
            for person in people:
                assert await self.scribe.read(person) == []
                self.built[person], _ = await self.scribe.stored(person)

    async def go(self, town: Town, chance: random.Random) -> None:
        """Post, and kill on the way."""
        moments = set(chance.sample(range(5, POSTS - 5), KILLS))
        victims = [*VICTIMS * (KILLS // len(VICTIMS))]
        chance.shuffle(victims)
        authors = list(self.posts)
        for number in range(POSTS):
            author = authors[number % len(authors)]
            self.posts[author].append(await self.scribe.post(author))
            if number in moments:
                await asyncio.sleep(chance.uniform(0, 0.2))  # somewhere on the way of the posts before
                await asyncio.to_thread(town.kill_and_restart, victims.pop())
            elif number % 25 == 24:
                seen = Counter(await self.scribe.read(chance.choice(self.followers[author])))
                assert not [post for post, times in seen.items() if times > 1]
        assert not victims

    async def missing(self) -> dict[UUID, int]:
        """Posts that have not reached a feed, by its user."""
        found = {}
        for author, people in self.followers.items():
            wanted = {post.bytes for post in self.posts[author]}
            for person in people:
                _, stored = await self.scribe.stored(person)
                assert stored <= wanted
                if stored != wanted:
                    found[person] = len(wanted - stored)
        return found

    async def check(self) -> None:
        for author, people in self.followers.items():
            for person in people:
                built, _ = await self.scribe.stored(person)
                assert built == self.built[person], "the feed was rebuilt: that nothing was lost is not proven"
                assert await self.scribe.read(person) == self.posts[author][::-1]


async def test_no_kill_loses_or_doubles_a_delivery(town: Town, scribe: Scribe) -> None:
    buried = await scribe.buried()
    play = Play(scribe)
    await play.open()
    await play.go(town, random.Random(SEED))
    await asyncio.to_thread(town.wait)
    missing: dict[UUID, int] = {}
    try:
        async with asyncio.timeout(SECONDS):
            while missing := await play.missing():
                await asyncio.sleep(0.5)
    except TimeoutError:
        pytest.fail(f"lost for good, by follower: {sorted(missing.values())}")
    await play.check()
    await eventually(scribe.relayed, "an empty outbox")
    assert await scribe.buried() == buried
