from __future__ import annotations

import itertools
import os
from uuid import UUID, uuid4

import pytest

from fanfold.kit.identity import LIFETIME, Identity, IdentitySigner, InvalidIdentityError
from fanfold.kit.keyring import Keyring

KEY = os.urandom(32).hex()
USER = Identity(user_id=uuid4(), session_id=uuid4())
MODERATOR = Identity(user_id=uuid4(), session_id=uuid4(), role="moderator")


@pytest.mark.parametrize("identity", [USER, MODERATOR, Identity(service="feed"), Identity()])
def test_who_signed_is_who_is_verified(identity: Identity) -> None:
    assert IdentitySigner(KEY).verify(IdentitySigner(KEY).sign(identity)) == identity


def test_an_identity_expires_even_when_it_was_verified_before() -> None:
    signer = IdentitySigner(KEY)
    header = signer.sign(USER, now=1_000)
    assert signer.verify(header, now=1_000 + LIFETIME) == USER
    with pytest.raises(InvalidIdentityError, match="expired"):
        signer.verify(header, now=1_001 + LIFETIME)


def test_another_key_is_refused() -> None:
    with pytest.raises(InvalidIdentityError, match="signature"):
        IdentitySigner(os.urandom(32).hex()).verify(IdentitySigner(KEY).sign(USER))


def test_a_key_is_changed_without_a_refusal() -> None:
    new = os.urandom(32).hex()
    steps = [IdentitySigner(text) for text in (KEY, f"{KEY}\n{new}\n", f"{new}\n{KEY}", new)]
    for before, after in itertools.pairwise(steps):  # replicas of both are up at once, on either side
        assert after.verify(before.sign(USER)) == USER
        assert before.verify(after.sign(USER)) == USER
    with pytest.raises(InvalidIdentityError, match="signature"):
        steps[-1].verify(steps[0].sign(USER))


def test_another_user_under_the_same_signature_is_refused() -> None:
    header = IdentitySigner(KEY).sign(USER).replace(str(USER.user_id), str(UUID(int=1)))
    with pytest.raises(InvalidIdentityError, match="signature"):
        IdentitySigner(KEY).verify(header)


@pytest.mark.parametrize("header", ["", "v1", "....", "v1.user:x:y.9.z", "ü.ü.ü.ü", "v1.anonymous.99999999999."])
def test_garbage_is_refused(header: str) -> None:
    with pytest.raises(InvalidIdentityError):
        IdentitySigner(KEY).verify(header)


@pytest.mark.parametrize(
    ("more", "role"),
    [
        (":auditor", ""),
        (":moderator:tier=gold", "moderator"),
        (":tier=gold", ""),
        (":tier=gold:moderator", "moderator"),
        (":auditor:tier=gold:x=", ""),
        (":moderator:auditor", "moderator"),
        (":", ""),
    ],
)
def test_what_a_newer_version_says_of_a_user_is_ignored_not_refused(more: str, role: str) -> None:
    text = f"v1.{USER.subject}{more}.99999999999"
    header = f"{text}.{Keyring(KEY).sign(text.encode()).hex()}"
    assert IdentitySigner(KEY).verify(header) == Identity(USER.user_id, USER.session_id, role=role)


@pytest.mark.parametrize("subject", ["service:feed:zone=b", "anonymous:country=is"])
def test_so_is_what_it_says_of_others(subject: str) -> None:
    text = f"v1.{subject}.99999999999"
    found = IdentitySigner(KEY).verify(f"{text}.{Keyring(KEY).sign(text.encode()).hex()}")
    assert (found.user_id, found.service) == (None, "feed" if "feed" in subject else None)


@pytest.mark.parametrize("subject", ["admin", "service:", "user:not-a-uuid:x", "user:only"])
def test_a_well_signed_but_unknown_subject_is_refused(subject: str) -> None:
    signer = IdentitySigner(KEY)
    text = f"v1.{subject}.99999999999"
    with pytest.raises(InvalidIdentityError, match="malformed"):
        signer.verify(f"{text}.{Keyring(KEY).sign(text.encode()).hex()}")
