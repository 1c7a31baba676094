"""Who calls: access tokens verified once, then remembered together with the identity header they stand for.

An EdDSA check costs about a hundred microseconds, a look-up a tenth of one. What may change in a token's life is
checked on every request (revocation) or once a `REFRESH_SECONDS` (expiry); a change of keys forgets all.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import jwt

from fanfold.contracts import headers
from fanfold.contracts.ring import key_of
from fanfold.contracts.roles import ROLES
from fanfold.kit.errors import Unauthorized
from fanfold.kit.identity import Identity
from fanfold.kit.logging import get_logger

if TYPE_CHECKING:
    from pathlib import Path

    from fanfold.kit.identity import IdentitySigner

log = get_logger(__name__)

ISSUER: Final = "fanfold"
LEEWAY_SECONDS: Final = 30
"""Clock skew between the profile service and a gateway."""
REFRESH_SECONDS: Final = 60.0
"""Half the life of a signed identity (`fanfold.kit.identity.LIFETIME`)."""
CACHE_LIMIT: Final = 50_000
_MAX_TOKEN: Final = 4 << 10


class Principal:
    """A caller whose token was verified, or nobody.

    Attributes:
        key: Position on the ring; None for nobody.
        line: The identity header's line for services.
        refresh_at: Monotonic time at which ``line`` must be made again.
        expires: Unix time at which the token ends, leeway included.
    """

    __slots__ = ("expires", "identity", "key", "line", "refresh_at", "session")

    def __init__(self, identity: Identity, expires: float) -> None:
        self.identity = identity
        self.expires = expires
        self.session = identity.session_id.bytes if identity.session_id else b""
        self.key = key_of(identity.user_id.bytes) if identity.user_id else None
        self.line = b""
        self.refresh_at = 0.0


class KeySet:
    """The public keys of a JWKS file, read again when the file changes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, int] | None = None
        self._keys: dict[str, Any] = {}

    def reload(self) -> bool:
        """Read the file if it changed; whether the keys are others than before. A broken file leaves the old keys."""
        try:
            status = self._path.stat()
            stamp = (status.st_mtime_ns, status.st_ino)
            if stamp == self._stamp:
                return False
            keys = {
                key.key_id: key.key
                for key in jwt.PyJWKSet.from_json(self._path.read_text(encoding="utf-8")).keys
                if key.key_id and key.algorithm_name == "EdDSA"
            }
        except (OSError, ValueError, jwt.PyJWTError) as error:
            log.error("token_keys_unreadable", path=str(self._path), error=str(error))  # noqa: TRY400 - no bug of ours
            return False
        self._stamp = stamp
        self._keys = keys
        log.info("token_keys_loaded", key_ids=sorted(keys))
        return True

    @property
    def empty(self) -> bool:
        """No key was ever read."""
        return not self._keys

    def verify(self, token: str) -> dict[str, Any]:
        """The claims of a token.

        Raises:
            jwt.PyJWTError: Unknown key, wrong algorithm or signature, expired, or claims missing.
        """
        key = self._keys.get(jwt.get_unverified_header(token).get("kid", ""))
        if key is None:
            raise jwt.InvalidTokenError("signed with an unknown key")
        claims: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=["EdDSA"],
            issuer=ISSUER,
            leeway=LEEWAY_SECONDS,
            options={"require": ["sub", "sid", "exp", "iat", "iss"]},
        )
        return claims


class Tokens:
    """Authenticates requests.

    Args:
        keys: Public keys of the profile service.
        signer: Signs identities for services.
    """

    def __init__(self, keys: KeySet, signer: IdentitySigner) -> None:
        self._keys = keys
        self._signer = signer
        self._known: dict[bytes, Principal] = {}
        self._nobody = Principal(Identity(), float("inf"))
        self.revoked: frozenset[bytes] = frozenset()
        """Sessions (16 bytes) whose tokens count no more."""

    def nobody(self, now: float) -> Principal:
        """The caller of a public route."""
        if now >= self._nobody.refresh_at:
            self._sign(self._nobody, now)
        return self._nobody

    def principal(self, authorization: bytes | None, now: float) -> Principal:
        """Who sent ``authorization``.

        Args:
            authorization: Value of the header, None without one.
            now: Monotonic seconds.

        Raises:
            Unauthorized: No token, or one that does not count.
        """
        if authorization is None:
            raise Unauthorized("Send an access token: Authorization: Bearer TOKEN (POST /v1/sessions gives one).")
        known = self._known.get(authorization)
        if known is None or now >= known.refresh_at:
            known = self._admit(authorization, known, now)
        if known.session in self.revoked:
            raise invalid_token("This session was logged out; log in again.")
        return known

    @property
    def without_keys(self) -> bool:
        """No token can be verified: no key was ever read."""
        return self._keys.empty

    def sign(self, principal: Principal) -> str:
        """A fresh identity header for a call the gateway itself makes for a user."""
        return self._signer.sign(principal.identity)

    def reload_keys(self) -> None:
        """Follow the JWKS file; a key taken out of it counts no more at once."""
        if self._keys.reload():
            self._known.clear()

    def _admit(self, authorization: bytes, known: Principal | None, now: float) -> Principal:
        if known is None:
            known = self._verify(authorization)
        else:
            del self._known[authorization]
        if known.expires <= time.time():
            raise invalid_token("The access token has expired; refresh it with POST /v1/sessions/refresh.")
        self._sign(known, now)
        if len(self._known) >= CACHE_LIMIT:
            # Insertion order is the order of the last refresh: least recently used, to the minute.
            del self._known[next(iter(self._known))]
        self._known[authorization] = known
        return known

    def _verify(self, authorization: bytes) -> Principal:
        scheme, _, token = authorization.partition(b" ")
        if scheme.lower() != b"bearer" or not token or len(token) > _MAX_TOKEN:
            raise Unauthorized("The Authorization header must read: Bearer TOKEN.")
        try:
            claims = self._keys.verify(token.strip().decode("ascii"))
            role = claims.get("role", "")
            identity = Identity(
                user_id=UUID(claims["sub"]), session_id=UUID(claims["sid"]), role=role if role in ROLES else ""
            )
        except jwt.ExpiredSignatureError as error:
            raise invalid_token("The access token has expired; refresh it with POST /v1/sessions/refresh.") from error
        except (jwt.PyJWTError, ValueError, TypeError, AttributeError) as error:
            raise invalid_token("The access token is not valid; log in again.") from error
        return Principal(identity, float(claims["exp"]) + LEEWAY_SECONDS)

    def _sign(self, principal: Principal, now: float) -> None:
        header = self._signer.sign(principal.identity)
        principal.line = f"{headers.IDENTITY}: {header}\r\n".encode()
        principal.refresh_at = now + min(REFRESH_SECONDS, max(0.0, principal.expires - time.time()))


def invalid_token(detail: str) -> Unauthorized:
    """401 with the reason of RFC 6750, section 3.1."""
    problem = Unauthorized(detail, kind="invalid-token")
    problem.headers["www-authenticate"] = 'Bearer error="invalid_token"'
    return problem
