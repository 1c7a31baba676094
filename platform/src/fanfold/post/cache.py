"""Packed posts in Valkey. A newer one is not overwritten by an older, and a tombstone by nothing."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import msgspec

from fanfold.contracts import keys
from fanfold.contracts.blobs import ImageBlob, PostBlob
from fanfold.kit.valkey import Script

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from uuid import UUID

    from fanfold.kit.valkey import Valkey
    from fanfold.post.repository import Stored

TOMBSTONE_SECONDS: Final = 24 * 3600
"""Far longer than a refill that read the post before its deletion may take; after that the row is missed in SQL."""

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(PostBlob)

# KEYS: the post's. ARGV: what must be there (empty: nothing), the blob, seconds to live. Tombstones are never passed.
_SWAP = Script("""
local old = redis.call('GET', KEYS[1])
if old == '' or (old or '') ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
return 1
""")


def pack(stored: Stored, images: Mapping[bytes, ImageBlob]) -> PostBlob:
    """A post as readers see it; images that the image service does not know are left out."""
    post = stored.post
    return PostBlob(
        id=post.id.bytes,
        author_id=post.author_id.bytes,
        caption=post.caption,
        created_ms=int(post.created_at.timestamp() * 1000),
        images=[
            msgspec.structs.replace(images[shown.image_id.bytes], alt_text=shown.alt_text)
            for shown in stored.images
            if shown.image_id.bytes in images
        ],
        edited_ms=int(post.edited_at.timestamp() * 1000) if post.edited_at else 0,
        version=post.version,
    )


class PostCache:
    """Packed posts by id.

    Args:
        valkey: Where they are.
        seconds: Their time to live.
    """

    def __init__(self, valkey: Valkey, seconds: int) -> None:
        self._valkey = valkey
        self._seconds = seconds

    async def read(self, post_id: UUID) -> bytes | None:
        """The packed post or `keys.TOMBSTONE`; None when it is not here."""
        value: bytes | None = await self._valkey.execute("GET", keys.post(post_id))
        return value

    async def put(self, blobs: Sequence[PostBlob]) -> None:
        """Write posts that changed, unless something newer is there."""
        await asyncio.gather(*(self._put(blob) for blob in blobs))

    async def _put(self, blob: PostBlob) -> None:
        key, value = keys.POST + blob.id, _encoder.encode(blob)
        old: bytes | None = await self._valkey.execute("GET", key)
        while old is None or (old != keys.TOMBSTONE and _decoder.decode(old).version <= blob.version):
            if await self._valkey.script(_SWAP, [key], [old or b"", value, self._seconds]):
                return
            old = await self._valkey.execute("GET", key)

    async def refill(self, blobs: Sequence[PostBlob]) -> dict[bytes, bytes]:
        """Write posts that were missing; what is there now by id, which may be newer. Deleted ones are left out."""
        if not blobs:
            return {}
        packed = [_encoder.encode(blob) for blob in blobs]
        commands = [
            ("SET", keys.POST + blob.id, value, "EX", self._seconds, "NX", "GET")
            for blob, value in zip(blobs, packed, strict=True)
        ]
        olds = await self._valkey.pipeline(commands)
        found: dict[bytes, bytes] = {}
        for blob, value, old in zip(blobs, packed, olds, strict=True):
            if isinstance(old, Exception):
                raise old
            if old != keys.TOMBSTONE:
                found[blob.id] = value if old is None else old
        return found

    async def forget(self, post_ids: Collection[UUID]) -> None:
        """Drop what is said of posts, tombstones too: the rows are asked again."""
        await self._valkey.all([("UNLINK", keys.post(post_id)) for post_id in post_ids])

    async def bury(self, post_ids: Collection[UUID]) -> None:
        """Write tombstones."""
        commands = [("SET", keys.post(post_id), keys.TOMBSTONE, "EX", TOMBSTONE_SECONDS) for post_id in post_ids]
        for answer in await self._valkey.pipeline(commands):
            if isinstance(answer, Exception):
                raise answer
