"""Everything secret that the operator makes up: once, and never again while it is there."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from fanfold_operator.kinds import SECRET
from fanfold_operator.resources import meta, stores

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fanfold_operator.kinds import Manifest

KEYS: Final = (
    "database_password",
    "database_url",
    "valkey_password",
    "valkey_url",
    "s3_access_key",
    "s3_secret_key",
    "identity_key",
    "cursor_key",
    "token_private_key",
    "token_jwks",
)
"""Keys of the Secret; the files of components have the same names."""


def complete(existing: Mapping[str, str], platform: str) -> dict[str, str]:
    """The existing values, and new ones for keys that are missing. Derived values follow what they derive from."""
    made = {key: value for key, value in existing.items() if value}
    for name in ("database_password", "valkey_password", "s3_secret_key"):
        made.setdefault(name, secrets.token_urlsafe(32))
    made.setdefault("s3_access_key", "fanfold-" + secrets.token_hex(6))
    for name in ("identity_key", "cursor_key"):
        made.setdefault(name, secrets.token_hex(32))
    made.setdefault("token_private_key", _private_key())
    made.setdefault("token_jwks", jwks(made["token_private_key"]))
    database = stores.endpoint(platform, meta.POSTGRESQL)
    user = f"{stores.DATABASE_USER}:{made['database_password']}"
    made.setdefault("database_url", f"postgresql+asyncpg://{user}@{database}/{stores.DATABASE}")
    made.setdefault("valkey_url", f"redis://:{made['valkey_password']}@{stores.endpoint(platform, meta.VALKEY)}/0")
    return made


def encode(values: Mapping[str, str]) -> dict[str, str]:
    """As a Secret's ``data`` holds it."""
    return {key: base64.b64encode(value.encode()).decode() for key, value in sorted(values.items())}


def decode(data: Mapping[str, str]) -> dict[str, str]:
    """From a Secret's ``data``; bytes that are no text are left out."""
    return {key: base64.b64decode(value).decode(errors="ignore") for key, value in data.items()}


def _private_key() -> str:
    key = Ed25519PrivateKey.generate()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def jwks(private_key: str) -> str:
    """The public half as a JWK set (RFC 8037), its ``kid`` the thumbprint of RFC 7638."""
    key = load_pem_private_key(private_key.encode(), password=None)
    if not isinstance(key, Ed25519PrivateKey):
        raise TypeError(f"token_private_key must be an Ed25519 key, not {type(key).__name__}")
    public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    members = {"crv": "Ed25519", "kty": "OKP", "x": _base64url(public)}
    canonical = json.dumps(members, sort_keys=True, separators=(",", ":")).encode()
    thumbprint = _base64url(hashlib.sha256(canonical).digest())
    return json.dumps({"keys": [{**members, "kid": thumbprint, "alg": "EdDSA", "use": "sig"}]})


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def head(owner: Manifest, *, owned: bool) -> Manifest:
    """Labels and, if it is to go with its Platform, the owner of the Secret; its data is written apart."""
    platform = owner["metadata"]["name"]
    name = meta.credentials_name(platform)
    return meta.manifest(SECRET, owner, name, platform=platform, component="credentials", owned=owned)
