"""A photo among the real services: who is given which address of it, and what that opens."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from fanfold.contracts.roles import MODERATOR

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.relations.conftest import Town

pytestmark = pytest.mark.integration

SMALL: dict[str, Any] = {"image_processes": 1, "image_process_mib": 400}


class Gallery:
    """A post with one photo, and how its photo is read."""

    def __init__(self, town: Town, author: UUID, post: dict[str, Any]) -> None:
        self.town = town
        self.author = author
        self.path = f"/v1/posts/{post['id']}"

    async def address(self, viewer: UUID) -> str:
        """As a post gives it."""
        return _expanded((await self.town.call("post", "GET", self.path, viewer)).json())

    async def opens(self, url: str) -> tuple[int, str]:
        """Status, and first word of Cache-Control, for somebody without a token."""
        answer = await self.town.apis["image"].get(url, headers=self.town.house.anonymous())
        return answer.status_code, answer.headers["cache-control"].split(",")[0]

    async def closes(self, url: str) -> None:
        async with asyncio.timeout(60):
            while await self.opens(url) != (403, "no-store"):
                await asyncio.sleep(0.2)

    async def privacy(self, *, private: bool) -> None:
        answer = await self.town.call("profile", "PATCH", "/v1/users/me", self.author, json={"private": private})
        assert answer.status_code == 200

    async def moderate(self, what: str, moderator: UUID) -> int:
        head = self.town.house.as_user(moderator, role=MODERATOR)
        path = self.path.replace("/v1/", "/v1/moderation/")
        return (await self.town.apis["post"].put(f"{path}/{what}", headers=head, json={"reason": "rule 3"})).status_code


def _expanded(post: dict[str, Any]) -> str:
    url: str = post["images"][0]["variants"]["url"]
    return url.replace("{width}", "150").replace("{format}", "webp")


@pytest.fixture
async def gallery(town: Town, bucket: str, tmp_path: Path, photo: Callable[[str], Path]) -> Gallery:
    assert bucket
    town.apis["image"] = await town.house.start("image", **SMALL, spool_dir=tmp_path)
    await town.house.start("image-worker", **SMALL, spool_dir=tmp_path)
    author = await town.user()
    sent = await town.call("image", "POST", "/v1/images", author, files={"file": photo("chelsea").read_bytes()})
    made = await town.call("post", "POST", "/v1/posts", author, json={"image_ids": [sent.json()["id"]]})
    gallery = Gallery(town, author, made.json())
    async with asyncio.timeout(60):
        while not (await town.call("post", "GET", gallery.path, author)).json()["images"][0]["variants"]:
            await asyncio.sleep(0.1)
    return gallery


async def test_an_address_is_for_ever_while_everybody_may_see_the_post_and_expires_otherwise(
    town: Town, gallery: Gallery
) -> None:
    follower, stranger, moderator = [await town.user() for _ in range(3)]
    assert await town.follow(follower, gallery.author) == 204
    bare = await gallery.address(stranger)
    assert "?" not in bare
    assert await gallery.opens(bare) == (200, "public")

    await gallery.privacy(private=True)
    await gallery.closes(bare)
    for viewer in (follower, gallery.author):
        given = await gallery.address(viewer)
        assert given.startswith(f"{bare}?expires=")
        assert await gallery.opens(given) == (200, "private")
    feed = (await town.call("feed", "GET", "/v1/feed", follower)).json()["items"]
    assert await gallery.opens(_expanded(feed[0])) == (200, "private")

    await gallery.privacy(private=False)
    assert await gallery.address(stranger) == bare
    assert await gallery.opens(bare) == (200, "public")

    assert await gallery.moderate("hidden", moderator) == 204
    await gallery.closes(bare)
    seen = await town.apis["post"].get(
        gallery.path.replace("/v1/", "/v1/moderation/"), headers=town.house.as_user(moderator, role=MODERATOR)
    )
    for given in (await gallery.address(gallery.author), _expanded(seen.json())):
        assert await gallery.opens(given) == (200, "private")
    assert await gallery.moderate("shown", moderator) == 204
    assert await gallery.opens(bare) == (200, "public")

    assert (await town.call("post", "DELETE", gallery.path, gallery.author)).status_code == 204
    await gallery.closes(bare)
