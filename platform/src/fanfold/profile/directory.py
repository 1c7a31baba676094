"""Users as other services read them: packed blobs in Valkey, written by nobody else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from fanfold.contracts import keys
from fanfold.contracts.blobs import UserBlob

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from fanfold.kit.valkey import Valkey
    from fanfold.profile.models import User

BLOB_SECONDS: Final = 24 * 3600
"""Bounds how long a blob could be wrong after a failure that no order of writes prevents."""
TOMBSTONE_SECONDS: Final = 3600
"""Longer than any reader's refill may be under way."""


def pack(user: User) -> bytes:
    """A user as `UserBlob`."""
    return msgspec.msgpack.encode(
        UserBlob(
            id=user.id.bytes,
            username=user.username,
            display_name=user.display_name,
            picture_path=user.picture_path,
            private=user.private,
        )
    )


class Directory:
    """Writes user blobs.

    `put` and `bury` are called before the change's transaction commits, while it holds the row's lock: so that two
    changes of one user reach Valkey in the order in which they are committed.
    """

    def __init__(self, valkey: Valkey) -> None:
        self._valkey = valkey

    async def put(self, user: User) -> None:
        """The user is now as told, whatever the blob said. A hidden one looks deleted."""
        if user.hidden_at is not None:
            await self.bury(user.id)
            return
        await self._valkey.execute("SET", keys.user(user.id), pack(user), "EX", BLOB_SECONDS)

    async def forget(self, user_id: UUID) -> None:
        """The blob may be wrong (a transaction failed after `put`): the next reader asks again."""
        await self._valkey.execute("DEL", keys.user(user_id))

    async def bury(self, user_id: UUID) -> None:
        """The user is deleted or hidden: refills under way must not bring them back."""
        await self._valkey.execute("SET", keys.user(user_id), keys.TOMBSTONE, "EX", TOMBSTONE_SECONDS)

    async def refill(self, users: Sequence[User]) -> dict[bytes, bytes]:
        """Put blobs where there are none, and return all by id (16 bytes)."""
        blobs = {user.id: pack(user) for user in users}
        if blobs:
            await self._valkey.pipeline(
                [("SET", keys.user(user_id), blob, "EX", BLOB_SECONDS, "NX") for user_id, blob in blobs.items()]
            )
        return {user_id.bytes: blob for user_id, blob in blobs.items()}
