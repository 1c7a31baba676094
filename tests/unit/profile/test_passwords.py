from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest
from argon2 import PasswordHasher

from fanfold.kit.errors import Unavailable, Unprocessable
from fanfold.profile import passwords
from fanfold.profile.passwords import Hasher


@pytest.mark.parametrize(
    ("password", "reason"),
    [
        ("short7!", "8 to 128"),
        ("x" * 129, "8 to 128"),
        ("password1", "first that are guessed"),
        ("PassWord1", "first that are guessed"),
        ("aaaabbbbaaaa", "first that are guessed"),
        ("ada_l123", "username"),
        ("9!ADA_L!9x", "username"),
    ],
)
def test_passwords_that_are_guessed_first_are_refused(password: str, reason: str) -> None:
    with pytest.raises(Unprocessable, match=reason) as caught:
        passwords.check(password, "ada_l")
    assert caught.value.kind == "weak-password"


@pytest.mark.parametrize(
    "password", ["tr0ubador&3", "correct horse battery staple", "пароль-длинный", "a1b2" * 32, "ada_l went to sea"]
)
def test_long_enough_and_uncommon_passwords_are_taken_without_rules_of_composition(password: str) -> None:
    passwords.check(password, "ada_l")


def test_the_list_of_weak_passwords_holds_no_comment_and_only_what_the_length_rule_lets_through() -> None:
    weak = passwords.weak_passwords()
    assert len(weak) > 10_000
    assert not [word for word in weak if word.startswith("#") or len(word) < passwords.MIN_LENGTH]


@pytest.fixture
async def hasher() -> AsyncIterator[Hasher]:
    made = Hasher(threads=1, queue=1)
    yield made
    await made.close()


async def test_a_password_is_known_by_its_hash_only(hasher: Hasher) -> None:
    known = await hasher.hash("tr0ubador&3")
    assert known.startswith(f"$argon2id$v=19$m={passwords.MEMORY_KIB},t={passwords.PASSES},p=1$")
    assert await hasher.verify("tr0ubador&3", known) == (True, None)
    assert await hasher.verify("tr0ubador&4", known) == (False, None)


async def test_nobody_has_a_password_though_the_same_work_is_done(
    hasher: Hasher, monkeypatch: pytest.MonkeyPatch
) -> None:
    verified: list[str] = []
    genuine = hasher._passwords.verify_and_update

    def recording(given: str, known: str) -> tuple[bool, str | None]:
        verified.append(known)
        return genuine(given, known)

    monkeypatch.setattr(hasher._passwords, "verify_and_update", recording)
    assert await hasher.verify("nobody has this password", None) == (False, None)
    assert verified == [hasher._nobody]


async def test_a_hash_of_older_parameters_is_renewed(hasher: Hasher) -> None:
    old = PasswordHasher(time_cost=1, memory_cost=8_192, parallelism=1).hash("tr0ubador&3")
    matches, renewed = await hasher.verify("tr0ubador&3", old)
    assert matches
    assert renewed is not None
    assert await hasher.verify("tr0ubador&3", renewed) == (True, None)


async def test_passwords_beyond_the_queue_are_refused_and_the_loop_is_never_blocked(hasher: Hasher) -> None:
    held = threading.Event()
    waiting = [asyncio.ensure_future(hasher._run(lambda: held.wait(60))) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(Unavailable):
        await hasher.hash("one too many")
    held.set()
    assert await asyncio.gather(*waiting) == [True, True]
    assert await hasher.hash("there is room again")
