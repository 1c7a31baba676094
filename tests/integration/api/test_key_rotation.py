"""The way that docs/accounts.md takes to another key: nobody is logged out, and the old key ends when it shall."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from fanfold.contracts.components import ROUTED
from fanfold.contracts.snapshot import Slot, Snapshot, encode
from fanfold.dev.process import free_ports

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.integration

ACCOUNT = {"username": "ada.keys", "password": "a long enough passphrase"}


@pytest.fixture
def secret(secrets_dir: Path) -> Iterator[Path]:
    """The folder of secrets; the keys are put back afterwards."""
    files = [secrets_dir / "token_private_key", secrets_dir / "token_jwks"]
    before = [file.read_text() for file in files]
    yield secrets_dir
    for file, content in zip(files, before, strict=True):
        file.write_text(content)


def replace(file: Path, content: str) -> None:
    """As a whole, as the kubelet does."""
    partial = file.with_suffix(".new")
    partial.write_text(content)
    partial.replace(file)


def another() -> tuple[str, dict[str, str]]:
    """A private key, and what a JWK set says of it."""
    key = Ed25519PrivateKey.generate()
    raw = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    public = base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    return pem, {"kty": "OKP", "crv": "Ed25519", "x": public, "kid": "second", "alg": "EdDSA", "use": "sig"}


async def test_keys_are_exchanged_without_logging_anybody_out(house: Any, secret: Path, tmp_path: Path) -> None:
    old_replica = await house.start("profile")
    await house.start("follow")
    snapshot = tmp_path / "snapshot.json"
    address = urlsplit(house.urls["profile"]).netloc
    slots = {name: [Slot("profile-0", address)] if name == "profile" else [] for name in ROUTED}
    snapshot.write_bytes(encode(Snapshot("default/test", 1, slots)))
    gateway = await house.start("gateway", snapshot_source=f"file:{snapshot}")

    async def login(replica: httpx.AsyncClient) -> str:
        answer = await replica.post("/v1/sessions", json=ACCOUNT, headers=house.anonymous())
        return f"Bearer {answer.json()['access_token']}"

    async def status(token: str) -> int:
        answer: httpx.Response = await gateway.get("/v1/users/me", headers={"authorization": token})
        return answer.status_code

    async def becomes(token: str, wanted: int) -> None:
        async with asyncio.timeout(60):
            while await status(token) != wanted:
                await asyncio.sleep(0.1)

    await old_replica.post("/v1/accounts", json=ACCOUNT, headers=house.anonymous())
    before = await login(old_replica)
    assert await status(before) == 200

    pem, published = another()
    (first,) = json.loads((secret / "token_jwks").read_text())["keys"]
    # First the gateways learn the new key, then somebody signs with it.
    replace(secret / "token_jwks", json.dumps({"keys": [first, published]}))
    replace(secret / "token_private_key", pem)
    (port,) = free_ports(1)
    new_replica = await house.start("profile", traffic_port=port)
    after = await login(new_replica)
    await becomes(after, 200)
    assert await status(before) == 200
    assert await status(await login(old_replica)) == 200  # it has not been restarted yet

    # When the last token of the old key has expired, the key goes.
    replace(secret / "token_jwks", json.dumps({"keys": [published]}))
    await becomes(before, 401)
    assert await status(after) == 200
