"""Copies of a timeline: filled when they are missed, changed with it, never behind it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import UUID

import pytest
from redis.crc import key_slot
from sqlalchemy.ext.asyncio import create_async_engine

from fanfold.contracts import keys
from fanfold.contracts.ids import new_id
from fanfold.feed.repository import FeedRepository
from fanfold.kit.cluster import connect
from fanfold.kit.db import Database
from fanfold.kit.valkey import Valkey
from fanfold.post import repository
from fanfold.post.models import Post, PostImage
from fanfold.post.settings import PostSettings
from fanfold.post.timelines import COPY_SECONDS, Timelines
from tests.integration.valkey_cluster import MASTERS, SLOTS, ValkeyCluster

if TYPE_CHECKING:
    from fanfold.dev.stores import BackingStores

pytestmark = pytest.mark.integration

LENGTH = 5


class Author:
    """One author's posts and their timeline, of which there are copies."""

    def __init__(self, database: Database, valkey: Valkey, copies: int) -> None:
        self.id = new_id()
        self.valkey = valkey
        self.copies = copies
        self.database = database
        self.timelines = Timelines(database, valkey, PostSettings(timeline_length=LENGTH, timeline_copies=copies))
        self._feeds = FeedRepository(valkey, length=3, ttl_seconds=60)

    async def post(self) -> UUID:
        made = Post(id=new_id(), author_id=self.id, caption="", created_at=datetime.now(UTC))
        image = PostImage(post_id=made.id, position=0, image_id=new_id(), alt_text="")
        async with self.database.transaction() as session:
            await repository.add(session, repository.Stored(made, [image]), ())
        await self.timelines.add(made.id, self.id)
        return made.id

    async def delete(self, post_id: UUID) -> None:
        async with self.database.transaction() as session:
            await repository.remove(session, [post_id])
        await self.timelines.remove(post_id, self.id)

    async def read(self, copy: int) -> list[UUID]:
        """As a replica of the feed service does that reads this copy."""
        found = await self._feeds.timeline(self.id.bytes, copy, self.copies)
        if found is None:
            found = await self.timelines.newest([self.id], 3, copy=copy)
        return [UUID(bytes=one[:16]) for one in found]

    async def filled(self) -> list[bool]:
        names = [keys.timeline_copy(self.id, number, self.copies) for number in range(self.copies)]
        return [bool(await self.valkey.execute("EXISTS", name)) for name in names]


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(create_async_engine(database_url))
    yield database
    await database.close()


@pytest.fixture
async def author(database: Database, stores: BackingStores) -> AsyncIterator[Author]:
    valkey = connect(stores.valkey_url)
    await valkey.execute("FLUSHALL")
    yield Author(database, valkey, 3)
    await valkey.close()


async def test_a_copy_is_filled_when_it_is_missed_and_then_follows_every_change(author: Author) -> None:
    first = await author.post()
    assert await author.filled() == [False, False, False], "nobody reads them yet"
    assert await author.read(1) == [first]
    assert await author.filled() == [False, True, False]
    second, third = await author.post(), await author.post()
    assert await author.filled() == [False, True, False], "a change makes none"
    assert await author.read(1) == await author.read(2) == [third, second, first]
    await author.delete(second)
    assert await author.read(0) == await author.read(1) == await author.read(2) == [third, first]
    newest = [await author.post() for _ in range(LENGTH + 2)][::-1]
    assert await author.read(0) == await author.read(1) == await author.read(2) == newest[:3]


async def test_a_copy_lives_for_a_minute_whatever_changes(author: Author) -> None:
    await author.read(1)
    key = keys.timeline_copy(author.id, 1, 3)
    assert 0 < await author.valkey.execute("TTL", key) <= COPY_SECONDS
    await author.valkey.execute("EXPIRE", key, 30)
    await author.post()
    assert 0 < await author.valkey.execute("TTL", key) <= 30


async def test_a_copy_that_this_replica_does_not_count_is_not_made(author: Author, database: Database) -> None:
    post = await author.post()
    one = Timelines(database, author.valkey, PostSettings(timeline_length=LENGTH))
    assert [UUID(bytes=found[:16]) for found in await one.newest([author.id], 3, copy=2)] == [post]
    assert await author.filled() == [False, False, False], "nobody would keep it"


async def test_posts_made_and_deleted_while_copies_are_filled_are_not_missed(author: Author) -> None:
    posts = [await author.post()]
    for number in range(40):
        names = [keys.timeline_copy(author.id, copy, 3) for copy in range(3)]
        await author.valkey.all([("DEL", name) for name in (*names, *([keys.timeline(author.id)] * (number % 2)))])
        reads = [author.read(copy) for copy in (0, 1, 2, 0, 1)]
        if number % 3 == 2:
            gone = posts.pop()
            await asyncio.gather(*reads[:2], author.delete(gone), *reads[2:])
        else:
            posts.append((await asyncio.gather(author.post(), *reads))[0])  # type: ignore[arg-type]
        for copy in range(3):
            assert await author.read(copy) == sorted(posts, reverse=True)[:3], number


@pytest.mark.parametrize("copies", [2, 3, 4, 6])
def test_copies_stand_equally_far_apart_on_the_ring_of_slots(copies: int) -> None:
    for _ in range(50):
        author = new_id()
        slots = sorted(key_slot(keys.timeline_copy(author, number, copies)) for number in range(copies))
        servers = {slot * copies // SLOTS for slot in slots}
        assert len(servers) == copies, "one for each of as many servers with equal parts of the slots"


async def test_on_a_cluster_each_master_has_a_copy(database: Database, valkey_cluster: ValkeyCluster) -> None:
    for number in range(MASTERS):
        valkey_cluster.client(number).flushall()
    valkey = connect(valkey_cluster.url)
    author = Author(database, valkey, MASTERS)
    post = await author.post()
    for copy in range(MASTERS):
        assert await author.read(copy) == [post]
    another = await author.post()
    for copy in range(MASTERS):
        assert await author.read(copy) == [another, post]
    names = [keys.timeline_copy(author.id, copy, MASTERS) for copy in range(MASTERS)]
    kept = [set(valkey_cluster.client(number).scan_iter()) for number in range(MASTERS)]
    where = [[name in there for name in names] for there in kept]
    assert sorted(sum(row) for row in where) == [1] * MASTERS
    await valkey.close()
