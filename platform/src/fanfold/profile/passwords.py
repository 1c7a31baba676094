"""Passwords: which are taken, and argon2id in threads of their own."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from importlib import resources
from typing import TYPE_CHECKING, Final, TypeVar

from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher

from fanfold.kit.errors import Unavailable, Unprocessable

if TYPE_CHECKING:
    from collections.abc import Callable

Answer = TypeVar("Answer")

MIN_LENGTH: Final = 8
MAX_LENGTH: Final = 128
"""Characters. NIST SP 800-63B asks for at least 8 and for at least 64 to be allowed; no rules of composition."""
FEWEST_DIFFERENT: Final = 4

# OWASP Password Storage Cheat Sheet: argon2id with 19 MiB, 2 passes, 1 lane.
MEMORY_KIB: Final = 19_456
PASSES: Final = 2


@cache
def weak_passwords() -> frozenset[str]:
    """The most used passwords, lower case."""
    text = (resources.files("fanfold.profile") / "weak_passwords.txt").read_text(encoding="utf-8")
    return frozenset(line for line in text.splitlines() if line and not line.startswith("#"))


def check(password: str, username: str) -> None:
    """Refuse passwords that guessing finds first.

    Raises:
        Unprocessable: Too short, too long, among the most used, of too few different characters, or the username with
            no more than its own length added.
    """
    if not MIN_LENGTH <= len(password) <= MAX_LENGTH:
        raise _weak(f"must have {MIN_LENGTH} to {MAX_LENGTH} characters")
    lowered = password.lower()
    if username in lowered and len(lowered) <= 2 * len(username):
        raise _weak("must not be the username with little added")
    if len(set(lowered)) < FEWEST_DIFFERENT or lowered in weak_passwords():
        raise _weak("is among the first that are guessed; take another")


def _weak(reason: str) -> Unprocessable:
    return Unprocessable(f"The password {reason}.", kind="weak-password")


class Hasher:
    """Hashes and verifies with argon2id, at most ``threads`` at once.

    Args:
        threads: Threads of its own; argon2 leaves the interpreter's lock while it works.
        queue: Passwords that may wait for a thread.
    """

    def __init__(self, threads: int, queue: int) -> None:
        self._passwords = PasswordHash((Argon2Hasher(time_cost=PASSES, memory_cost=MEMORY_KIB, parallelism=1),))
        self._executor = ThreadPoolExecutor(threads, "password")
        self._room = threads + queue
        # Checked when there is no such user, so that the answer takes as long as with one.
        self._nobody = self._passwords.hash("nobody has this password")

    async def hash(self, password: str) -> str:
        """PHC string.

        Raises:
            Unavailable: Too many are waiting.
        """
        return await self._run(partial(self._passwords.hash, password))

    async def verify(self, password: str, known: str | None) -> tuple[bool, str | None]:
        """Whether the password belongs to the hash, and a new hash if that one's parameters are out of date.

        Without a hash the answer is no, after the same work. Raises as `hash`.
        """
        matches, renewed = await self._run(
            partial(self._passwords.verify_and_update, password, known if known is not None else self._nobody)
        )
        return (matches, renewed) if known is not None else (False, None)

    async def close(self) -> None:
        """Let what is under way end."""
        await asyncio.to_thread(self._executor.shutdown, cancel_futures=True)

    async def _run(self, work: Callable[[], Answer]) -> Answer:
        if self._room == 0:
            raise Unavailable("Too many people log in at this moment; try again.")
        self._room -= 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, work)
        finally:
            self._room += 1
