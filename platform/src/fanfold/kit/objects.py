"""The S3 object store: the blocking minio client behind an async face, in threads of its own, never whole in memory."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO, Final, TypeVar
from urllib.parse import urlsplit

import stamina
import urllib3
from minio import Minio
from minio.datatypes import PostPolicy
from minio.deleteobjects import DeleteObject
from minio.error import MinioException, S3Error

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable
    from pathlib import Path

    from fanfold.kit.settings import ObjectStoreSettings

Answer = TypeVar("Answer")

THREADS: Final = 32
"""Calls under way at once; more wait. A streamed read holds a thread only while it waits for a chunk."""
CHUNK: Final = 256 << 10
IMMUTABLE: Final = "public, max-age=31536000, immutable"
"""Cache-Control of objects that never change (RFC 8246); a year is the longest that caches are asked to keep."""
_ABSENT: Final = ("NoSuchKey", "NoSuchObject", "NotFound")


class ObjectStoreError(Exception):
    """The store does not answer or refused; the message names the call. Nothing is known about its effect."""


class ObjectMissingError(ObjectStoreError):
    """No object has this key."""


class ObjectTooLargeError(ObjectStoreError):
    """The object is larger than the reader's limit."""


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What the store tells of an object without its bytes."""

    size: int
    content_type: str


@dataclass(frozen=True, slots=True)
class PresignedPost:
    """A form that lets its holder put one object: POST multipart ``fields``, then the file, to ``url``."""

    url: str
    fields: dict[str, str]


def connect(settings: ObjectStoreSettings) -> Minio:
    """A client with bounded waits.

    Raises:
        SettingsError: A key is missing.
    """
    endpoint = urlsplit(settings.s3_endpoint)
    return Minio(
        endpoint.netloc,
        access_key=settings.secrets.read("s3_access_key"),
        secret_key=settings.secrets.read("s3_secret_key"),
        secure=endpoint.scheme == "https",
        region=settings.s3_region,
        http_client=urllib3.PoolManager(
            maxsize=THREADS, timeout=urllib3.Timeout(connect=2, read=30), retries=urllib3.Retry(3, backoff_factor=0.2)
        ),
    )


def ensure_bucket(settings: ObjectStoreSettings) -> None:
    """Make the bucket if it is not there; waits out a store that is just starting, for at most 60 s."""
    client = connect(settings)
    for attempt in stamina.retry_context(on=(urllib3.exceptions.HTTPError, S3Error), timeout=60, attempts=30):
        with attempt:
            if not client.bucket_exists(settings.s3_bucket):
                client.make_bucket(settings.s3_bucket)


class ObjectStore:
    """One bucket. Every call waits in a thread of this store's own pool, so that the event loop stays free.

    All methods raise `ObjectStoreError` when the store does not answer or refuses.
    """

    def __init__(self, settings: ObjectStoreSettings) -> None:
        self._client = connect(settings)
        self._bucket = settings.s3_bucket
        self._public = (settings.s3_public_endpoint or settings.s3_endpoint).rstrip("/")
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="objects")

    async def _call(self, what: str, call: Callable[[], Answer]) -> Answer:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, call)
        except S3Error as error:
            if error.code in _ABSENT:
                raise ObjectMissingError(f"{what}: there is no such object") from error
            raise ObjectStoreError(f"{what}: {error.code}: {error.message}") from error
        except (MinioException, urllib3.exceptions.HTTPError, OSError) as error:
            raise ObjectStoreError(f"{what}: {error}") from error

    async def ping(self) -> None:
        """One round trip; also fails when the bucket is missing."""
        if not await self._call("look for the bucket", lambda: self._client.bucket_exists(self._bucket)):
            raise ObjectStoreError(f"the bucket {self._bucket} does not exist: run `fanfold migrate`")

    async def put_file(self, key: str, path: Path, content_type: str, cache_control: str = "") -> None:
        """Store a file under ``key``, replacing what was there."""
        metadata: Any = {"Cache-Control": cache_control} if cache_control else None
        await self._call(
            f"put {key}",
            lambda: self._client.fput_object(
                self._bucket, key, str(path), content_type=content_type, metadata=metadata
            ),
        )

    async def stat(self, key: str) -> ObjectInfo:
        """Size in bytes and type.

        Raises:
            ObjectMissingError: No such object.
        """
        found = await self._call(f"stat {key}", lambda: self._client.stat_object(self._bucket, key))
        return ObjectInfo(size=found.size or 0, content_type=found.content_type or "application/octet-stream")

    async def open(self, key: str, offset: int = 0, length: int = 0) -> ObjectReader:
        """Begin to read ``length`` bytes from ``offset`` (0: to the end). The caller closes or drains the reader.

        Raises:
            ObjectMissingError: No such object.
        """
        response = await self._call(f"get {key}", lambda: self._client.get_object(self._bucket, key, offset, length))
        return ObjectReader(self, key, response)

    async def download(self, key: str, file: BinaryIO, limit: int) -> None:
        """Write an object to an open file, which is flushed at the end.

        Raises:
            ObjectMissingError: No such object.
            ObjectTooLargeError: It has more than ``limit`` bytes; nothing is written.
        """
        reader = await self.open(key)
        if reader.size > limit:
            await reader.close()
            raise ObjectTooLargeError(f"get {key}: {reader.size} bytes are over the limit of {limit}")
        async for chunk in reader:
            await self._call(f"write {key}", partial(file.write, chunk))
        await self._call(f"write {key}", file.flush)

    async def list_keys(self, prefix: str) -> list[str]:
        """Keys that begin with ``prefix``; for prefixes with few objects."""

        def names() -> list[str]:
            found = self._client.list_objects(self._bucket, prefix=prefix, recursive=True)
            return [item.object_name for item in found if item.object_name]

        return await self._call(f"list {prefix}", names)

    async def delete(self, keys: Iterable[str]) -> None:
        """Delete objects; those that do not exist are no error."""
        doomed = [DeleteObject(key) for key in keys]

        def remove() -> list[Any]:
            return list(self._client.remove_objects(self._bucket, doomed))

        failed = await self._call(f"delete {len(doomed)} objects", remove) if doomed else []
        if failed:
            raise ObjectStoreError(f"delete {failed[0].name}: {failed[0].message}")

    def presigned_post(self, key: str, lifetime: timedelta, limit: int) -> PresignedPost:
        """A form for putting ``key``, at most ``limit`` bytes, until ``lifetime`` is over; signed without the host."""
        policy = PostPolicy(self._bucket, datetime.now(UTC) + lifetime)
        policy.add_equals_condition("key", key)
        policy.add_content_length_range_condition(1, limit)
        fields = self._client.presigned_post_policy(policy)
        return PresignedPost(url=f"{self._public}/{self._bucket}", fields={"key": key, **fields})

    async def close(self) -> None:
        """Let calls under way end, drop those that wait."""
        await asyncio.to_thread(self._threads.shutdown, cancel_futures=True)


class ObjectReader:
    """An object being read: iterate once. The next chunk is fetched when asked for, so a slow reader slows the store.

    Attributes:
        size: Bytes that will come.
        content_type: As stored.
    """

    def __init__(self, store: ObjectStore, key: str, response: Any) -> None:
        self._store = store
        self._key = key
        self._response = response
        self.size = int(response.headers.get("content-length", 0))
        self.content_type: str = response.headers.get("content-type", "application/octet-stream")

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = self.size
        try:
            while left > 0:
                chunk: bytes = await self._store._call(f"get {self._key}", lambda: self._response.read(CHUNK))  # noqa: SLF001 - one unit
                if not chunk:
                    raise ObjectStoreError(f"get {self._key}: {left} bytes are missing")
                left -= len(chunk)
                yield chunk
            self._response.release_conn()  # drained: the connection can serve again
        finally:
            await self.close()

    async def close(self) -> None:
        """Give the connection back; an undrained one is cut."""
        await asyncio.to_thread(self._response.close)
