"""Users beside posts, comments and lists: packed blobs from Valkey, those missing from the profile service."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from uuid import UUID

import msgspec

from fanfold.contracts import internal, keys
from fanfold.contracts.api import Author
from fanfold.contracts.blobs import UserBlob
from fanfold.kit.media import MediaUrls

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fanfold.kit.peers import Peers
    from fanfold.kit.valkey import Valkey

_decoder: msgspec.msgpack.Decoder[UserBlob] = msgspec.msgpack.Decoder(UserBlob)


def author(blob: UserBlob, media: MediaUrls) -> Author:
    """A user as the public API shows them."""
    return Author(
        id=UUID(bytes=blob.id),
        username=blob.username,
        display_name=blob.display_name,
        picture_url=media.open(blob.picture_path) if blob.picture_path else None,
    )


class Users:
    """Reads users by id: one pipeline of single-key reads, then one call per `internal.MAX_BATCH` of the missing.

    Users that do not exist are not remembered here: asking for them again asks the profile service again.

    Args:
        valkey: Where the profile service keeps blobs.
        peers: How to reach the profile service.
        media_base_url: Prefix of picture URLs, which are never signed.
    """

    def __init__(self, valkey: Valkey, peers: Peers, media_base_url: str) -> None:
        self._valkey = valkey
        self._peers = peers
        self._media = MediaUrls(media_base_url)

    async def blobs(self, ids: Iterable[UUID]) -> dict[UUID, UserBlob]:
        """Users by id; those deleted or never there are left out.

        Raises:
            Unavailable: Some are not in Valkey and the profile service does not answer.
            ValkeyUnavailableError: Valkey does not answer.
        """
        wanted = list(dict.fromkeys(ids))
        if not wanted:
            return {}
        values = await self._valkey.pipeline([("GET", keys.user(user_id)) for user_id in wanted])
        found: dict[UUID, UserBlob] = {}
        missing: list[UUID] = []
        for user_id, value in zip(wanted, values, strict=True):
            if value is None or isinstance(value, Exception):
                missing.append(user_id)
            elif value != keys.TOMBSTONE:
                found[user_id] = _decoder.decode(value)
        found.update(await self._ask(missing))
        return found

    async def authors(self, ids: Iterable[UUID]) -> dict[UUID, Author]:
        """As `blobs`, in the shape of the public API."""
        blobs = await self.blobs(ids)
        return {user_id: author(blob, self._media) for user_id, blob in blobs.items()}

    async def exists(self, user_id: UUID) -> bool:
        """Whether there is such a user; errors as `blobs`."""
        return bool(await self.blobs((user_id,)))

    async def _ask(self, missing: list[UUID]) -> dict[UUID, UserBlob]:
        answers = await asyncio.gather(
            *(
                self._peers.call(internal.USERS, internal.Ids([user_id.bytes for user_id in batch]))
                for batch in _batches(missing)
            )
        )
        return {
            UUID(bytes=user_id): _decoder.decode(blob) for answer in answers for user_id, blob in answer.blobs.items()
        }


def _batches(ids: list[UUID]) -> list[list[UUID]]:
    return [ids[start : start + internal.MAX_BATCH] for start in range(0, len(ids), internal.MAX_BATCH)]
