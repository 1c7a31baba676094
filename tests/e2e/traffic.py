"""People who go on using a platform while something happens to it: every answer is counted, every post remembered."""

from __future__ import annotations

import asyncio
import secrets
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Self

from fanfold_loadtest.client import Api, ApiError, Person
from fanfold_loadtest.photos import PHOTOS
from fanfold_loadtest.shapes import Page, Post

AUTHORS, FOLLOWERS = 3, 3
PAGES = 400
START_SECONDS = 90.0
END_SECONDS = 60.0


@dataclass
class Report:
    """What came of it.

    Attributes:
        answered: Requests that got what they asked for, by kind.
        failed: Those that did not: (seconds since the start, what, why).
        acked: Posts that were answered with 201: (id, author's number).
    """

    answered: Counter[str] = field(default_factory=Counter)
    failed: list[tuple[float, str, str]] = field(default_factory=list)
    acked: list[tuple[str, int]] = field(default_factory=list)

    def failures(self) -> str:
        """For a failed assertion: how many, and the first ones."""
        shown = "; ".join(f"{at:.1f} s {what}: {why}" for at, what, why in self.failed[:8])
        return f"{len(self.failed)} of {sum(self.answered.values()) + len(self.failed)} requests failed: {shown}"


class Traffic:
    """Authors who post, followers who read feeds and timelines, at a steady pace. A context manager.

    Nothing is tried again: a request that fails is a failure. Runs in a thread of its own, so that a test can use
    blocking commands.

    Args:
        url: Of the gateway.
        per_second: Requests begun a second, all together.
    """

    def __init__(self, url: str, per_second: float = 6.0) -> None:
        self.report = Report()
        self._url = url
        self._pause = 1 / per_second
        self._api: Api
        self._authors: list[Person] = []
        self._followers: list[Person] = []
        self._images: list[str] = []
        self._stopping = threading.Event()
        self._ready = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._main, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._ready.wait(START_SECONDS) or self._error:
            raise RuntimeError(f"traffic did not start: {self._error}")
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> Report:
        """No more requests; those under way are waited for."""
        self._stopping.set()
        self._thread.join(END_SECONDS)
        return self.report

    def _main(self) -> None:
        try:
            asyncio.run(self._run())
        except BaseException as error:  # noqa: BLE001 - told by the thread that waits
            self._error = error
        finally:
            self._ready.set()

    async def _run(self) -> None:
        async with Api(self._url) as self._api:
            await self._join()
            self._ready.set()
            started = time.monotonic()
            kinds = (self._read_feed, self._post, self._read_timeline, self._read_self)
            async with asyncio.TaskGroup() as group:
                for turn in range(1_000_000):
                    if self._stopping.is_set():
                        break
                    group.create_task(self._count(kinds[turn % len(kinds)], turn // len(kinds), started))
                    await asyncio.sleep(max(0.0, started + (turn + 1) * self._pause - time.monotonic()))

    async def _join(self) -> None:
        run = secrets.token_hex(3)
        people = []
        for number in range(AUTHORS + FOLLOWERS):
            password = secrets.token_urlsafe(12)
            await self._api.register(f"person{number}_{run}", password, f"Person {number}")
            people.append(await self._api.login(f"person{number}_{run}", password))
        self._authors, self._followers = people[:AUTHORS], people[AUTHORS:]
        for follower in self._followers:
            for author in self._authors:
                await follower.follow(author.id)
        image = await self._authors[0].upload(PHOTOS[0])
        while (await self._authors[0].image(image.id)).status != "ready":
            await asyncio.sleep(0.25)
        self._images = [image.id]
        for author in self._authors[1:]:
            self._images.append((await author.upload(PHOTOS[0])).id)

    async def _count(self, act: Callable[[int], Awaitable[None]], turn: int, started: float) -> None:
        what = act.__name__.strip("_")
        began = time.monotonic() - started
        try:
            await act(turn)
        except ApiError as error:
            self.report.failed.append((began, what, str(error)))
        else:
            self.report.answered[what] += 1

    async def _post(self, turn: int) -> None:
        number = turn % AUTHORS
        author = self._authors[number]
        body = {"image_ids": [self._images[number]], "caption": f"number {turn}", "alt_texts": [""]}
        answer = await self._api.send("POST", "/v1/posts", token=author.token, attempts=1, json=body)
        self.report.acked.append((answer.json()["id"], number))

    async def _read_feed(self, turn: int) -> None:
        follower = self._followers[turn % FOLLOWERS]
        await self._api.send("GET", "/v1/feed", token=follower.token, attempts=1)

    async def _read_timeline(self, turn: int) -> None:
        reader, author = self._followers[turn % FOLLOWERS], self._authors[turn % AUTHORS]
        await self._api.send("GET", f"/v1/users/{author.id}/posts", token=reader.token, attempts=1)

    async def _read_self(self, turn: int) -> None:
        follower = self._followers[turn % FOLLOWERS]
        await self._api.send("GET", "/v1/users/me", token=follower.token, attempts=1)

    @property
    def token(self) -> str:
        """Of one of the people."""
        return self._followers[0].token

    def doubled(self) -> list[str]:
        """Captions that stand in their author's timeline twice: a post that was made twice."""
        return asyncio.run(self._doubled())

    async def _doubled(self) -> list[str]:
        captions: Counter[str] = Counter()
        async with Api(self._url) as api:
            for author in self._authors:
                author.api = api
                captions.update((await _all_of(partial(author.timeline, author.id, 50))).values())
        return [caption for caption, number in captions.items() if number > 1]

    def lost(self, seconds: float) -> list[str]:
        """Acknowledged posts missing from their author's timeline or from a follower's feed, once all had time."""
        return asyncio.run(self._lost(seconds))

    async def _lost(self, seconds: float) -> list[str]:
        deadline = time.monotonic() + seconds
        async with Api(self._url) as api:
            for person in (*self._authors, *self._followers):
                person.api = api
            while True:
                missing = await self._missing()
                if not missing or time.monotonic() > deadline:
                    return missing
                await asyncio.sleep(1)

    async def _missing(self) -> list[str]:
        missing = []
        for number, author in enumerate(self._authors):
            seen = await _all_of(partial(author.timeline, author.id, 50))
            own = [post for post, of in self.report.acked if of == number]
            missing += [f"{post} from its author's timeline" for post in own if post not in seen]
        for follower in self._followers:
            seen = await _all_of(partial(follower.feed, 50))
            missing += [f"{post} from a follower's feed" for post, _ in self.report.acked if post not in seen]
        return missing


async def _all_of(read: Callable[[str | None], Awaitable[Page[Post]]]) -> dict[str, str]:
    """Captions by id, of all pages of a list."""
    found: dict[str, str] = {}
    cursor: str | None = None
    for _ in range(PAGES):
        page = await read(cursor)
        found |= {post.id: post.caption for post in page.items}
        cursor = page.next_cursor
        if cursor is None:
            return found
    raise RuntimeError(f"more than {PAGES} pages")
