from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import httpx
import pytest

from fanfold.contracts import headers
from fanfold.contracts.events import PostCreated
from fanfold.contracts.ids import new_id
from fanfold.kit.outbox import Outbox
from fanfold.post.models import Post, PostTag, outbox
from fanfold.profile import repository as profiles
from fanfold.profile.models import User

SERVICES = ("profile", "follow", "post", "activity", "feed", "notification")
WORKERS = ("feed-worker", "notification-worker")
TAG = "sea"


@dataclass
class Town:
    """All services that know users, and some users."""

    house: Any
    apis: dict[str, httpx.AsyncClient]

    async def user(self, *, private: bool = False) -> UUID:
        """Somebody, put into the table: hashing passwords takes long, and is tested elsewhere."""
        user_id, name = new_id(), f"user_{secrets.token_hex(6)}"
        made = User(id=user_id, username=name, display_name=name, private=private, created_at=datetime.now(UTC))
        async with self.house.runtimes["profile"].database.transaction() as session:
            await profiles.add_user(session, made, "none")
        return user_id

    async def post(self, author: UUID) -> UUID:
        """A post without photos, tagged with `TAG`, and announced."""
        post_id = new_id()
        async with self.house.runtimes["post"].database.transaction() as session:
            session.add(Post(id=post_id, author_id=author, caption="", created_at=datetime.now(UTC)))
            await session.flush()
            session.add(PostTag(tag=TAG, post_id=post_id))
            await Outbox(outbox).add(session, PostCreated(post_id=post_id, author_id=author))
        return post_id

    async def call(
        self, service: str, method: str, path: str, user: UUID, *, key: str = "", **more: Any
    ) -> httpx.Response:
        """``key``: an Idempotency-Key."""
        head = self.house.as_user(user) | ({headers.IDEMPOTENCY_KEY: key} if key else {})
        return await self.apis[service].request(method, path, headers=head, **more)

    async def status(self, service: str, method: str, path: str, user: UUID, **more: Any) -> int:
        return (await self.call(service, method, path, user, **more)).status_code

    async def ids(self, service: str, path: str, user: UUID) -> list[str]:
        """Ids on the first page of a list."""
        answer = await self.call(service, "GET", path, user)
        assert answer.status_code == 200, answer.text
        return [item["id"] for item in answer.json()["items"]]

    async def follow(self, follower: UUID, followee: UUID) -> int:
        return await self.status("follow", "PUT", f"/v1/users/me/following/{followee}", follower)

    async def block(self, blocker: UUID, blocked: UUID) -> int:
        return await self.status("follow", "PUT", f"/v1/users/me/blocks/{blocked}", blocker)

    async def feed(self, user: UUID) -> list[str]:
        return await self.ids("feed", "/v1/feed", user)

    async def told(self, user: UUID) -> list[tuple[str, str]]:
        """Kind and actor of the user's notifications."""
        answer = await self.call("notification", "GET", "/v1/notifications", user)
        assert answer.status_code == 200, answer.text
        return [(item["kind"], item["actor"]["id"]) for item in answer.json()["items"]]


@pytest.fixture
async def town(house: Any) -> Town:
    town = Town(house, {name: await house.start(name) for name in SERVICES})
    for worker in WORKERS:
        await house.start(worker)
    return town
