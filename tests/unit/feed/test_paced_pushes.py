"""Paced pushes leave room: never more than one bounded lot of script calls is on its way."""

from __future__ import annotations

import asyncio
from typing import Any, cast
from uuid import uuid4

from fanfold.feed.repository import FEEDS_PER_CALL, FeedRepository, member
from fanfold.kit.valkey import Valkey

FOLLOWERS = 5_000


class Recording:
    """Notes how many feeds are on their way to the server at once."""

    def __init__(self) -> None:
        self.under_way = 0
        self.most = 0
        self.told = 0

    async def script(self, _: object, keys: list[bytes], __: object) -> int:
        feeds = len(keys) - 1  # the first is the bucket's
        self.under_way += feeds
        self.told += feeds
        self.most = max(self.most, self.under_way)
        await asyncio.sleep(0)
        self.under_way -= feeds
        return feeds


async def test_a_paced_push_sends_lots_one_after_the_other_and_an_unpaced_one_all_at_once() -> None:
    followers, post = b"".join(uuid4().bytes for _ in range(FOLLOWERS)), member(uuid4().bytes, uuid4().bytes)
    asked: list[int] = []

    async def pace(feeds: int) -> None:
        asked.append(feeds)

    for pacing, most in ((pace, FEEDS_PER_CALL), (None, FOLLOWERS)):
        valkey = Recording()
        repository = FeedRepository(cast("Valkey", cast("Any", valkey)), length=20, ttl_seconds=60)
        assert await repository.push(followers, post, 1, pacing) == valkey.told == FOLLOWERS
        assert valkey.most <= most
        assert valkey.most > most * 0.7
    assert sum(asked) == FOLLOWERS
