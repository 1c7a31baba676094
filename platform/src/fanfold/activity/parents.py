"""Posts as the activity service needs them: whether they are there, and whose they are."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

import msgspec

from fanfold.contracts import internal, keys
from fanfold.contracts.blobs import PostBlob
from fanfold.kit.errors import NotFound

if TYPE_CHECKING:
    from fanfold.kit.peers import Peers
    from fanfold.kit.valkey import Valkey

_decoder = msgspec.msgpack.Decoder(PostBlob)


class Posts:
    """Reads packed posts, asking the post service for those that Valkey has not."""

    def __init__(self, valkey: Valkey, peers: Peers) -> None:
        self._valkey = valkey
        self._peers = peers

    async def owner(self, post_id: UUID) -> UUID:
        """The post's author.

        Raises:
            NotFound: There is no such post.
            Unavailable: The post service was needed and does not answer.
        """
        blob: bytes | None = await self._valkey.execute("GET", keys.post(post_id))
        if blob is None:
            answer = await self._peers.call(internal.POSTS, internal.Ids([post_id.bytes]))
            blob = answer.blobs.get(post_id.bytes, keys.TOMBSTONE)
        if blob == keys.TOMBSTONE:
            raise NotFound("There is no such post.", kind="post-not-found")
        return UUID(bytes=_decoder.decode(blob).author_id)
