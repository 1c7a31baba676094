from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest
from msgspec.structs import replace

from fanfold.contracts import events, internal, keys
from fanfold.contracts.api import Post
from fanfold.contracts.blobs import PostBlob
from fanfold.contracts.ids import new_id
from fanfold.kit.streams import publish
from fanfold.post.cache import PostCache
from tests.waiting import eventually

pytestmark = pytest.mark.integration


async def _sent(room: Any, topic: str, kind: type[Any], author: UUID) -> list[Any]:
    """Events of a kind about an author, on a topic's streams."""
    found = []
    for partition in range(events.PARTITIONS):
        for _, fields in await room.house.redis.xrange(keys.stream(topic, partition)):
            event = events.decode(fields[b"event"])
            if isinstance(event, kind) and event.author_id == author:
                found.append(event)
    return found


async def _blob(room: Any, post_id: UUID) -> PostBlob:
    """What Valkey holds of a post."""
    return msgspec.msgpack.decode(await room.house.redis.get(keys.post(post_id)), type=PostBlob)


async def test_models_and_migrations_agree(schema_differences: Any) -> None:
    assert await schema_differences("post") == []


async def test_a_post_is_answered_as_it_will_be_read(room: Any) -> None:
    ada = await room.user()
    image_ids = [await room.image(ada) for _ in range(3)]
    body = {"image_ids": image_ids, "caption": "at the lake", "alt_texts": ["a lake"]}
    answer = await room.try_post(ada, body)
    assert answer.status_code == 201
    made = answer.json()
    assert Post.model_validate(made)
    assert [image["id"] for image in made["images"]] == image_ids
    assert [image["alt_text"] for image in made["images"]] == ["a lake", "", ""]
    assert made["author"]["username"] == "ada"
    read = await room.get(f"/v1/posts/{made['id']}", await room.user("bob"))
    assert read.status_code == 200
    assert read.json() == made


async def test_a_post_that_the_cache_lost_reads_the_same(room: Any) -> None:
    ada = await room.user()
    made = await room.post(ada, "hello", alt_texts=["grey"])
    await room.house.redis.delete(keys.post(UUID(made["id"])))
    assert (await room.get(f"/v1/posts/{made['id']}", ada)).json() == made
    assert await room.house.redis.exists(keys.post(UUID(made["id"])))


async def test_a_post_is_announced_with_the_names_it_mentions(room: Any) -> None:
    ada = await room.user()
    made = await room.post(ada, "with @Bob.b at #dawn")

    async def announced() -> bool:
        sent = await _sent(room, "posts", events.PostCreated, ada)
        return sent == [
            events.PostCreated(post_id=UUID(made["id"]), author_id=ada, mentioned_usernames=["bob.b"]),
        ]

    await eventually(announced)


@pytest.mark.parametrize("whose", ["nobody", "somebody else"])
async def test_an_image_that_is_not_the_authors_is_refused_and_leaves_nothing(room: Any, whose: str) -> None:
    ada = await room.user()
    image = str(uuid4()) if whose == "nobody" else await room.image(await room.user("bob"))
    answer = await room.try_post(ada, {"image_ids": [image]})
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    async with room.house.runtimes["post"].database.engine.connect() as connection:
        rows = await connection.exec_driver_sql("SELECT count(*) FROM post.post WHERE author_id = $1", (ada,))
        assert rows.scalar_one() == 0


@pytest.mark.parametrize(
    "body", [{}, {"image_ids": []}, {"image_ids": ["x"]}, {"image_ids": [str(uuid4())], "caption": "x" * 2_201}]
)
async def test_a_body_that_cannot_be_is_422_with_its_fields(room: Any, body: dict[str, Any]) -> None:
    answer = await room.try_post(await room.user(), body)
    assert answer.status_code == 422
    assert answer.json()["errors"]


async def test_surrogates_and_nul_are_refused(room: Any) -> None:
    ada = await room.user()
    head = room.house.as_user(ada) | {"content-type": "application/json"}
    for escape in ("\\ud800", "\\u0000"):
        body = f'{{"image_ids": ["{uuid4()}"], "caption": "a{escape}b"}}'
        assert (await room.api.post("/v1/posts", content=body, headers=head)).status_code == 422


async def test_an_account_that_is_gone_cannot_post(room: Any) -> None:
    ada = await room.user()
    image = await room.image(ada)
    await room.house.redis.set(keys.user(ada), keys.TOMBSTONE)
    assert (await room.try_post(ada, {"image_ids": [image]})).status_code == 403


async def test_a_post_that_never_was_is_404(room: Any) -> None:
    ada = await room.user()
    assert (await room.get(f"/v1/posts/{new_id()}", ada)).status_code == 404
    assert (await room.get(f"/v1/posts/{uuid4()}", ada)).status_code == 404


async def test_nobody_reads_or_writes_without_a_token(room: Any) -> None:
    made = await room.post(await room.user())
    nobody = room.house.anonymous()
    for method, path in (
        ("GET", f"/v1/posts/{made['id']}"),
        ("PATCH", f"/v1/posts/{made['id']}"),
        ("DELETE", f"/v1/posts/{made['id']}"),
        ("POST", "/v1/posts"),
        ("GET", f"/v1/users/{made['author']['id']}/posts"),
        ("GET", "/v1/tags/dawn/posts"),
    ):
        answer = await room.api.request(method, path, headers=nobody, json={"caption": ""})
        assert answer.status_code == 401, path


async def test_users_do_not_reach_what_is_between_services(room: Any) -> None:
    answer = await room.api.post("/internal/posts/batch", headers=room.house.as_user(await room.user()))
    assert answer.status_code == 403


async def test_only_the_author_edits_and_deletes(room: Any) -> None:
    made = await room.post(await room.user(), "mine")
    bob = room.house.as_user(await room.user("bob"))
    path = f"/v1/posts/{made['id']}"
    assert (await room.api.patch(path, json={"caption": "taken"}, headers=bob)).status_code == 403
    assert (await room.api.delete(path, headers=bob)).status_code == 403
    assert (await room.api.get(path, headers=bob)).json()["caption"] == "mine"


async def test_an_edited_caption_is_read_at_once_and_changes_the_tags(room: Any) -> None:
    ada = await room.user()
    made = await room.post(ada, "#one and #two")
    path = f"/v1/posts/{made['id']}"
    answer = await room.api.patch(path, json={"caption": "#two and #three"}, headers=room.house.as_user(ada))
    assert answer.status_code == 200
    assert answer.json() == made | {"caption": "#two and #three"}
    for tag, expected in (("one", 0), ("two", 1), ("Three", 1)):
        page = (await room.get(f"/v1/tags/{tag}/posts", ada)).json()
        assert len(page["items"]) == expected, tag


async def test_of_two_edits_of_one_caption_the_second_is_told(room: Any) -> None:
    ada = await room.user()
    path, head = f"/v1/posts/{(await room.post(ada, 'first'))['id']}", room.house.as_user(ada)
    tag = (await room.get(path, ada)).headers["etag"]
    await room.activity.put(f"{path}/like", headers=room.house.as_user(await room.user("bob")))
    assert (await room.get(path, ada)).headers["etag"] == tag
    edits = [room.api.patch(path, json={"caption": text}, headers=head | {"If-Match": tag}) for text in ("a", "b")]
    answers = sorted(await asyncio.gather(*edits), key=lambda answer: answer.status_code)
    assert [answer.status_code for answer in answers] == [200, 412]
    now = await room.get(path, ada)
    assert (now.headers["etag"], now.json()["caption"]) == (answers[0].headers["etag"], answers[0].json()["caption"])
    late = await room.api.patch(
        path, json={"caption": "c"}, headers=head | {"If-Match": f"{tag}, {now.headers['etag']}"}
    )
    assert late.status_code == 200


async def test_edits_at_once_leave_the_blob_that_the_row_says(room: Any) -> None:
    ada = await room.user()
    made = await room.post(ada)
    path, head = f"/v1/posts/{made['id']}", room.house.as_user(ada)
    await asyncio.gather(*(room.api.patch(path, json={"caption": f"edit {n}"}, headers=head) for n in range(8)))
    cached = (await room.get(path, ada)).json()["caption"]
    await room.house.redis.delete(keys.post(UUID(made["id"])))
    assert (await room.get(path, ada)).json()["caption"] == cached


async def test_a_deleted_post_is_gone_for_good(room: Any) -> None:
    ada = await room.user()
    made = await room.post(ada, "#gone")
    path, head = f"/v1/posts/{made['id']}", room.house.as_user(ada)
    assert await room.timeline(ada, ada) == [made["id"]]
    assert (await room.api.delete(path, headers=head)).status_code == 204
    assert await room.house.redis.get(keys.post(UUID(made["id"]))) == keys.TOMBSTONE
    assert (await room.get(path, ada)).status_code == 404
    assert (await room.api.delete(path, headers=head)).status_code == 404
    assert (await room.api.patch(path, json={"caption": ""}, headers=head)).status_code == 404
    assert await room.timeline(ada, ada) == []
    assert (await room.get("/v1/tags/gone/posts", ada)).json()["items"] == []
    images = [UUID(image["id"]) for image in made["images"]]

    async def told() -> bool:
        expected = events.PostDeleted(post_id=UUID(made["id"]), author_id=ada, image_ids=images)
        return await _sent(room, "posts", events.PostDeleted, ada) == [expected]

    await eventually(told)


async def test_a_refill_that_read_before_the_deletion_does_not_bring_the_post_back(room: Any) -> None:
    ada = await room.user()
    post_id = UUID((await room.post(ada))["id"])
    late = await _blob(room, post_id)
    await room.house.redis.delete(keys.post(post_id))
    await room.api.delete(f"/v1/posts/{post_id}", headers=room.house.as_user(ada))
    cache = PostCache(room.house.runtimes["post"].valkey, 60)
    assert await cache.refill([late]) == {}
    await cache.put([late])
    assert await room.house.redis.get(keys.post(post_id)) == keys.TOMBSTONE


async def test_a_late_writer_does_not_overwrite_a_newer_post(room: Any) -> None:
    post_id = UUID((await room.post(await room.user()))["id"])
    old = await _blob(room, post_id)
    cache = PostCache(room.house.runtimes["post"].valkey, 60)
    newest, newer = [replace(old, caption=f"edit {n}", version=old.version + n) for n in (2, 1)]
    for blob in (newest, newer, old):
        await cache.put([blob])
        assert await _blob(room, post_id) == newest
    assert await cache.refill([old]) == {post_id.bytes: msgspec.msgpack.encode(newest)}


async def test_reads_and_deletion_at_once_leave_a_tombstone(room: Any) -> None:
    ada = await room.user()
    for _ in range(5):
        made = await room.post(ada)
        post_id = UUID(made["id"])
        await room.house.redis.delete(keys.post(post_id))
        asked = internal.Ids([post_id.bytes])
        await asyncio.gather(
            *(room.house.peers.call(internal.POSTS, asked) for _ in range(5)),
            room.api.delete(f"/v1/posts/{post_id}", headers=room.house.as_user(ada)),
            *(room.house.peers.call(internal.POSTS, asked) for _ in range(5)),
        )
        assert await room.house.redis.get(keys.post(post_id)) == keys.TOMBSTONE
        assert (await room.house.peers.call(internal.POSTS, asked)).blobs == {}


async def test_a_crash_before_the_tombstone_is_mended_by_the_event(room: Any) -> None:
    ada = await room.user()
    made = await room.post(ada)
    post_id = UUID(made["id"])
    async with room.house.runtimes["post"].database.transaction() as session:
        connection = await session.connection()
        await connection.exec_driver_sql("DELETE FROM post.post WHERE id = $1", (post_id,))
    event = events.PostDeleted(post_id=post_id, author_id=ada)
    await publish(room.house.redis, "posts", event.partition, events.encode(event))

    async def buried() -> bool:
        return bool(await room.house.redis.get(keys.post(post_id)) == keys.TOMBSTONE)

    await eventually(buried)


async def test_a_repeated_post_is_made_once(room: Any) -> None:
    ada = await room.user()
    body = {"image_ids": [await room.image(ada)], "caption": "once"}
    answers = await asyncio.gather(*(room.try_post(ada, body, "key-1") for _ in range(5)))
    assert {answer.status_code for answer in answers} <= {201, 409}
    again = await room.try_post(ada, body, "key-1")
    assert again.status_code == 201
    assert await room.timeline(ada, ada) == [again.json()["id"]]
    other = await room.try_post(ada, body | {"caption": "twice"}, "key-1")
    assert other.status_code == 422


async def test_an_attempt_whose_answer_was_lost_is_not_made_again(room: Any) -> None:
    ada = await room.user()
    body = {"image_ids": [await room.image(ada)]}
    first = (await room.try_post(ada, body, "key-1")).json()
    [record] = [key async for key in room.house.redis.scan_iter(b"idempotency:*")]
    await room.house.redis.hdel(record, "answer")
    await room.house.redis.hset(record, "until", 0)  # as after a crash past the commit
    assert (await room.try_post(ada, body, "key-1")).json() == first
    assert await room.timeline(ada, ada) == [first["id"]]


async def test_variants_appear_when_the_image_is_ready(room: Any) -> None:
    ada = await room.user()
    made = await room.post(ada)
    assert made["images"][0]["variants"] is None
    await room.house.start("image-worker", image_processes=1, image_process_mib=400, spool_dir=room.spool)

    async def shown() -> bool:
        read = (await room.get(f"/v1/posts/{made['id']}", ada)).json()
        return bool(read["images"][0]["variants"])

    await eventually(shown)
    variants = (await room.get(f"/v1/posts/{made['id']}", ada)).json()["images"][0]["variants"]
    assert variants["url"].startswith("/v1/media/")


async def test_a_deleted_account_takes_its_posts_along(room: Any) -> None:
    ada, bob = await room.user(), await room.user("bob")
    gone = [(await room.post(ada))["id"] for _ in range(3)]
    kept = await room.post(bob)
    await room.rows(ada, 120)
    event = events.AccountDeleted(user_id=ada)
    await publish(room.house.redis, "accounts", event.partition, events.encode(event))

    async def empty() -> bool:
        return not await room.timeline(ada, bob)

    await eventually(empty)
    for post_id in gone:
        assert (await room.get(f"/v1/posts/{post_id}", bob)).status_code == 404
    assert (await room.get(f"/v1/posts/{kept['id']}", bob)).status_code == 200
