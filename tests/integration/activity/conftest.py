from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

import httpx
import msgspec
import pytest

from fanfold.contracts import events, internal, keys
from fanfold.contracts.blobs import PostBlob, UserBlob
from fanfold.contracts.ids import id_millis, new_id
from fanfold.kit.streams import publish


@dataclass
class Room:
    """The activity service, and the users and posts that others would have cached."""

    house: Any
    api: httpx.AsyncClient

    async def user(self, name: str = "ada") -> UUID:
        user_id = new_id()
        blob = UserBlob(user_id.bytes, name, name.title(), "")
        await self.house.redis.set(keys.user(user_id), msgspec.msgpack.encode(blob))
        await self.house.redis.set(keys.blocks(user_id), b"")
        return user_id

    async def post(self, owner: UUID) -> UUID:
        post_id = new_id()
        blob = PostBlob(post_id.bytes, owner.bytes, "", id_millis(post_id), [])
        await self.house.redis.set(keys.post(post_id), msgspec.msgpack.encode(blob))
        return post_id

    async def call(self, method: str, path: str, user: UUID, **more: Any) -> httpx.Response:
        head = self.house.as_user(user) | more.pop("headers", {})
        return await self.api.request(method, path, headers=head, **more)

    async def like(self, user: UUID, post: UUID) -> None:
        assert (await self.call("PUT", f"/v1/posts/{post}/like", user)).status_code == 204

    async def unlike(self, user: UUID, post: UUID) -> None:
        assert (await self.call("DELETE", f"/v1/posts/{post}/like", user)).status_code == 204

    async def comment(self, user: UUID, post: UUID, text: str = "nice") -> dict[str, Any]:
        answer = await self.call("POST", f"/v1/posts/{post}/comments", user, json={"text": text})
        assert answer.status_code == 201, answer.text
        made: dict[str, Any] = answer.json()
        return made

    async def seen(self, user: UUID, *posts: UUID) -> list[tuple[int, int, bool]]:
        """(likes, comments, liked by the user) of each post, as other services are told."""
        query = internal.ActivityQuery(user.bytes, [post.bytes for post in posts])
        answer = await self.house.peers.call(internal.ACTIVITY, query)
        return [(*answer.counts[post.bytes], post.bytes in answer.liked) for post in posts]

    async def pages(self, path: str, user: UUID, limit: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        params: dict[str, Any] = {"limit": limit}
        while True:
            answer = await self.call("GET", path, user, params=params)
            assert answer.status_code == 200, answer.text
            found += answer.json()["items"]
            if answer.json()["next_cursor"] is None:
                return found
            params["cursor"] = answer.json()["next_cursor"]

    async def tell(self, event: events.Event) -> None:
        await publish(self.house.redis, event.topic, event.partition, events.encode(event))

    async def rows(self, sql: str, *arguments: Any) -> Any:
        async with self.house.runtimes["activity"].database.engine.connect() as connection:
            return (await connection.exec_driver_sql(sql, arguments)).scalar_one()


@pytest.fixture
async def room(house: Any, request: pytest.FixtureRequest) -> Room:
    """Parametrized indirectly: settings that differ."""
    return Room(house, await house.start("activity", **getattr(request, "param", {})))
