"""Which of the services' reads go to a read replica, and which never do: docs/scaling.md has the reasons.

The replica is the primary once more, by connections of its own: what is looked at is who is asked.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

import httpx
import msgspec
import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from fanfold.contracts import internal, keys
from fanfold.contracts.blobs import PostBlob, UserBlob
from fanfold.contracts.ids import id_millis, new_id
from fanfold.follow import repository as follows
from fanfold.kit.replica import Replica
from fanfold.notification import repository as notifications
from fanfold.notification.drafts import Draft
from fanfold.post.models import Post
from tests.integration.partitions import recorded

if TYPE_CHECKING:
    from tests.integration.conftest import House

pytestmark = pytest.mark.integration


class Asked:
    """Counts the replica's statements between two looks."""

    def __init__(self, statements: list[Any]) -> None:
        self._statements = statements

    def so_often(self) -> int:
        count = len([one for one, _ in self._statements if one.startswith("SELECT")])
        self._statements.clear()
        return count


@contextmanager
def replica_of(house: House, service: str, url: str) -> Iterator[Asked]:
    """The service has a replica that keeps up."""
    database = house.runtimes[service].database
    replica = Replica(create_async_engine(url), database.engine, 60)
    replica.usable = True
    database.replica = replica
    with recorded(replica.engine) as statements:
        yield Asked(statements)


async def user(house: House, name: str) -> UUID:
    made = new_id()
    await house.redis.set(keys.user(made), msgspec.msgpack.encode(UserBlob(made.bytes, name, name.title(), "")))
    await house.redis.set(keys.blocks(made), b"")
    return made


async def page(api: httpx.AsyncClient, path: str, head: dict[str, str], **params: Any) -> dict[str, Any]:
    answer = await api.get(path, params=params, headers=head)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_comments_and_likes_are_read_there_but_not_by_who_has_just_written(
    house: House, database_url: str
) -> None:
    api = await house.start("activity")
    ada, bob = [await user(house, name) for name in ("ada", "bob")]
    post = new_id()
    blob = PostBlob(post.bytes, ada.bytes, "", id_millis(post), [])
    await house.redis.set(keys.post(post), msgspec.msgpack.encode(blob))
    with replica_of(house, "activity", database_url) as replica:
        for path in ("comments", "likes"):
            await page(api, f"/v1/posts/{post}/{path}", house.as_user(bob))
            assert replica.so_often() >= 1, path
        made = await api.post(f"/v1/posts/{post}/comments", json={"text": "hm"}, headers=house.as_user(bob))
        assert (await api.put(f"/v1/posts/{post}/like", headers=house.as_user(ada))).status_code == 204
        for writer in (ada, bob):
            for path in ("comments", "likes"):
                await page(api, f"/v1/posts/{post}/{path}", house.as_user(writer))
        query = internal.ActivityQuery(bob.bytes, [post.bytes])
        await house.peers.call(internal.ACTIVITY, query)
        assert replica.so_often() == 0, "who wrote reads what they wrote; counts are the primary's"
        other = await user(house, "eve")
        found = await page(api, f"/v1/posts/{post}/comments", house.as_user(other))
        assert [item["id"] for item in found["items"]] == [made.json()["id"]]
        assert replica.so_often() >= 1


async def test_posts_are_read_there_below_a_cursor_and_a_rebuild_never_is(house: House, database_url: str) -> None:
    api = await house.start("post", timeline_length=3)
    ada, bob = [await user(house, name) for name in ("ada", "bob")]
    made = [new_id() for _ in range(9)]
    async with house.runtimes["post"].database.transaction() as session:
        for post_id in made:
            session.add(Post(id=post_id, author_id=ada, caption="", created_at=datetime.now(UTC)))
    with replica_of(house, "post", database_url) as replica:
        both = ada.bytes + bob.bytes
        rebuild = await house.peers.call(internal.TIMELINES, internal.TimelinesQuery(both, 5))
        await house.peers.call(internal.TIMELINES, internal.TimelinesQuery(ada.bytes, 3))
        first = await page(api, f"/v1/users/{ada}/posts", house.as_user(bob), limit=5)
        assert replica.so_often() == 0
        deep = internal.TimelinesQuery(both, 4, rebuild.members[-32:-16])
        answer = await house.peers.call(internal.TIMELINES, deep)
        assert [UUID(bytes=answer.members[at : at + 16]) for at in range(0, len(answer.members), 32)] == made[3::-1]
        assert replica.so_often() == 1
        await page(api, f"/v1/users/{ada}/posts", house.as_user(bob), limit=3, cursor=first["next_cursor"])
        assert replica.so_often() == 1


async def test_followers_are_read_there_below_a_cursor_and_those_for_fan_out_never_are(
    house: House, database_url: str
) -> None:
    api = await house.start("follow")
    star, *fans = [await user(house, f"u{number}") for number in range(5)]
    async with house.runtimes["follow"].database.transaction() as session:
        for fan in fans:
            await follows.add(session, fan, star)
    with replica_of(house, "follow", database_url) as replica:
        path, head = f"/v1/users/{star}/followers", house.as_user(fans[0])
        first = await page(api, path, head, limit=2)
        for after in (b"", fans[0].bytes):
            await house.peers.call(internal.FOLLOWERS, internal.FollowersQuery(star.bytes, after, 10))
        await house.peers.call(internal.FOLLOWEES, internal.FolloweesQuery(fans[0].bytes))
        assert replica.so_often() == 0
        second = await page(api, path, head, limit=2, cursor=first["next_cursor"])
        assert replica.so_often() == 1
        assert [item["id"] for item in first["items"] + second["items"]] == [str(fan) for fan in fans[::-1]]


async def test_notifications_are_read_there_below_a_cursor_only(house: House, database_url: str) -> None:
    api = await house.start("notification")
    ada, bob = [await user(house, name) for name in ("ada", "bob")]
    async with house.runtimes["notification"].database.transaction() as session:
        for _ in range(4):
            await notifications.add(session, Draft(ada, "like", bob, new_id()), datetime.now(UTC))
    with replica_of(house, "notification", database_url) as replica:
        path, head = "/v1/notifications", house.as_user(ada)
        first = await page(api, path, head, limit=2)
        await page(api, path, head, after=first["items"][-1]["id"])
        assert replica.so_often() == 0
        second = await page(api, path, head, limit=2, cursor=first["next_cursor"])
        assert replica.so_often() == 1
        assert len({item["id"] for item in first["items"] + second["items"]}) == 4
