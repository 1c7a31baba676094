"""Access tokens (JWT, EdDSA) and refresh tokens (random, stored as hashes)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from fanfold.kit.settings import SettingsError

if TYPE_CHECKING:
    from fanfold.kit.keyring import Keyring
    from fanfold.kit.settings import Secrets

ISSUER: Final = "fanfold"
_ID_BYTES: Final = 16
_SECRET_BYTES: Final = 32
_TOKEN_BYTES: Final = 3 * _ID_BYTES + _SECRET_BYTES


class AccessTokens:
    """Signs access tokens.

    Args:
        secrets: With ``token_private_key`` (Ed25519, PEM); the key's id is taken from ``token_jwks`` if that is there.
        lifetime: Seconds.

    Raises:
        SettingsError: The private key is missing or is no Ed25519 key.
    """

    def __init__(self, secrets: Secrets, lifetime: int) -> None:
        try:
            key = load_pem_private_key(secrets.read("token_private_key").encode(), None)
        except ValueError as error:
            raise SettingsError("the secret 'token_private_key' is no PEM private key without a password") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise SettingsError("the secret 'token_private_key' must be an Ed25519 key")
        self._key = key
        public = _base64url(key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))
        self.key_id = _published_id(secrets, public) or thumbprint(public)
        self.lifetime = lifetime

    def sign(self, user_id: UUID, session_id: UUID, now: int, role: str = "") -> str:
        """A token of this user and session, issued at ``now`` (Unix seconds); ``role`` only for who has one."""
        claims = {"iss": ISSUER, "sub": str(user_id), "sid": str(session_id), "iat": now, "exp": now + self.lifetime}
        if role:
            claims["role"] = role
        return jwt.encode(claims, self._key, algorithm="EdDSA", headers={"kid": self.key_id})


def thumbprint(public: str) -> str:
    """Key id of an Ed25519 public key (base64url): its JWK thumbprint (RFC 7638, RFC 8037 appendix A.3)."""
    members = f'{{"crv":"Ed25519","kty":"OKP","x":"{public}"}}'
    return _base64url(hashlib.sha256(members.encode("ascii")).digest())


def _published_id(folder: Secrets, public: str) -> str | None:
    """The id under which gateways know this key."""
    if not folder.path("token_jwks").exists():
        return None
    try:
        keys: list[dict[str, Any]] = json.loads(folder.read("token_jwks"))["keys"]
    except (ValueError, KeyError, TypeError) as error:
        raise SettingsError("the secret 'token_jwks' is no JSON Web Key Set") from error
    return next((key.get("kid") for key in keys if key.get("x") == public), None)


@dataclass(frozen=True, slots=True)
class RefreshToken:
    """What a client sends to go on with a session: good once, then replaced.

    Attributes:
        user_id: Whose session.
        session_id: Which.
        family: 16 bytes that all tokens of the session share: an old token of it can be told from an invented one.
        secret: 32 bytes of this token alone.
    """

    user_id: UUID
    session_id: UUID
    family: bytes
    secret: bytes

    @classmethod
    def new(cls, user_id: UUID, session_id: UUID) -> RefreshToken:
        """The first token of a session."""
        return cls(user_id, session_id, secrets.token_bytes(_ID_BYTES), secrets.token_bytes(_SECRET_BYTES))

    @classmethod
    def parse(cls, text: str) -> RefreshToken | None:
        """A token as the client sent it; None if it cannot be one."""
        try:
            data = base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)
        except (binascii.Error, ValueError):
            return None
        if len(data) != _TOKEN_BYTES:
            return None
        ids = [data[start : start + _ID_BYTES] for start in range(0, 3 * _ID_BYTES, _ID_BYTES)]
        return cls(UUID(bytes=ids[0]), UUID(bytes=ids[1]), ids[2], data[3 * _ID_BYTES :])

    def next(self, keys: Keyring, attempt_id: UUID) -> RefreshToken:
        """The token that replaces this one: the same whenever the same attempt at it is repeated.

        So an attempt whose answer was lost is known again, and nothing of it need be kept. Who has this token and the
        attempt's id, and not our key, can't tell the next one (a key derivation as of NIST SP 800-108, with HMAC).
        """
        return RefreshToken(self.user_id, self.session_id, self.family, keys.sign(self.secret + attempt_id.bytes))

    def is_good(self, refresh_hash: bytes) -> bool:
        """Whether it is the good one of the session with this hash."""
        return hmac.compare_digest(self.secret_hash, refresh_hash)

    def belongs_to(self, family_hash: bytes) -> bool:
        """Whether it was once given to the session with this hash."""
        return hmac.compare_digest(self.family_hash, family_hash)

    @property
    def family_hash(self) -> bytes:
        """As the session stores it. The value is random, so one plain SHA-256 keeps it."""
        return hashlib.sha256(self.family).digest()

    @property
    def secret_hash(self) -> bytes:
        """As the session stores it while this token is the good one."""
        return hashlib.sha256(self.secret).digest()

    def __str__(self) -> str:
        """As the client gets it."""
        return _base64url(self.user_id.bytes + self.session_id.bytes + self.family + self.secret)

    def __repr__(self) -> str:
        """Without its secrets."""
        return f"RefreshToken(session_id={self.session_id})"


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode("ascii").rstrip("=")
