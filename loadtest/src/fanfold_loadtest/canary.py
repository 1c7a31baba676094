"""The canary: posts a photograph every few seconds, looks when a follower's feed shows it, and deletes it again.

It sees freshness as people do, from outside and through everything, also when nobody else posts.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fanfold_loadtest.client import ApiError
from fanfold_loadtest.photos import PHOTOS
from fanfold_loadtest.telemetry import CANARY_AGE, CANARY_PROBES, CANARY_SUCCESS

if TYPE_CHECKING:
    from collections.abc import Callable

    from fanfold_loadtest.client import Api, Person

WATCH_SECONDS: Final = 30.0
"""A post that its follower does not see for so long is late."""
LOOK_SECONDS: Final = 0.1
"""Between two looks: the resolution of ages."""
VARIANTS_SECONDS: Final = 60.0


class CanaryError(Exception):
    """The canary could not begin; the message says why, in one line."""


@dataclass(slots=True)
class _Couple:
    """Who posts and who follows, each with a password to leave with."""

    author: Person
    follower: Person
    password: str
    renew_at: float


class Canary:
    """Probes one platform.

    Args:
        api: The gateway.
        tell: Called with one line for each probe that did not succeed.
    """

    def __init__(self, api: Api, tell: Callable[[str], None]) -> None:
        self._api = api
        self._tell = tell
        self._couple: _Couple | None = None

    async def run(self, every: float, stop: asyncio.Event) -> None:
        """Probe every so many seconds until ``stop``, then delete the two accounts.

        Raises:
            CanaryError: Its people could not be made at the beginning. Later the next probe tries again.
        """
        try:
            self._couple = await self._join()
        except ApiError as error:
            raise CanaryError(str(error)) from error
        stopped = asyncio.create_task(stop.wait())
        try:
            while not stop.is_set():
                begun = time.monotonic()
                probe = asyncio.create_task(self.probe())
                await asyncio.wait({probe, stopped}, return_when=asyncio.FIRST_COMPLETED)
                if not probe.done():
                    probe.cancel()  # it takes its post back and is not counted
                with suppress(asyncio.CancelledError):
                    await probe
                await asyncio.wait({stopped}, timeout=max(0.0, every - (time.monotonic() - begun)))
        finally:
            stopped.cancel()
            await self._leave()

    async def probe(self) -> float | None:
        """One post: the age at which it was seen in seconds; None when it was not."""
        try:
            self._couple = self._couple or await self._join()
            await self._renew(self._couple)
            age = await self._post_and_look(self._couple)
        except ApiError as error:
            if error.status in {401, 404}:  # its people are gone, perhaps with the whole database
                self._couple = None
            CANARY_PROBES.labels("failed").inc()
            self._tell(f"failed: {error}")
            return None
        if age is None:
            CANARY_PROBES.labels("late").inc()
            self._tell(f"late: not seen within {WATCH_SECONDS:g} s")
            return None
        CANARY_PROBES.labels("seen").inc()
        CANARY_AGE.observe(age)
        CANARY_SUCCESS.set_to_current_time()
        return age

    async def _join(self) -> _Couple:
        password = secrets.token_urlsafe(12)
        people = []
        for role in ("author", "follower"):
            name = f"canary_{role}_{secrets.token_hex(3)}"
            await self._api.register(name, password, f"Canary {role}")
            people.append(await self._api.login(name, password))
        author, follower = people
        await follower.follow(author.id)
        await follower.feed(limit=1)  # warm: what is measured is the push into a feed, not its rebuild
        return _Couple(author, follower, password, time.monotonic() + author.expires_in / 2)

    async def _renew(self, couple: _Couple) -> None:
        if time.monotonic() >= couple.renew_at:
            await couple.author.renew()
            await couple.follower.renew()
            couple.renew_at = time.monotonic() + couple.author.expires_in / 2

    async def _post_and_look(self, couple: _Couple) -> float | None:
        author = couple.author
        image = await author.upload(PHOTOS[0])  # known after the first time: nothing is stored twice
        until = time.monotonic() + VARIANTS_SECONDS
        while image.status != "ready":
            if time.monotonic() > until:
                raise ApiError(f"image {image.id} is still {image.status} after {VARIANTS_SECONDS:g} s")
            await asyncio.sleep(LOOK_SECONDS)
            image = await author.image(image.id)
        post = await author.post([image.id], "A canary sings", [PHOTOS[0].name])
        answered = time.monotonic()
        try:
            while (age := time.monotonic() - answered) < WATCH_SECONDS:
                if any(shown.id == post.id for shown in (await couple.follower.feed(limit=5)).items):
                    return age
                await asyncio.sleep(LOOK_SECONDS)
            return None
        finally:
            await author.delete_post(post.id)

    async def _leave(self) -> None:
        if self._couple is None:
            return
        for person in (self._couple.author, self._couple.follower):
            try:
                await person.leave(self._couple.password)
            except ApiError as error:
                self._tell(f"an account is left behind: {error}")
