from __future__ import annotations

import base64
import json
import time
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fanfold.gateway.tokens import CACHE_LIMIT, REFRESH_SECONDS, KeySet, Tokens
from fanfold.kit.errors import Unauthorized
from fanfold.kit.identity import Identity, IdentitySigner

if TYPE_CHECKING:
    from tests.unit.gateway.conftest import Issuer, Rig

SIGNER = IdentitySigner("22" * 32)


@pytest.fixture
def tokens(issuer: Issuer) -> Tokens:
    made = Tokens(KeySet(issuer.path), SIGNER)
    made.reload_keys()
    return made


def bearer(token: str) -> bytes:
    return b"Bearer " + token.encode()


def header(line: bytes) -> str:
    return line.decode().removeprefix("x-fanfold-identity: ").removesuffix("\r\n")


def test_a_valid_token_names_its_user_and_session(tokens: Tokens, issuer: Issuer) -> None:
    user, session = uuid4(), uuid4()
    principal = tokens.principal(bearer(issuer.token(user, session)), 0.0)
    assert SIGNER.verify(header(principal.line)) == Identity(user_id=user, session_id=session)


@pytest.mark.parametrize(("claim", "role"), [("moderator", "moderator"), ("emperor", ""), (7, ""), (None, "")])
def test_a_token_gives_a_role_that_there_is(tokens: Tokens, issuer: Issuer, claim: Any, role: str) -> None:
    principal = tokens.principal(bearer(issuer.token(role=claim)), 0.0)
    assert SIGNER.verify(header(principal.line)).role == role


def test_a_token_is_verified_once(tokens: Tokens, issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    given = bearer(issuer.token())
    first = tokens.principal(given, 0.0)
    monkeypatch.setattr(KeySet, "verify", None)
    assert tokens.principal(given, 1.0) is first


def test_the_scheme_is_not_case_sensitive(tokens: Tokens, issuer: Issuer) -> None:
    assert tokens.principal(b"bEARER " + issuer.token().encode(), 0.0).key is not None


def none_algorithm(issuer: Issuer) -> str:
    head = base64.urlsafe_b64encode(json.dumps({"alg": "none", "typ": "JWT", "kid": "key-1"}).encode()).rstrip(b"=")
    return head.decode() + "." + issuer.token().split(".")[1] + "."


BAD: dict[str, Any] = {
    "signed with another key": lambda issuer: issuer.token(key=Ed25519PrivateKey.generate()),
    "unknown key id": lambda issuer: issuer.token(kid="key-2"),
    "alg none": none_algorithm,
    "symmetric with the public key": lambda issuer: issuer.token(key="k" * 32, algorithm="HS256"),
    "expired": lambda issuer: issuer.token(exp=int(time.time()) - 31),
    "issued in the future": lambda issuer: issuer.token(iat=int(time.time()) + 60),
    "another issuer": lambda issuer: issuer.token(iss="somebody"),
    "no session": lambda issuer: issuer.token(without="sid"),
    "no user": lambda issuer: issuer.token(without="sub"),
    "no expiry": lambda issuer: issuer.token(without="exp"),
    "user no uuid": lambda issuer: issuer.token(sub="admin"),
    "session no string": lambda issuer: issuer.token(sid=5),
    "not a token": lambda _: "nonsense",
    "three dots": lambda _: "...",
    "not ascii": lambda _: "ä.ö.ü",
    "far too long": lambda issuer: issuer.token(junk="x" * 5000),
    "changed": lambda issuer: issuer.token()[:-4] + "AAAA",
}


@pytest.mark.parametrize("make", BAD.values(), ids=BAD.keys())
def test_a_token_that_does_not_count_is_401(tokens: Tokens, issuer: Issuer, make: Any) -> None:
    with pytest.raises(Unauthorized):
        tokens.principal(bearer(make(issuer)), 0.0)


@pytest.mark.parametrize("given", [None, b"", b"Bearer", b"Bearer ", b"Basic YTpi"])
def test_without_a_bearer_token_the_client_is_told_how_to_send_one(tokens: Tokens, given: bytes | None) -> None:
    with pytest.raises(Unauthorized, match="Bearer TOKEN") as refused:
        tokens.principal(given, 0.0)
    assert refused.value.headers["www-authenticate"] == "Bearer"


def test_an_expired_token_says_so_as_rfc_6750_wants(tokens: Tokens, issuer: Issuer) -> None:
    with pytest.raises(Unauthorized, match="expired") as refused:
        tokens.principal(bearer(issuer.token(exp=int(time.time()) - 60)), 0.0)
    assert refused.value.headers["www-authenticate"] == 'Bearer error="invalid_token"'


def test_clocks_may_differ_by_half_a_minute(tokens: Tokens, issuer: Issuer) -> None:
    now = int(time.time())
    assert tokens.principal(bearer(issuer.token(exp=now - 15)), 0.0).key is not None
    assert tokens.principal(bearer(issuer.token(iat=now + 25)), 0.0).key is not None


def test_a_remembered_token_ends_with_its_expiry(
    tokens: Tokens, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = bearer(issuer.token(exp=int(time.time()) + 10))
    principal = tokens.principal(given, 0.0)
    assert principal.refresh_at <= 41
    later = time.time() + 41
    monkeypatch.setattr(time, "time", lambda: later)
    with pytest.raises(Unauthorized, match="expired"):
        tokens.principal(given, 41.0)


def test_the_identity_is_signed_anew_before_it_expires(
    tokens: Tokens, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = bearer(issuer.token())
    first = tokens.principal(given, 0.0).line
    later = time.time() + 61
    monkeypatch.setattr(time, "time", lambda: later)
    assert tokens.principal(given, REFRESH_SECONDS - 1).line == first
    assert tokens.principal(given, REFRESH_SECONDS).line != first
    anonymous = tokens.nobody(0.0).line
    later += 61
    assert tokens.nobody(REFRESH_SECONDS).line != anonymous


def test_a_revoked_session_is_refused_though_remembered(tokens: Tokens, issuer: Issuer) -> None:
    session = uuid4()
    given = bearer(issuer.token(session=session))
    tokens.principal(given, 0.0)
    tokens.revoked = frozenset((session.bytes,))
    with pytest.raises(Unauthorized, match="logged out"):
        tokens.principal(given, 1.0)


def test_keys_follow_their_file_and_one_taken_out_counts_no_more(tokens: Tokens, issuer: Issuer) -> None:
    old = bearer(issuer.token())
    tokens.principal(old, 0.0)
    fresh = Ed25519PrivateKey.generate()
    issuer.publish({"key-1": issuer.key, "key-2": fresh})
    tokens.reload_keys()
    tokens.principal(old, 1.0)
    new = bearer(issuer.token(key=fresh, kid="key-2"))
    tokens.principal(new, 1.0)
    issuer.publish({"key-2": fresh})
    tokens.reload_keys()
    tokens.principal(new, 2.0)
    with pytest.raises(Unauthorized):
        tokens.principal(old, 2.0)


@pytest.mark.parametrize("damage", ["not json", '{"keys": 5}', "{}", None])
def test_a_broken_key_file_leaves_the_keys_as_they_were(tokens: Tokens, issuer: Issuer, damage: str | None) -> None:
    if damage is None:
        issuer.path.unlink()
    else:
        issuer.path.write_text(damage)
    tokens.reload_keys()
    assert not tokens.without_keys
    tokens.principal(bearer(issuer.token()), 0.0)


def test_remembered_tokens_are_bounded_and_the_oldest_go_first(
    tokens: Tokens, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert CACHE_LIMIT > 10_000
    monkeypatch.setattr("fanfold.gateway.tokens.CACHE_LIMIT", 2)
    given = [bearer(issuer.token()) for _ in range(3)]
    kept = [tokens.principal(one, 0.0) for one in given]
    assert tokens.principal(given[2], 1.0) is kept[2]
    assert tokens.principal(given[1], 1.0) is kept[1]
    assert tokens.principal(given[0], 1.0) is not kept[0]


async def test_a_request_without_a_valid_token_never_reaches_a_service(rig: Rig) -> None:
    await rig.start()
    for authorization in (b"", b"authorization: Bearer nonsense\r\n"):
        wire = await rig.send(b"GET /v1/feed HTTP/1.1\r\nhost: a\r\n" + authorization + b"\r\n")
        got = await wire.answer()
        assert (got.status, got.problem["title"]) == (401, "Unauthorized")
        assert got.headers["www-authenticate"].startswith("Bearer")
        assert "connection" not in got.headers
    assert rig.service.received == []
