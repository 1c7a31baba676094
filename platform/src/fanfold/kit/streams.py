"""Consumers of partitioned streams: groups, claims of stuck messages, bounded retries, dead letters."""

from __future__ import annotations

import asyncio
import math
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from fanfold.contracts import events, keys
from fanfold.kit import metrics
from fanfold.kit.logging import get_logger, request_id

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

    from redis.asyncio import Redis

log = get_logger(__name__)

BLOCK_MS: Final = 1_000
COUNT: Final = 32
CLAIM_IDLE_MS: Final = 30_000
"""A message this long with one consumer belongs to a crashed one; a live one says every third of it that it works."""
MAX_ATTEMPTS: Final = 5
RETRY_SECONDS: Final = (0.1, 0.5, 2.0)
"""Pauses between attempts within one delivery; then the message waits for its claim."""
DEAD_LETTERS_LIMIT: Final = 10_000


class Consumer:
    """One member of a consumer group over all partitions of one topic.

    Messages of a partition are handled one after the other, partitions side by side. The handler must be idempotent:
    delivery is at least once.

    Args:
        redis: redis-py client (blocking reads take a connection of their own from its pool).
        topic: One of `events.TOPICS`, or a topic of the room's own.
        group: Name of the group; the component's name.
        name: Unique in the group; the replica's name.
        handle: Called with the raw payload. Any exception counts as one failed attempt.
        partitions: Streams of the topic.
        count: Messages one read takes from a partition: few, where they are large or slow.
    """

    def __init__(  # noqa: PLR0913 - keyword-only wiring
        self,
        redis: Redis,
        *,
        topic: str,
        group: str,
        name: str,
        handle: Callable[[bytes], Awaitable[None]],
        partitions: int = events.PARTITIONS,
        count: int = COUNT,
    ) -> None:
        self._redis: Any = redis  # redis-py types answers as unions of all protocols; ours are RESP2 with bytes
        self._topic = topic
        self._group = group
        self._name = name
        self._handle = handle
        self._count_read = count
        self._streams = [keys.stream(topic, partition) for partition in range(partitions)]

    async def run(self) -> None:
        """Until cancelled. Losing Valkey is waited out."""
        async with asyncio.TaskGroup() as tasks:
            for stream in self._streams:
                tasks.create_task(self._consume(stream))

    async def _consume(self, stream: bytes) -> None:
        next_claim = 0.0
        task = asyncio.current_task()
        # Before Python 3.12 asyncio.wait_for, which redis-py writes with, may swallow a cancellation.
        while task is None or not task.cancelling():
            try:
                if time.monotonic() >= next_claim:
                    await self._ensure_group(stream)
                    await self._claim(stream)
                    next_claim = time.monotonic() + CLAIM_IDLE_MS / 1000 / 3
                read = await self._redis.xreadgroup(
                    self._group, self._name, {stream: ">"}, count=self._count_read, block=BLOCK_MS
                )
                await self._deliver_all(stream, _messages(read))
            except (RedisConnectionError, RedisTimeoutError, OSError) as error:
                log.warning("stream_unavailable", stream=stream.decode(), error=str(error))
                await asyncio.sleep(1)
            except ResponseError as error:
                # NOGROUP: the server lost its data; the group is made again and the outbox goes on.
                log.warning("stream_refused", stream=stream.decode(), error=str(error))
                next_claim = 0.0
                await asyncio.sleep(1)

    async def _ensure_group(self, stream: bytes) -> None:
        try:
            await self._redis.xgroup_create(stream, self._group, id="0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise

    async def _claim(self, stream: bytes) -> None:
        """Take over messages of consumers that died, and give up those that failed too often."""
        pending = await self._redis.xpending_range(
            stream, self._group, min="-", max="+", count=COUNT, idle=CLAIM_IDLE_MS
        )
        attempts = {entry["message_id"]: entry["times_delivered"] for entry in pending}
        if not attempts:
            return
        claimed = await self._redis.xclaim(stream, self._group, self._name, CLAIM_IDLE_MS, list(attempts))
        alive = []
        for message_id, fields in claimed:
            if attempts[message_id] >= MAX_ATTEMPTS:
                await self._bury(stream, message_id, fields, f"given up after {attempts[message_id]} deliveries")
            else:
                alive.append((message_id, fields))
        await self._deliver_all(stream, alive)

    async def _deliver_all(self, stream: bytes, messages: list[tuple[bytes, dict[bytes, bytes]]]) -> None:
        if not messages:
            return
        message_ids = [message_id for message_id, _ in messages]
        holding = asyncio.create_task(self._hold(stream, message_ids))
        try:
            for message_id, fields in messages:
                await self._deliver(stream, message_id, fields)
        finally:
            holding.cancel()

    async def _hold(self, stream: bytes, message_ids: list[bytes]) -> None:
        """Say that these messages are being worked on, as long as this consumer lives; JUSTID counts no delivery."""
        while True:
            await asyncio.sleep(CLAIM_IDLE_MS / 1000 / 3)
            with suppress(RedisError, OSError):  # the next beat comes before anybody may claim them
                await self._redis.xclaim(stream, self._group, self._name, 0, message_ids, justid=True)

    async def _deliver(self, stream: bytes, message_id: bytes, fields: dict[bytes, bytes]) -> None:
        token = request_id.set(fields.get(b"request_id", b"").decode())
        try:
            await self._attempt(stream, message_id, fields)
        finally:
            request_id.reset(token)

    async def _attempt(self, stream: bytes, message_id: bytes, fields: dict[bytes, bytes]) -> None:
        for pause in (*RETRY_SECONDS, None):
            try:
                with metrics.EVENT_SECONDS.labels(self._topic, self._group).time():
                    await self._handle(fields[b"event"])
            except PoisonError as error:
                await self._bury(stream, message_id, fields, str(error))
                return
            except Exception as error:  # noqa: BLE001 - whatever a handler raises is one failed attempt
                self._count("retried")
                log.warning("event_failed", stream=stream.decode(), id=message_id.decode(), error=repr(error))
                if pause is None:
                    return  # stays pending; claimed again after CLAIM_IDLE_MS
                await asyncio.sleep(pause)
            else:
                await self._redis.xack(stream, self._group, message_id)
                self._count("done")
                age = time.time() - int(message_id.split(b"-")[0]) / 1000
                metrics.EVENT_AGE.labels(self._topic, self._group).observe(max(0.0, age))
                return

    async def _bury(self, stream: bytes, message_id: bytes, fields: dict[bytes, bytes], reason: str) -> None:
        letter: dict[Any, Any] = {**fields, b"reason": reason, b"stream": stream, b"group": self._group}
        await self._redis.xadd(keys.dead_letters(self._topic), letter, maxlen=DEAD_LETTERS_LIMIT)
        await self._redis.xack(stream, self._group, message_id)
        self._count("dead")
        log.error("event_buried", stream=stream.decode(), id=message_id.decode(), reason=reason)

    def _count(self, outcome: str) -> None:
        metrics.EVENTS_HANDLED.labels(self._topic, self._group, outcome).inc()


class PoisonError(Exception):
    """Raised by a handler for a message that no retry can mend: it goes to the dead letters at once."""


def of_events(handle: Callable[[events.AnyEvent], Awaitable[None]]) -> Callable[[bytes], Awaitable[None]]:
    """A `Consumer` handler from one that takes events; what is none goes to the dead letters at once."""

    async def decode_and_handle(payload: bytes) -> None:
        try:
            event = events.decode(payload)
        except msgspec.DecodeError as error:
            raise PoisonError(f"not an event this version knows: {error}") from error
        await handle(event)

    return decode_and_handle


def _messages(read: Any) -> list[tuple[bytes, dict[bytes, bytes]]]:
    """Messages of a one-stream XREADGROUP answer: a list of pairs in RESP2, None when the wait ended empty."""
    return list(read[0][1]) if read else []


async def publish(redis: Redis, topic: str, partition: int, payload: bytes) -> None:
    """Put one message of a room's own on a stream (events go through the outbox)."""
    fields: dict[Any, Any] = {b"event": payload, b"request_id": request_id.get()}
    await redis.xadd(keys.stream(topic, partition), fields)


async def trim_acknowledged(
    redis: Any, topic: str, partitions: int = events.PARTITIONS, required: Collection[str] = ()
) -> int:
    """Delete messages that every group of the topic has acknowledged; how many were deleted.

    A stream that lacks one of the ``required`` groups is left alone: the group has not started yet and needs all.
    """
    removed = 0
    for partition in range(partitions):
        stream = keys.stream(topic, partition)
        with suppress(ResponseError):  # no such stream yet
            floor = await _acknowledged_floor(redis, stream, required)
            if floor is not None:
                removed += await redis.xtrim(stream, minid=floor, approximate=False)
    return removed


async def _acknowledged_floor(redis: Any, stream: bytes, required: Collection[str]) -> bytes | None:
    """Lowest id that some group still needs; None when a group is missing (then nothing may go)."""
    groups = await redis.xinfo_groups(stream)
    if not {name.encode() for name in required} <= {group["name"] for group in groups}:
        return None
    floors = []
    for group in groups:
        pending = await redis.xpending(stream, group["name"])
        if pending["pending"]:
            floors.append(pending["min"])
        else:
            milliseconds, sequence = group["last-delivered-id"].split(b"-")
            floors.append(b"%b-%d" % (milliseconds, int(sequence) + 1))
    return min(floors, key=_order, default=None)


@dataclass(frozen=True, slots=True)
class Backlog:
    """What a group has not acknowledged.

    Attributes:
        messages: How many, delivered or not.
        oldest_ms: Unix milliseconds at which the oldest was added; infinity when there is none.
    """

    messages: int = 0
    oldest_ms: float = math.inf

    def __add__(self, other: Backlog) -> Backlog:
        return Backlog(self.messages + other.messages, min(self.oldest_ms, other.oldest_ms))

    def oldest_seconds(self) -> float:
        """Age of the oldest; 0 when there is none."""
        return max(0.0, time.time() - self.oldest_ms / 1000)


async def backlog(redis: Any, topic: str, group: str, partitions: int = events.PARTITIONS) -> Backlog:
    """What ``group`` has not acknowledged of ``topic``, over all partitions."""
    waiting = Backlog()
    for partition in range(partitions):
        stream = keys.stream(topic, partition)
        with suppress(ResponseError):  # no such stream yet
            for known in await redis.xinfo_groups(stream):
                if known["name"] == group.encode():
                    waiting += Backlog(await _unread(redis, stream, known), await _oldest_ms(redis, stream, known))
    return waiting


async def _unread(redis: Any, stream: bytes, group: dict[str, Any]) -> int:
    """Messages under way or not delivered yet. Where the server lost count, the whole stream: never too few."""
    lag = group.get("lag")
    return int(group["pending"] + lag if lag is not None else await redis.xlen(stream))


async def _oldest_ms(redis: Any, stream: bytes, group: dict[str, Any]) -> float:
    if group["pending"]:
        oldest = (await redis.xpending(stream, group["name"]))["min"]
        if oldest is not None:  # else all were acknowledged since the group was asked for
            return _order(oldest)[0]
    waiting = await redis.xrange(stream, min=b"(" + group["last-delivered-id"], count=1)
    return _order(waiting[0][0])[0] if waiting else math.inf


def _order(message_id: bytes) -> tuple[int, ...]:
    return tuple(int(part) for part in message_id.split(b"-"))


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One message given up on."""

    id: str
    stream: str
    group: str
    reason: str


async def list_dead(redis: Any, topic: str, limit: int) -> list[DeadLetter]:
    """The newest ``limit`` dead letters of a topic, newest first."""
    entries = await redis.xrevrange(keys.dead_letters(topic), count=limit)
    return [
        DeadLetter(
            id=letter_id.decode(),
            stream=fields[b"stream"].decode(),
            group=fields[b"group"].decode(),
            reason=fields[b"reason"].decode(),
        )
        for letter_id, fields in entries
    ]


async def replay_dead(redis: Any, topic: str, limit: int) -> int:
    """Put the oldest ``limit`` letters back, added before removed: perhaps twice, never lost; how many."""
    key = keys.dead_letters(topic)
    entries = await redis.xrange(key, count=limit)
    for letter_id, fields in entries:
        message = {name: fields[name] for name in (b"event", b"request_id") if name in fields}
        async with redis.pipeline(transaction=False) as pipe:  # two keys: two slots on a cluster, so add before delete
            pipe.xadd(fields[b"stream"], message)
            pipe.xdel(key, letter_id)
            await pipe.execute()
    return len(entries)


async def count_dead(redis: Any, topic: str) -> int:
    """How many dead letters a topic has."""
    count: int = await redis.xlen(keys.dead_letters(topic))
    return count


async def drop_dead(redis: Any, topic: str) -> int:
    """Delete all dead letters of a topic; how many there were."""
    key = keys.dead_letters(topic)
    count: int = await redis.xlen(key)
    await redis.delete(key)
    return count
