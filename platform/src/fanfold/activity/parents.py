"""Posts as the activity service needs them: whether they are there, whose they are, and who may see them."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

import msgspec

from fanfold.contracts import internal, keys
from fanfold.contracts.blobs import PostBlob
from fanfold.kit.errors import NotFound

if TYPE_CHECKING:
    from fanfold.kit.audience import Audience
    from fanfold.kit.peers import Peers
    from fanfold.kit.valkey import Valkey

_decoder = msgspec.msgpack.Decoder(PostBlob)


class Posts:
    """Reads packed posts, asking the post service for those that Valkey has not."""

    def __init__(self, valkey: Valkey, peers: Peers, audience: Audience) -> None:
        self._valkey = valkey
        self._peers = peers
        self._audience = audience

    async def seen_by(self, viewer: UUID, post_id: UUID) -> UUID:
        """The post's author, whose account is open to ``viewer``.

        Raises:
            NotFound: There is no such post, as far as the viewer is told.
            Unavailable: A service was needed and does not answer.
        """
        owner_id = await self.owner(post_id)
        if not await self._audience.admits(viewer, owner_id):
            raise _no_post()
        return owner_id

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
            raise _no_post()
        return UUID(bytes=_decoder.decode(blob).author_id)


def _no_post() -> NotFound:
    return NotFound("There is no such post.", kind="post-not-found")
