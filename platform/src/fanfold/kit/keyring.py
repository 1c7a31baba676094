"""Signing keys of one secret file: one a line, in hex. The first signs, all verify: so a key can be changed.

Changing one without a refusal takes two restarts of what reads the file: first append the new key, so that everybody
verifies it; then put it first; and take the old one out when nothing signed with it is good any more.
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class Keyring:
    """HMAC-SHA256 with the keys of one secret.

    Args:
        text: The file's content.
        label: What for, where one secret serves several purposes: other keys are derived from those in the file, so
            that who is given them can make nothing else.
    """

    def __init__(self, text: str, label: bytes = b"") -> None:
        keys = [bytes.fromhex(line) for line in text.split()]
        if not keys:
            raise ValueError("no key")
        self.keys: Sequence[bytes] = [hmac.digest(key, label, "sha256") for key in keys] if label else keys

    def sign(self, message: bytes) -> bytes:
        """32 bytes, by the first key."""
        return hmac.digest(self.keys[0], message, "sha256")

    def each(self, message: bytes) -> list[bytes]:
        """32 bytes by each key, the first one's first."""
        return [hmac.digest(key, message, "sha256") for key in self.keys]

    def verifies(self, message: bytes, mac: bytes) -> bool:
        """Whether the signature of one of the keys begins with ``mac``, whose length the caller has checked.

        It takes the same time whatever it is.
        """
        good = False
        for key in self.keys:
            good |= hmac.compare_digest(hmac.digest(key, message, "sha256")[: len(mac)], mac)
        return good
