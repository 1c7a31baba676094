"""The folder of secrets that components of a development platform read: made once, kept between runs."""

from __future__ import annotations

import base64
import json
import secrets
from typing import TYPE_CHECKING, Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from fanfold.profile.tokens import thumbprint

if TYPE_CHECKING:
    from pathlib import Path


class Stores(Protocol):
    """Where the backing stores are, and what opens them."""

    database_url: str
    valkey_url: str
    s3_access_key: str
    s3_secret_key: str


def write(folder: Path, stores: Stores) -> None:
    """Write one file per secret, readable by the owner alone. Addresses are of this run, keys stay as they are."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in ("identity_key", "cursor_key"):
        _keep(folder / name, secrets.token_hex(32))
    _keep(folder / "token_private_key", _new_private_key())
    _put(folder / "token_jwks", _jwks((folder / "token_private_key").read_bytes()))
    _put(folder / "database_url", stores.database_url)
    _put(folder / "valkey_url", stores.valkey_url)
    _put(folder / "s3_access_key", stores.s3_access_key)
    _put(folder / "s3_secret_key", stores.s3_secret_key)


def _keep(file: Path, value: str) -> None:
    if not file.exists():
        _put(file, value)


def _put(file: Path, value: str) -> None:
    """Replaced as a whole: a reader, or a start after a crash, never meets half a secret."""
    partial = file.with_name(f".{file.name}.new")
    partial.unlink(missing_ok=True)
    partial.touch(mode=0o600)
    partial.write_text(value)
    partial.replace(file)


def _new_private_key() -> str:
    return Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def _jwks(private_key: bytes) -> str:
    """The public half as a JWK set (RFC 8037)."""
    key = load_pem_private_key(private_key, password=None)
    raw = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    public = base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
    members = {"kty": "OKP", "crv": "Ed25519", "x": public, "kid": thumbprint(public), "alg": "EdDSA", "use": "sig"}
    return json.dumps({"keys": [members]})
