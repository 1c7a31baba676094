"""A post's way to its followers through the real queue, beside two ways to do the same; what feeds cost and take.

    uv run python benchmarks/fanout.py

The follow, post and feed services and one fan-out worker as processes, with real PostgreSQL and Valkey. Beside the
queue: what feeds mostly are, sorted sets, written by pipelined commands straight to Valkey, and by one job per follower
on a stream, as a task queue would have it. All feeds are warm and full unless it is said otherwise.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import asyncpg
import httpx
import msgspec
import uvloop
from common.feeds import write
from common.house import House, stopping
from common.processes import Workshop, spending
from common.results import save, say, summary

from fanfold.contracts import events, headers, keys
from fanfold.contracts.blobs import UserBlob
from fanfold.contracts.ids import id_millis, new_id
from fanfold.dev.postgres import Postgres
from fanfold.feed.jobs import LANES
from fanfold.feed.stored import build
from fanfold.kit.identity import Identity, IdentitySigner
from fanfold.kit.migrations import upgrade
from fanfold.kit.streams import backlog, publish
from fanfold.kit.valkey import Valkey, redis_client

if TYPE_CHECKING:
    from common.house import Component

LENGTH: Final = 20
BUILT: Final = b"1700000000000000"
"""Tick at which the feeds were built: before any push."""
BATCH: Final = 500
JOBS: Final = 4_000
"""Followers of the way with one job each: enough to see its pace."""
FOLLOWEES: Final = (100, 1_000, 5_000)
POSTS_EACH: Final = 20
GROUP: Final = "feed-worker"
TOPICS: Final = ("posts", *LANES)
STREAMS: Final = [keys.stream(topic, partition) for topic in TOPICS for partition in range(events.PARTITIONS)]
SETTLED_SECONDS: Final = 300
LOOK_SECONDS: Final = 0.02
"""Between two looks at the streams: each look asks 24 of them, and takes the server's time from what is measured."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--followers", type=int, default=20_000, help="of the author who is pushed (default 20,000)")
    parser.add_argument("--crowd", type=int, default=1_000_000, help="followers of the celebrity (default 1,000,000)")
    parser.add_argument("--warm", type=int, default=100_000, help="of them with a warm feed (default 100,000)")
    parser.add_argument("--posts", type=int, default=10, help="of that author under way at once (default 10)")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds (default 5)")
    options = parser.parse_args()
    with Workshop() as shop:
        figures = Bench(shop, options).measure()
    crowd, pushed = options.crowd, options.followers
    notes = [
        f"{pushed:,} followers with warm, full feeds of {LENGTH}. The large lane is not paced where ways are compared.",
        f"Through the queue go {options.posts} posts at once, so that its steps overlap as they do under load.",
        "CPU of a delivery: what the kernel counted for each process, reads of followers included.",
        f"One job per follower: {JOBS:,} of them, each a pipeline and an acknowledgement, 100 read at once.",
        f"The crowd: {crowd:,} followers, {options.warm:,} with a warm feed; the large lane at its usual pace.",
        "Pull: a reader asks again and again until the post is there; the longest of all counts.",
        "A cold read is the whole request: followees, their newest posts, the feed's key, and the posts as JSON.",
    ]
    say(str(save("fanout", figures, notes=notes)))


class Bench:
    """All that is measured, running."""

    def __init__(self, shop: Workshop, options: argparse.Namespace) -> None:
        self._options = options
        self._house = House(shop)
        self._hops = {"valkey": self._house.start_valkey()}
        postgres = Postgres(shop.folder / "postgres", "bench", durable=False)
        postgres.start()
        shop.keep(stopping(postgres))
        postgres.wait()
        self._hops["postgresql"] = postgres.process.pid
        (self._house.secrets / "database_url").write_text(postgres.url)
        self._database_url = postgres.url
        for room in ("follow", "post"):
            upgrade(room, postgres.url)
        self._signer = IdentitySigner((self._house.secrets / "identity_key").read_text())
        self._peers: dict[str, str] = {}
        self._shop = shop

    def measure(self) -> dict[str, Any]:
        for name in ("follow", "post", "feed"):
            started = self._start(name)
            self._peers[name] = f"http://127.0.0.1:{started.port}"
            self._hops[name] = started.pid
        # So many followers make a celebrity, whose posts are not pushed unless it is asked for.
        worker = self._start("feed-worker", large_lane_rate=1_000_000_000, celebrity_mode="batched")
        self._hops["feed-worker"] = worker.pid
        figures: dict[str, Any] = uvloop.run(self._deliveries())
        figures["cold_read_ms"] = uvloop.run(self._rebuilds())
        worker.process.stop()
        worker = self._start("feed-worker", instance="feed-worker-1", celebrity_mode="batched")
        author, batched = uvloop.run(self._crowd())
        figures["last_follower"] = {"batched_seconds": batched}
        worker.process.stop()
        self._start("feed-worker", instance="feed-worker-2")
        figures["last_follower"]["pull_seconds"] = uvloop.run(self._pulled(author))
        return figures

    def _start(self, name: str, **settings: Any) -> Component:
        return self._house.start(name, peers=self._peers, **settings)

    async def _deliveries(self) -> dict[str, Any]:
        """Deliveries a second by each way; memory of a feed."""
        author, readers = new_id(), [new_id() for _ in range(self._options.followers)]
        await self._follow(readers, author)
        valkey, redis = Valkey(self._house.valkey_url), redis_client(self._house.valkey_url)
        before = (await redis.info("memory"))["used_memory"]
        await warm(valkey, readers)
        after = (await redis.info("memory"))["used_memory"]
        await warm_sets(valkey, readers)
        rates: dict[str, list[float]] = {"queue": [], "pipelined": [], "jobs": []}
        budgets: list[dict[str, float]] = []
        await joined(redis)
        for number in range(self._options.rounds + 1):
            queue, budget = await self._through_queue(redis, author, readers)
            found = {
                "queue": queue,
                "pipelined": await pipelined(valkey, readers),
                "jobs": await jobs(redis, readers[:JOBS]),
            }
            say(f"round {number}: { ({name: round(rate) for name, rate in found.items()}) } deliveries a second")
            for name, rate in found.items() if number else ():  # the first warms up
                rates[name].append(rate)
            budgets += [budget] if number else []
        await valkey.close()
        await redis.aclose()
        return {
            "deliveries": {name: summary(values) for name, values in rates.items()},
            "budget_us": {name: summary([one[name] for one in budgets]) for name in budgets[0]},
            "feed_bytes": (after - before) / len(readers),
        }

    async def _through_queue(self, redis: Any, author: UUID, readers: Sequence[UUID]) -> tuple[float, dict[str, float]]:
        """Deliveries a second, and CPU microseconds of each by process."""
        posts = [new_id() for _ in range(self._options.posts)]
        with spending(self._hops) as spent:
            began = time.perf_counter()
            for post in posts:
                await announce(redis, post, author)
            await settled(redis)
            took = time.perf_counter() - began
        for reader in readers[:: max(1, len(readers) // 200)]:
            for post in posts:
                assert await redis.lpos(keys.feed(reader), post.bytes + author.bytes) is not None, "not delivered"
        count = len(posts) * len(readers)
        return count / took, {name: 1e6 * one / count for name, one in spent.items()}

    async def _rebuilds(self) -> dict[str, dict[str, float]]:
        """Milliseconds of a cold read by number of followees."""
        authors = [new_id() for _ in range(max(FOLLOWEES))]
        now = datetime.now(UTC)
        posts = [(new_id(), author, "", now, 1) for _ in range(POSTS_EACH) for author in authors]
        connection = await asyncpg.connect(self._database_url.replace("+asyncpg", ""))
        columns = ["id", "author_id", "caption", "created_at", "version"]
        await connection.copy_records_to_table("post", schema_name="post", records=posts, columns=columns)
        readers = {count: new_id() for count in FOLLOWEES}
        for count, reader in readers.items():
            for author in authors[:count]:
                await _copy_follows(connection, [(reader, author, new_id(), now)])
        await connection.execute("ANALYZE")
        await connection.close()
        redis = redis_client(self._house.valkey_url)
        for user in authors:
            await redis.set(keys.user(user), msgspec.msgpack.encode(UserBlob(user.bytes, "somebody", "Somebody", "")))
        found: dict[str, dict[str, float]] = {}
        async with httpx.AsyncClient(base_url=self._peers["feed"], timeout=30) as client:
            for count, reader in readers.items():
                times = []
                for number in range(3 * self._options.rounds + 1):
                    await redis.unlink(keys.feed(reader))
                    began = time.perf_counter()
                    answer = await client.get("/v1/feed", headers=self._as(reader))
                    took = 1_000 * (time.perf_counter() - began)
                    assert len(answer.json()["items"]) == LENGTH, answer.text
                    times += [took] if number else []
                found[str(count)] = summary(times)
                say(f"cold read with {count} followees: {found[str(count)]}")
        await redis.aclose()
        return found

    async def _crowd(self) -> tuple[UUID, dict[str, float]]:
        """A celebrity with a crowd; seconds until the last warm feed has a post that is pushed in batches."""
        author, crowd = new_id(), [new_id() for _ in range(self._options.crowd)]
        await self._follow(crowd, author)
        valkey, redis = Valkey(self._house.valkey_url), redis_client(self._house.valkey_url)
        await warm(valkey, crowd[:: max(1, len(crowd) // self._options.warm)])
        times = []
        for _ in range(max(1, self._options.rounds - 2)):
            post = new_id()
            began = time.perf_counter()
            await announce(redis, post, author)
            await settled(redis)
            times.append(time.perf_counter() - began)
            say(f"batched to {len(crowd):,}: {times[-1]:.1f} s")
        await valkey.close()
        await redis.aclose()
        return author, summary(times)

    async def _pulled(self, author: UUID) -> dict[str, float]:
        """Seconds until a reader sees a post that is folded in."""
        reader = new_id()
        await self._follow([reader], author)
        redis = redis_client(self._house.valkey_url)
        await redis.set(keys.user(author), msgspec.msgpack.encode(UserBlob(author.bytes, "celebrity", "Celebrity", "")))
        times = []
        connection = await asyncpg.connect(self._database_url.replace("+asyncpg", ""))
        async with httpx.AsyncClient(base_url=self._peers["feed"], timeout=30) as client:
            await client.get("/v1/feed", headers=self._as(reader))
            for _ in range(3 * self._options.rounds):
                post = new_id()
                row = [(post, author, "", datetime.now(UTC), 1)]
                columns = ["id", "author_id", "caption", "created_at", "version"]
                await connection.copy_records_to_table("post", schema_name="post", records=row, columns=columns)
                began = time.perf_counter()
                await announce(redis, post, author)
                seen: list[str] = []
                while str(post) not in seen:
                    assert time.perf_counter() - began < SETTLED_SECONDS, "the post is not seen"
                    page = (await client.get("/v1/feed", headers=self._as(reader))).json()
                    seen = [item["id"] for item in page["items"]]
                times.append(time.perf_counter() - began)
        await connection.close()
        await redis.aclose()
        say(f"pulled: {summary(times)}")
        return summary(times)

    async def _follow(self, followers: Sequence[UUID], author: UUID) -> None:
        connection = await asyncpg.connect(self._database_url.replace("+asyncpg", ""))
        now = datetime.now(UTC)
        await _copy_follows(connection, [(follower, author, new_id(), now) for follower in followers])
        await connection.execute("ANALYZE follow.follow, follow.follower")
        await connection.close()

    def _as(self, user: UUID) -> dict[str, str]:
        return {headers.IDENTITY: self._signer.sign(Identity(user_id=user, session_id=new_id()))}


async def _copy_follows(connection: Any, rows: Sequence[tuple[UUID, UUID, UUID, datetime]]) -> None:
    columns = ["follower_id", "followee_id", "id", "created_at"]
    await connection.copy_records_to_table("follow", schema_name="follow", records=rows, columns=columns)


async def announce(redis: Any, post: UUID, author: UUID) -> None:
    """What the relay does with a row of the outbox."""
    event = events.PostCreated(post_id=post, author_id=author)
    await publish(redis, event.topic, event.partition, events.encode(event))


async def joined(redis: Any) -> None:
    """Until the fan-out worker reads all its streams: a group that is not there yet has no backlog either."""
    async with asyncio.timeout(SETTLED_SECONDS):
        for stream in STREAMS:
            while not await redis.exists(stream) or not await redis.xinfo_groups(stream):  # noqa: ASYNC110 - a server
                await asyncio.sleep(0.05)


async def settled(redis: Any) -> None:
    """Until nothing waits for the fan-out worker.

    Streams are looked at one after another: that none had work counts only if nothing was added meanwhile, for work
    that is done makes more.
    """
    deadline = time.monotonic() + SETTLED_SECONDS
    while True:
        before = await _added(redis)
        waiting = [(await backlog(redis, topic, GROUP)).messages for topic in TOPICS]
        if not any(waiting) and before == await _added(redis):
            return
        assert time.monotonic() < deadline, f"{waiting} messages still wait"
        await asyncio.sleep(LOOK_SECONDS)


async def _added(redis: Any) -> int:
    return sum([(await redis.xinfo_stream(stream))["entries-added"] for stream in STREAMS])


async def warm(valkey: Valkey, readers: Sequence[UUID]) -> None:
    """Full feeds, built long ago."""
    feed = build([new_id().bytes + new_id().bytes for _ in range(LENGTH)], BUILT, LENGTH)
    await write(valkey, [("RPUSH", keys.feed(reader), *feed) for reader in readers])
    await write(valkey, [("SET", keys.rebuilt(number), BUILT) for number in range(keys.BUCKETS)])


def plain(reader: UUID) -> bytes:
    """Key of a feed as a sorted set."""
    return b"plain:" + reader.bytes


async def warm_sets(valkey: Valkey, readers: Sequence[UUID]) -> None:
    """The same feeds as sorted sets: posts scored by their time, above all a member scored by when it was built."""
    posts = [new_id().bytes + new_id().bytes for _ in range(LENGTH)]
    scored = [part for one in posts for part in (id_millis(UUID(bytes=one[:16])), one)]
    await write(valkey, [("ZADD", plain(reader), BUILT, keys.COMPLETE, *scored) for reader in readers])


async def pipelined(valkey: Valkey, readers: Sequence[UUID]) -> float:
    """Deliveries a second as pipelined commands: look whether the feed is warm and how old, add, cut."""
    post = new_id()
    member, score = post.bytes + new_id().bytes, id_millis(post)
    began = time.perf_counter()
    for start in range(0, len(readers), BATCH):
        feeds = [plain(reader) for reader in readers[start : start + BATCH]]
        tops = await valkey.all([("ZRANGE", feed, 0, 0, "REV", "WITHSCORES") for feed in feeds])
        writes: list[tuple[Any, ...]] = []
        for feed, top in zip(feeds, tops, strict=True):
            if top:
                writes += [("ZADD", feed, score, member), ("ZREMRANGEBYRANK", feed, 0, -(LENGTH + 2))]
        await valkey.all(writes)
    return len(readers) / (time.perf_counter() - began)


async def jobs(redis: Any, readers: Sequence[UUID]) -> float:
    """Deliveries a second with one job per follower: a message each, taken, done and acknowledged."""
    stream, group = "bench:jobs", "bench"
    await redis.delete(stream)
    await redis.xgroup_create(stream, group, id="0", mkstream=True)
    post = new_id()
    member, score = post.bytes + new_id().bytes, id_millis(post)
    began = time.perf_counter()
    for start in range(0, len(readers), BATCH):
        async with redis.pipeline(transaction=False) as pipe:
            for reader in readers[start : start + BATCH]:
                pipe.xadd(stream, {"reader": reader.bytes})
            await pipe.execute()
    done = 0
    while done < len(readers):
        [(_, messages)] = await redis.xreadgroup(group, "one", {stream: ">"}, count=100)
        for message_id, fields in messages:
            feed = plain(UUID(bytes=fields[b"reader"]))
            async with redis.pipeline(transaction=False) as pipe:
                pipe.zadd(feed, {member: score})
                pipe.zremrangebyrank(feed, 0, -(LENGTH + 2))
                pipe.xack(stream, group, message_id)
                await pipe.execute()
            done += 1
    return len(readers) / (time.perf_counter() - began)


if __name__ == "__main__":
    main()
