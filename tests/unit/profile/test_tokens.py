from __future__ import annotations

import json
from pathlib import Path
from uuid import UUID

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st

from fanfold.contracts.ids import new_id
from fanfold.kit.keyring import Keyring
from fanfold.kit.settings import Secrets, SettingsError
from fanfold.profile.tokens import AccessTokens, RefreshToken, thumbprint

USER, SESSION, ATTEMPT = new_id(), new_id(), new_id()
KEYS = Keyring("11" * 32)


def folder_with(path: Path, key: object) -> Secrets:
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())  # type: ignore[attr-defined]
    (path / "token_private_key").write_bytes(pem)
    return Secrets(path)


def test_an_access_token_says_who_and_which_session_and_ends(tmp_path: Path) -> None:
    key = Ed25519PrivateKey.generate()
    tokens = AccessTokens(folder_with(tmp_path, key), lifetime=900)
    token = tokens.sign(USER, SESSION, now=1_000)
    claims = jwt.decode(
        token, key.public_key(), algorithms=["EdDSA"], options={"verify_exp": False, "verify_iat": False}
    )
    assert claims == {"iss": "fanfold", "sub": str(USER), "sid": str(SESSION), "iat": 1_000, "exp": 1_900}
    assert jwt.get_unverified_header(token) == {"alg": "EdDSA", "typ": "JWT", "kid": tokens.key_id}


def test_the_thumbprint_is_that_of_rfc_8037_appendix_a3() -> None:
    assert thumbprint("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo") == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


def test_the_key_id_is_the_one_that_gateways_know(tmp_path: Path) -> None:
    key = Ed25519PrivateKey.generate()
    secrets = folder_with(tmp_path, key)
    public = json.loads(jwt.get_algorithm_by_name("EdDSA").to_jwk(key.public_key()))
    assert AccessTokens(secrets, 60).key_id == thumbprint(public["x"])
    (tmp_path / "token_jwks").write_text(json.dumps({"keys": [{**public, "kid": "2024-05"}]}))
    assert AccessTokens(secrets, 60).key_id == "2024-05"


@pytest.mark.parametrize("content", ["not a key", ""])
def test_an_unusable_private_key_is_told_at_start(tmp_path: Path, content: str) -> None:
    (tmp_path / "token_private_key").write_text(content)
    with pytest.raises(SettingsError, match="token_private_key"):
        AccessTokens(Secrets(tmp_path), 60)


def test_a_key_of_another_kind_is_told_at_start(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="Ed25519"):
        AccessTokens(folder_with(tmp_path, generate_private_key(SECP256R1())), 60)


@given(st.uuids(), st.uuids())
def test_a_refresh_token_comes_back_as_it_was_given(user_id: UUID, session_id: UUID) -> None:
    token = RefreshToken.new(user_id, session_id)
    assert RefreshToken.parse(str(token)) == token


@given(st.text(max_size=200))
def test_what_is_no_refresh_token_is_not_taken_for_one(text: str) -> None:
    assert RefreshToken.parse(text) is None


def test_the_next_token_belongs_to_the_same_session_but_is_another() -> None:
    first = RefreshToken.new(USER, SESSION)
    second = first.next(KEYS, ATTEMPT)
    assert second.belongs_to(first.family_hash)
    assert second.secret_hash != first.secret_hash
    assert not RefreshToken.new(USER, SESSION).belongs_to(first.family_hash)


def test_the_next_token_is_the_same_for_the_same_attempt_only() -> None:
    first = RefreshToken.new(USER, SESSION)
    second = first.next(KEYS, ATTEMPT)
    assert second.is_good(first.next(KEYS, ATTEMPT).secret_hash)
    others = [
        first.next(KEYS, UUID(int=ATTEMPT.int + 1)),
        first.next(Keyring("22" * 32), ATTEMPT),
        RefreshToken.new(USER, SESSION).next(KEYS, ATTEMPT),
    ]
    assert not any(second.is_good(other.secret_hash) for other in others)


def test_a_refresh_token_hides_its_secrets_from_logs() -> None:
    token = RefreshToken.new(USER, SESSION)
    assert str(token) not in repr(token)
    assert token.secret.hex() not in repr(token)
    assert repr(token) == f"RefreshToken(session_id={SESSION})"
