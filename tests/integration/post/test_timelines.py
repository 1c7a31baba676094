from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import pytest

from fanfold.contracts import events, internal, keys
from fanfold.contracts.ids import new_id
from fanfold.kit.streams import publish
from fanfold.post import repository
from tests.waiting import eventually

pytestmark = pytest.mark.integration


async def _newest(room: Any, authors: list[UUID], limit: int, before: UUID | None = None) -> list[UUID]:
    query = internal.TimelinesQuery(
        b"".join(author.bytes for author in authors), limit, before.bytes if before else b""
    )
    members = (await room.house.peers.call(internal.TIMELINES, query)).members
    return [UUID(bytes=members[start : start + 16]) for start in range(0, len(members), keys.FEED_MEMBER_BYTES)]


async def test_a_timeline_is_newest_first_through_all_pages_and_past_the_mirror(room: Any) -> None:
    ada = await room.user()
    made = [str(post_id) for post_id in await room.rows(ada, 130)]
    for limit in (100, 7):
        assert await room.timeline(ada, ada, limit) == made[::-1]


async def test_pages_stay_stable_while_posts_come_and_go(room: Any) -> None:
    ada = await room.user()
    made = [str(post_id) for post_id in await room.rows(ada, 9)][::-1]
    first = (await room.get(f"/v1/users/{ada}/posts", ada, limit=3)).json()
    await room.post(ada, "newer")
    await room.api.delete(f"/v1/posts/{made[2]}", headers=room.house.as_user(ada))
    second = (await room.get(f"/v1/users/{ada}/posts", ada, limit=3, cursor=first["next_cursor"])).json()
    assert [post["id"] for post in first["items"]] == made[:3]
    assert [post["id"] for post in second["items"]] == made[3:6]


async def test_a_new_post_is_first_on_a_cold_and_on_a_warm_timeline(room: Any) -> None:
    ada = await room.user()
    first = await room.post(ada)
    assert await room.timeline(ada, ada) == [first["id"]]
    second = await room.post(ada)
    assert await room.timeline(ada, ada) == [second["id"], first["id"]]


async def test_posts_made_while_a_cold_timeline_is_read_are_not_lost(room: Any) -> None:
    ada = await room.user()
    made: list[str] = []
    for _ in range(5):
        await room.house.redis.delete(keys.timeline(ada))
        posts = await asyncio.gather(room.post(ada), *(room.timeline(ada, ada) for _ in range(4)), room.post(ada))
        made += [posts[0]["id"], posts[-1]["id"]]
    assert await room.timeline(ada, ada) == sorted(made, reverse=True)


async def test_a_post_that_a_crash_kept_off_the_timeline_is_put_there_by_its_event(room: Any) -> None:
    ada = await room.user()
    first = await room.post(ada)
    assert await room.timeline(ada, ada) == [first["id"]]
    [lost] = await room.rows(ada, 1)
    event = events.PostCreated(post_id=lost, author_id=ada)
    await publish(room.house.redis, "posts", event.partition, events.encode(event))

    async def there() -> bool:
        return bool(await room.timeline(ada, ada) == [str(lost), first["id"]])

    await eventually(there)


async def test_a_user_without_posts_has_an_empty_page_and_nobody_has_none(room: Any) -> None:
    ada = await room.user()
    answer = await room.get(f"/v1/users/{ada}/posts", ada)
    assert answer.json() == {"items": [], "next_cursor": None}
    nobody = new_id()
    await room.house.redis.set(keys.user(nobody), keys.TOMBSTONE)
    assert (await room.get(f"/v1/users/{nobody}/posts", ada)).status_code == 404


async def test_cursors_of_other_lists_are_refused(room: Any) -> None:
    ada = await room.user()
    await room.rows(ada, 3)
    page = (await room.get(f"/v1/users/{ada}/posts", ada, limit=1)).json()
    for path, cursor in ((f"/v1/users/{ada}/posts", "AAAA"), ("/v1/tags/dawn/posts", page["next_cursor"])):
        assert (await room.get(path, ada, cursor=cursor)).status_code == 400


async def test_timelines_of_many_authors_are_merged(room: Any) -> None:
    authors = [new_id() for _ in range(3)]
    made = [(await room.rows(author, 1))[0] for _ in range(4) for author in authors]
    newest = made[::-1]
    assert await _newest(room, authors, 5) == newest[:5]
    assert await _newest(room, authors, 50) == newest
    assert await _newest(room, authors, 5, before=newest[4]) == newest[5:10]
    assert await _newest(room, [], 5) == []


async def test_more_authors_than_one_query_takes_are_merged_too(room: Any) -> None:
    authors = [new_id() for _ in range(2_100)]
    made = [(await room.rows(author, 1))[0] for author in (authors[0], authors[-1], authors[1_500])]
    assert await _newest(room, authors, 5) == made[::-1]


async def test_the_timeline_of_one_author_is_warm_after_it_was_asked_for(room: Any) -> None:
    author = new_id()
    made = await room.rows(author, 3)
    assert await _newest(room, [author], 2) == made[:0:-1]
    assert await room.house.redis.zcard(keys.timeline(author)) == 4


async def test_timelines_probe_the_index_once_per_author(room: Any) -> None:
    statement = str(repository._TIMELINES)
    for name, value in (("authors", "ARRAY(SELECT DISTINCT author_id FROM post.post LIMIT 50)"), ("limit", "20")):
        statement = statement.replace(f":{name}", value)
    async with room.house.runtimes["post"].database.engine.connect() as connection:
        await connection.exec_driver_sql(
            "INSERT INTO post.post SELECT gen_random_uuid(), lpad((n % 400)::text, 32, '0')::uuid, '', now(), NULL, 1 "
            "FROM generate_series(1, 20000) AS n"
        )
        await connection.exec_driver_sql("ANALYZE post.post")
        plan = await connection.exec_driver_sql("EXPLAIN " + statement.replace(":before", f"'{repository.NEWEST}'"))
        lines = [row[0].strip() for row in plan]
    assert any("using post_author_idx" in line for line in lines)
    assert any("Index Cond: ((author_id = " in line for line in lines)


async def test_tag_pages_are_newest_first_by_cursor(room: Any) -> None:
    ada = await room.user()
    made = [(await room.post(ada, f"#Dawn {number}"))["id"] for number in range(5)][::-1]
    first = (await room.get("/v1/tags/dawn/posts", ada, limit=3)).json()
    second = (await room.get("/v1/tags/DAWN/posts", ada, limit=3, cursor=first["next_cursor"])).json()
    assert [post["id"] for post in first["items"] + second["items"]] == made
    assert second["next_cursor"] is None
