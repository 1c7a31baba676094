from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import msgspec
import pytest

from fanfold.activity import repository
from fanfold.activity.liked import Liked
from fanfold.contracts import events, keys
from fanfold.contracts.blobs import CountsBlob
from fanfold.contracts.ids import id_millis, new_id
from tests.waiting import eventually

pytestmark = pytest.mark.integration


async def test_models_and_migrations_agree(schema_differences: Any) -> None:
    assert await schema_differences("activity") == []


async def test_a_like_is_seen_at_once_by_who_liked(room: Any) -> None:
    ada, bob = await room.user(), await room.user("bob")
    post = await room.post(ada)
    assert await room.seen(bob, post) == [(0, 0, False)]
    await room.like(bob, post)
    assert await room.seen(bob, post) == [(1, 0, True)]
    assert await room.seen(ada, post) == [(1, 0, False)]
    await room.unlike(bob, post)
    assert await room.seen(bob, post) == [(0, 0, False)]


async def test_a_like_shows_in_what_hydration_reads_without_asking(room: Any) -> None:
    bob = await room.user("bob")
    post = await room.post(bob)
    await room.seen(bob, post)
    await room.like(bob, post)
    assert await room.house.redis.zscore(keys.liked(bob), post.bytes) == id_millis(post)
    counts = msgspec.msgpack.decode(await room.house.redis.get(keys.counts(post)), type=CountsBlob)
    assert (counts.likes, counts.comments) == (1, 0)
    assert counts.counted_ms > 0
    assert await room.house.redis.ttl(keys.counts(post)) > 0


async def test_liking_twice_or_at_once_counts_once_and_is_told_once(room: Any) -> None:
    bob = await room.user("bob")
    post = await room.post(await room.user())
    await asyncio.gather(*(room.like(bob, post) for _ in range(8)))
    assert await room.seen(bob, post) == [(1, 0, True)]
    assert await room.rows("SELECT count(*) FROM activity.activity WHERE parent_id = $1", post) == 1

    async def told_once() -> bool:
        told = [
            events.decode(fields[b"event"])
            for partition in range(events.PARTITIONS)
            for _, fields in await room.house.redis.xrange(keys.stream("activity", partition))
        ]
        about = [event.user_id for event in told if isinstance(event, events.Liked) and event.post_id == post]
        assert len(about) <= 1
        return about == [bob]

    await eventually(told_once)


async def test_unliking_without_a_like_changes_nothing(room: Any) -> None:
    bob = await room.user("bob")
    post = await room.post(bob)
    await room.unlike(bob, post)
    assert await room.seen(bob, post) == [(0, 0, False)]


async def test_likes_and_unlikes_at_once_end_as_the_row_says(room: Any) -> None:
    bob = await room.user("bob")
    post = await room.post(bob)
    await room.seen(bob, post)
    for _ in range(5):
        await asyncio.gather(*(action(bob, post) for _ in range(4) for action in (room.like, room.unlike)))
        liked = await room.rows("SELECT count(*) FROM activity.activity WHERE parent_id = $1", post)
        assert await room.seen(bob, post) == [(liked, 0, bool(liked))]


async def test_an_unlike_waits_for_the_like_before_it_to_be_mirrored(
    room: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bob = await room.user("bob")
    post = await room.post(bob)
    await room.seen(bob, post)
    add, adding, go_on = Liked.add, asyncio.Event(), asyncio.Event()

    async def late(self: Liked, user_id: UUID, post_id: UUID) -> None:
        adding.set()
        await go_on.wait()
        await add(self, user_id, post_id)

    monkeypatch.setattr(Liked, "add", late)
    like = asyncio.create_task(room.like(bob, post))
    await adding.wait()
    unlike = asyncio.create_task(room.unlike(bob, post))
    await asyncio.wait({unlike}, timeout=0.3)  # time enough to overtake
    go_on.set()
    await asyncio.gather(like, unlike)
    assert await room.seen(bob, post) == [(0, 0, False)]


async def test_a_like_while_what_the_user_likes_is_read_is_not_lost(room: Any) -> None:
    bob = await room.user("bob")
    for _ in range(5):
        post = await room.post(bob)
        await room.house.redis.delete(keys.liked(bob))
        await asyncio.gather(*(room.seen(bob, post) for _ in range(3)), room.like(bob, post), room.seen(bob, post))
        assert (await room.seen(bob, post))[0][2]
        assert await room.house.redis.zscore(keys.liked(bob), post.bytes) is not None


@pytest.mark.parametrize("room", [{"liked_length": 3}], indirect=True)
async def test_likes_below_what_is_mirrored_are_known(room: Any) -> None:
    bob = await room.user("bob")
    posts = [await room.post(bob) for _ in range(6)]
    for post in (posts[0], *posts[2:]):
        await room.like(bob, post)
    expected = [True, False, True, True, True, True]
    assert [liked for *_, liked in await room.seen(bob, *posts)] == expected
    assert await room.house.redis.zcard(keys.liked(bob)) == 4  # three and the sentinel
    assert [liked for *_, liked in await room.seen(bob, *posts)] == expected
    await room.unlike(bob, posts[0])
    assert [liked for *_, liked in await room.seen(bob, *posts)] == [False, *expected[1:]]


@pytest.mark.parametrize("path", ["like", "likes", "comments"])
async def test_a_post_that_is_not_there_is_404(room: Any, path: str) -> None:
    ada = await room.user()
    post = new_id()
    await room.house.redis.set(keys.post(post), keys.TOMBSTONE)
    method = "PUT" if path == "like" else "GET"
    answer = await room.call(method, f"/v1/posts/{post}/{path}", ada)
    assert answer.status_code == 404
    assert answer.json()["type"].endswith("/post-not-found")


async def test_a_post_that_cannot_be_looked_up_is_503_not_404(room: Any) -> None:
    answer = await room.call("PUT", f"/v1/posts/{new_id()}/like", await room.user())
    assert answer.status_code == 503


async def test_who_liked_is_paged_newest_first_without_deleted_users(room: Any) -> None:
    ada = await room.user()
    post = await room.post(ada)
    users = [await room.user(f"user{number}") for number in range(7)]
    for user in users:
        await room.like(user, post)
    await room.house.redis.set(keys.user(users[3]), keys.TOMBSTONE)
    found = await room.pages(f"/v1/posts/{post}/likes", ada, limit=2)
    assert [item["username"] for item in found] == ["user6", "user5", "user4", "user2", "user1", "user0"]


async def test_nobody_likes_or_comments_without_a_token(room: Any) -> None:
    post = await room.post(await room.user())
    nobody = room.house.anonymous()
    for method, path in (
        ("PUT", f"/v1/posts/{post}/like"),
        ("DELETE", f"/v1/posts/{post}/like"),
        ("GET", f"/v1/posts/{post}/likes"),
        ("POST", f"/v1/posts/{post}/comments"),
        ("GET", f"/v1/posts/{post}/comments"),
        ("DELETE", f"/v1/comments/{post}"),
        ("PUT", f"/v1/comments/{post}/like"),
        ("DELETE", f"/v1/comments/{post}/like"),
    ):
        answer = await room.api.request(method, path, headers=nobody, json={"text": "x"})
        assert answer.status_code == 401, path


async def test_counts_asked_at_once_are_counted_once(room: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    bob = await room.user("bob")
    posts = [await room.post(bob) for _ in range(3)]
    for post in posts:
        await room.like(bob, post)
    asked: list[UUID] = []
    count, started, go_on = repository.post_counts, asyncio.Event(), asyncio.Event()

    async def slow(session: Any, post_ids: Any) -> Any:
        asked.extend(post_ids)
        started.set()
        await go_on.wait()
        return await count(session, post_ids)

    monkeypatch.setattr(repository, "post_counts", slow)
    first = asyncio.create_task(room.seen(bob, *posts[:2]))
    await started.wait()
    others = [asyncio.create_task(room.seen(bob, *posts)) for _ in range(5)]
    async with asyncio.timeout(60):
        while len(asked) < 3:  # the third post is new to the others
            await asyncio.sleep(0.01)
    go_on.set()
    assert await first == [(1, 0, True)] * 2
    assert await asyncio.gather(*others) == [[(1, 0, True)] * 3] * 5
    assert sorted(asked) == sorted(posts)


async def test_a_like_during_a_count_is_in_the_next_answer(room: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    bob = await room.user("bob")
    post = await room.post(bob)
    count, started, go_on = repository.post_counts, asyncio.Event(), asyncio.Event()

    async def counted_before_the_like(session: Any, post_ids: Any) -> Any:
        answer = await count(session, post_ids)
        started.set()
        await go_on.wait()
        return answer

    monkeypatch.setattr(repository, "post_counts", counted_before_the_like)
    early = asyncio.create_task(room.seen(bob, post))
    await started.wait()
    await room.like(bob, post)
    monkeypatch.setattr(repository, "post_counts", count)
    late = await room.seen(bob, post)
    go_on.set()
    assert late == [(1, 0, True)]
    assert (await early)[0][0] == 0
    assert await room.seen(bob, post) == [(1, 0, True)]


async def test_counts_are_read_from_the_index_alone(room: Any) -> None:
    engine = room.house.runtimes["activity"].database.engine.execution_options(isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        # Else VACUUM may come before the commit's record is on disk, and see no page as visible to all.
        await connection.exec_driver_sql("SET synchronous_commit = on")
        await connection.exec_driver_sql(
            "INSERT INTO activity.activity "
            "SELECT gen_random_uuid(), 'like', 'post', lpad((n % 40)::text, 32, '0')::uuid, gen_random_uuid(), now() "
            "FROM generate_series(1, 20000) AS n"
        )
        lines = ""
        for _ in range(30):  # no page is visible to all while a transaction from before is open
            await connection.exec_driver_sql("VACUUM ANALYZE activity.activity")
            plan = await connection.exec_driver_sql(
                "EXPLAIN SELECT parent_id, kind, count(*) FROM activity.activity "
                "WHERE parent_type = 'post' AND parent_id IN (lpad('7', 32, '0')::uuid) GROUP BY parent_id, kind"
            )
            lines = "\n".join(row[0] for row in plan)
            if "Index Only Scan" in lines:
                break
            await asyncio.sleep(1)
        await connection.exec_driver_sql("RESET synchronous_commit")
        await connection.exec_driver_sql("TRUNCATE activity.activity")
    assert "Index Only Scan using activity_parent_idx" in lines, lines
