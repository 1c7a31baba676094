"""Who calls, inside the platform: a short-lived signed header that the gateway makes and services verify.

Format: ``v1.<subject>.<expiry, Unix seconds>.<hex HMAC-SHA256 of the part before the last dot>``, with subject
``anonymous``, ``user:<uuid>:<session uuid>`` or ``service:<name>``, and further parts behind colons: a word is the role
of who has one, ``<name>=<value>`` a claim. A service called directly refuses.

Replicas of two versions verify each other's headers during an upgrade. So a role or claim that a version does not know
is ignored there, never refused: who has it is then one user of many. It may therefore add rights or tell something; one
that takes a right away needs another version of the format, sent only when all replicas know it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from fanfold.contracts.roles import ROLES
from fanfold.kit.keyring import Keyring

LIFETIME: Final = 120
"""Seconds a signed identity is good for: covers a slow upload's way to the service and a minute of clock skew."""
_CACHE_LIMIT: Final = 10_000
_MAC_BYTES: Final = 32


class InvalidIdentityError(Exception):
    """The header is missing, forged, malformed or expired."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Exactly one of a user (with session), a service, or nobody (anonymous)."""

    user_id: UUID | None = None
    session_id: UUID | None = None
    service: str | None = None
    role: str = ""
    """What the user may do beyond others: see `fanfold.contracts.roles`."""

    @property
    def subject(self) -> str:
        """The subject as signed."""
        if self.user_id is not None:
            subject = f"user:{self.user_id}:{self.session_id or UUID(int=0)}"
            return f"{subject}:{self.role}" if self.role else subject
        return f"service:{self.service}" if self.service else "anonymous"


def _parse(subject: str) -> Identity:
    match subject.split(":"):
        case ["anonymous", *_]:
            return Identity()
        case ["service", name, *_] if name:
            return Identity(service=name)
        case ["user", user, session, *more]:
            role = next((word for word in more if "=" not in word), "")
            return Identity(user_id=UUID(user), session_id=UUID(session), role=role if role in ROLES else "")
        case _:
            raise ValueError(subject)


def _whole(mac: str) -> bytes:
    """A signature's bytes.

    Raises:
        ValueError: It is not one.
    """
    found = bytes.fromhex(mac)
    if len(found) != _MAC_BYTES:
        raise ValueError(mac)
    return found


class IdentitySigner:
    """Signs and verifies with shared keys (32 bytes, hex): see `fanfold.kit.keyring`."""

    def __init__(self, keys: str) -> None:
        self._keys = Keyring(keys)
        self._verified: dict[str, tuple[Identity, int]] = {}

    def _mac(self, text: str) -> str:
        return self._keys.sign(text.encode("ascii")).hex()

    def sign(self, identity: Identity, now: float | None = None) -> str:
        """Header value, good for `LIFETIME` seconds."""
        text = f"v1.{identity.subject}.{int(time.time() if now is None else now) + LIFETIME}"
        return f"{text}.{self._mac(text)}"

    def verify(self, header: str, now: float | None = None) -> Identity:
        """Whom the header names. Verified headers are remembered: one HMAC per identity and lifetime.

        Raises:
            InvalidIdentityError: Missing, forged, malformed or expired.
        """
        moment = time.time() if now is None else now
        known = self._verified.get(header)
        if known is None:
            known = self._check(header)
            if len(self._verified) >= _CACHE_LIMIT:
                self._verified.clear()
            self._verified[header] = known
        identity, expiry = known
        if expiry < moment:
            self._verified.pop(header, None)
            raise InvalidIdentityError("the identity has expired")
        return identity

    def _check(self, header: str) -> tuple[Identity, int]:
        text, _, mac = header.rpartition(".")
        try:
            if not self._keys.verifies(text.encode("ascii"), _whole(mac)):
                raise InvalidIdentityError("the identity's signature is wrong")
            version, subject, expiry = text.split(".")
            if version != "v1":
                raise InvalidIdentityError(f"identity version {version} is not supported")
            return _parse(subject), int(expiry)
        except (ValueError, TypeError) as error:
            raise InvalidIdentityError("the identity is malformed") from error
