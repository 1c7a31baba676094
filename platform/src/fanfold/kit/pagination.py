"""Opaque, signed keyset cursors: what the client hands back is exactly what we handed out."""

from __future__ import annotations

import base64
import binascii
from typing import Final
from uuid import UUID

from fanfold.kit.errors import BadRequest
from fanfold.kit.keyring import Keyring

_MAC_BYTES: Final = 8
DEFAULT_LIMIT: Final = 20
MAX_LIMIT: Final = 100


class CursorCodec:
    """Cursors of one kind of list. The kind is signed too, so that a cursor of one list is refused by another."""

    def __init__(self, keys: str, kind: str) -> None:
        self._keys = Keyring(keys)
        self._kind = kind.encode()

    def _message(self, payload: bytes) -> bytes:
        return self._kind + b"\0" + payload

    def encode(self, position: UUID) -> str:
        """Cursor that continues after the item with this id."""
        payload = position.bytes
        mac = self._keys.sign(self._message(payload))[:_MAC_BYTES]
        return base64.urlsafe_b64encode(mac + payload).decode("ascii").rstrip("=")

    def decode(self, cursor: str | None) -> UUID | None:
        """Position of a cursor; None for none.

        Raises:
            BadRequest: Not a cursor of this list.
        """
        if cursor is None:
            return None
        try:
            data = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        except (binascii.Error, ValueError):
            data = b""
        mac, payload = data[:_MAC_BYTES], data[_MAC_BYTES:]
        if len(payload) != len(UUID(int=0).bytes) or not self._keys.verifies(self._message(payload), mac):
            raise BadRequest("The cursor is not one of this list: use next_cursor unchanged, or leave it out.")
        return UUID(bytes=payload)
