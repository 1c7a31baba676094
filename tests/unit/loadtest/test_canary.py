"""The canary between two answers: whom it is told to stop by, and what it does when people or posts are gone."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any, cast

from prometheus_client import REGISTRY

from fanfold_loadtest import canary
from fanfold_loadtest.canary import Canary
from fanfold_loadtest.client import Api, ApiError
from fanfold_loadtest.shapes import Author, Image, Page, Post


def shown(post_id: str) -> Post:
    return Post(post_id, Author("a", "ada"), "", [], 0, 0, liked_by_me=False, created_at=datetime.now(UTC))


class Village:
    """An API of dictionaries: feeds show a post after so many looks."""

    def __init__(self, looks: int = 0) -> None:
        self.looks = looks
        self.posts: list[str] = []
        self.people: list[str] = []
        self.failure: ApiError | None = None

    async def register(self, username: str, *_: str) -> None:
        self.people.append(username)

    async def login(self, username: str, _: str) -> Villager:
        return Villager(self, username)


class Villager:
    expires_in = 900

    def __init__(self, village: Village, username: str) -> None:
        self.village, self.id = village, username

    async def follow(self, user_id: str) -> None:
        assert user_id.startswith("canary_author")

    async def upload(self, _: Any) -> Image:
        if self.village.failure:
            raise self.village.failure
        return Image("i", 1, 1, "", None)

    async def post(self, *_: Any) -> Post:
        self.village.posts.append("p1")
        return shown("p1")

    async def feed(self, **_: int) -> Page[Post]:
        self.village.looks -= 1
        return Page([shown(one) for one in self.village.posts] if self.village.looks < 0 else [])

    async def delete_post(self, post_id: str) -> None:
        self.village.posts.remove(post_id)

    async def leave(self, _: str) -> None:
        self.village.people.remove(self.id)


def bird(village: Village, said: list[str]) -> Canary:
    return Canary(cast("Api", village), said.append)


def counted(outcome: str) -> float:
    return REGISTRY.get_sample_value("fanfold_canary_probes_total", {"outcome": outcome}) or 0.0


async def test_a_post_that_shows_after_some_looks_is_seen_at_that_age_and_taken_back() -> None:
    village, before = Village(looks=4), counted("seen")
    age = await bird(village, []).probe()
    assert age is not None
    assert age >= 2 * canary.LOOK_SECONDS
    assert counted("seen") == before + 1
    assert village.posts == []


async def test_a_post_that_never_shows_is_late_and_taken_back(monkeypatch: Any) -> None:
    monkeypatch.setattr(canary, "WATCH_SECONDS", 0.3)
    village, before, said = Village(looks=1_000), counted("late"), list[str]()
    assert await bird(village, said).probe() is None
    assert counted("late") == before + 1
    assert village.posts == []
    assert said[0].startswith("late")


async def test_one_whose_people_are_gone_makes_new_ones() -> None:
    village, said = Village(), list[str]()
    singer = bird(village, said)
    village.failure = ApiError("POST /v1/images: 401: no such session", 401)
    before = counted("failed")
    assert await singer.probe() is None
    assert counted("failed") == before + 1
    assert "401" in said[0]
    village.failure = None
    assert await singer.probe() is not None
    assert len(village.people) == 4


async def test_told_to_stop_in_the_midst_of_a_look_it_takes_its_post_back_and_leaves() -> None:
    village, stop = Village(looks=10_000), asyncio.Event()
    before = counted("late") + counted("failed")
    running = asyncio.create_task(bird(village, []).run(60, stop))
    async with asyncio.timeout(60):
        while not village.posts:
            await asyncio.sleep(0.01)
        stop.set()
        await running
    assert village.posts == []
    assert village.people == []
    assert counted("late") + counted("failed") == before
