"""The demo: people join, follow, post real photographs, like and comment; then everything they see is checked.

It begins with fresh names each time, so it can be repeated on one platform. Every wait has a limit.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

import httpx
import websockets

from fanfold_loadtest.arrivals import Measurement, poisson, run_open
from fanfold_loadtest.checks import Expected, feed_differs, variant_differs
from fanfold_loadtest.client import Api, ApiError, Person
from fanfold_loadtest.graph import Graph, make_graph
from fanfold_loadtest.photos import PHOTOS, Photo, PhotosMissingError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence

    from websockets.asyncio.client import ClientConnection

    from fanfold_loadtest.crowd import Crowd
    from fanfold_loadtest.shapes import Image, Post

Answer = TypeVar("Answer")

AT_ONCE: Final = 8
"""Requests under way while people and posts are made: friendly to a demo on two cores."""
UPLOADS: Final = 12
POSTS: Final = 30
READERS: Final = 5
"""People whose whole feeds are checked."""
GATEWAY_SECONDS: Final = 60.0
WHERE: Final = "`make dev` serves http://127.0.0.1:8080, `kubectl get platforms` shows a cluster's"
VARIANTS_SECONDS: Final = 120.0
SETTLE_SECONDS: Final = 30.0
"""For fan-out to arrive and for counts, cached for seconds, to be counted again."""
FANOUT_SECONDS: Final = 180.0
"""For the preparation's own posts to reach everybody: six of the celebrity's to a million warm feeds take half a minute
at 200,000 deliveries a second."""
POLL_SECONDS: Final = 0.25
NOTIFICATION_SECONDS: Final = 15.0
PAGE: Final = 10
"""Smaller than a cached feed, so that the check crosses pages."""
MAX_PAGES: Final = 100
REMARKS: Final = ("Wonderful light!", "Where is this?", "I was there!", "What a shot.", "More of these, please.")


class JourneyError(Exception):
    """A step failed; the message names it and says why, in one line."""


@dataclass(frozen=True, slots=True)
class Step:
    """One thing done, with what it came to and how long it took."""

    name: str
    detail: str
    seconds: float


@dataclass(slots=True)
class Outcome:
    """What the demo leaves: somebody to try the platform as, and figures."""

    url: str
    run: str
    username: str = ""
    password: str = ""
    steps: list[Step] = field(default_factory=list)
    feed_reads: Measurement = field(default_factory=Measurement)


class Journey:
    """One run of the demo.

    Args:
        api: The gateway.
        people: How many join, 3 or more; with a crowd all of its members come.
        seed: Of the graph and of who likes what.
        tell: Called with each finished step.
        crowd: Whose people to log in as, in place of making some; they follow each other already.
    """

    def __init__(
        self, api: Api, people: int, seed: int, tell: Callable[[Step], None], crowd: Crowd | None = None
    ) -> None:
        self.api = api
        self.graph: Graph = make_graph(people, seed) if crowd is None else crowd.graph()
        self._crowd = crowd
        self.outcome = Outcome(api.url, run=secrets.token_hex(3))
        self.people: list[Person] = []
        self.posts: list[Expected] = []
        self.undrained = ""
        self._passwords = [secrets.token_urlsafe(12) for _ in self.graph.names]
        self._chance = random.Random(seed)  # noqa: S311 - reproducible, not secret
        self._tell = tell
        self._images: list[tuple[int, Photo, Image]] = []
        self._detail = ""

    async def run(self, rate: float, seconds: float) -> Outcome:
        """All steps; ``rate`` and ``seconds`` are of the feed reads measured at the end.

        Raises:
            JourneyError: A step failed.
        """
        await self.populate()
        await self._step("check feeds", self._check_feeds)
        await self._step("check photos", self._check_photos)
        await self._step("check a live notification", self._check_notification)
        await self._step("check an unfollow", self._check_unfollow)
        await self._step("measure feed reads", lambda: self._measure(rate, seconds))
        return self.outcome

    async def populate(self, patience: float | None = None, watchers: int = 0) -> None:
        """Make people, follows, photos, posts, likes and comments.

        With watchers it ends when the last people of the list see the celebrity's newest post, so that what is measured
        next does not meet the fan-out of the preparation; `undrained` says so if they do not in time.

        Args:
            patience: Seconds for the gateway to answer at all; `GATEWAY_SECONDS` without.
            watchers: How many followers of the celebrity look out for that post.

        Raises:
            JourneyError: A step failed.
        """
        await self._step("find the gateway", partial(self._find_gateway, patience or GATEWAY_SECONDS))
        if self._crowd is None:
            await self._step("register people", self._register)
            await self._step("follow", self._follow)
        else:
            await self._step("log in as seeded people", partial(self._log_in, self._crowd))
        await self._step("upload photographs", self._upload)
        await self._step("wait for variants", self._await_variants)
        # A warm feed is pushed into, a cold one would be rebuilt by the look itself.
        await _gather(lambda person: person.feed(limit=1), self.people[1:][-watchers:] if watchers else [])
        await self._step("post", self._post)
        await self._step("like and comment", self._react)
        if watchers:
            await self._step("wait for fan-out", partial(self._await_fanout, watchers))

    def photo_of(self, person: int) -> str:
        """Id of a ready photo of somebody who has one."""
        return next(image.id for author, _, image in self._images if author == person)

    async def _step(self, name: str, work: Callable[[], Awaitable[str]]) -> None:
        started = time.perf_counter()
        with _explained(name):
            detail = await work()
        step = Step(name, detail, time.perf_counter() - started)
        self.outcome.steps.append(step)
        self._tell(step)

    # ---- making a platform that is worth looking at -----------------------------------------------------------------

    async def _find_gateway(self, patience: float) -> str:
        async def answers() -> str | None:
            try:
                await self.api.send("GET", "/v1/users/me")
            except ApiError as error:
                return None if error.status == httpx.codes.UNAUTHORIZED else str(error)
            return "somebody without a token is let in"

        await _until(answers, patience, f"; is this the gateway's URL? {WHERE}")
        return self.api.url

    async def _register(self) -> str:
        async def join(number: int) -> Person:
            name = self.graph.names[number]
            username = f"{name.lower().replace(' ', '')}_{self.outcome.run}"
            await self.api.register(username, self._passwords[number], name)
            return await self.api.login(username, self._passwords[number])

        self.people = await _gather(join, range(len(self.graph.names)))
        self.outcome.username, self.outcome.password = self.people[1].username, self._passwords[1]
        return f"{len(self.people)} people"

    async def _log_in(self, crowd: Crowd) -> str:
        async def enter(number: int) -> Person:
            return await self.api.login(crowd.username(number), crowd.password)

        self.people = await _gather(enter, range(len(self.graph.names)))
        return (
            f"{len(self.people)} of {crowd.degrees.people} people; the celebrity has {crowd.degrees.top[0]} followers"
        )

    async def _follow(self) -> str:
        async def follow(pair: tuple[int, int]) -> None:
            await self.people[pair[0]].follow(self.people[pair[1]].id)

        await _gather(follow, self.graph.follows)
        return f"{len(self.graph.follows)} follows, {len(self.people) - 1} of the celebrity"

    def _authors(self) -> list[int]:
        """The celebrity twice, then the most followed."""
        ranked = sorted(range(1, len(self.people)), key=lambda number: -len(self.graph.followers(number)))
        return [0, 0, *ranked][:UPLOADS]

    async def _upload(self) -> str:
        jobs = list(enumerate(self._authors()))

        async def upload(job: tuple[int, int]) -> tuple[int, Photo, Image]:
            number, author = job
            photo = PHOTOS[number % len(PHOTOS)]
            return author, photo, await self.people[author].upload(photo)

        self._images = await _gather(upload, jobs)
        return f"{len(jobs)} photographs"

    async def _await_variants(self) -> str:
        async def ready(entry: tuple[int, Photo, Image]) -> int:
            author, _, image = entry
            current = image

            async def made() -> str | None:
                nonlocal current
                current = await self.people[author].image(image.id)
                if current.status == "failed":
                    raise JourneyError(f"image {image.id} failed: {current.failure}")
                return None if current.status == "ready" else f"image {image.id} is still {current.status}"

            await _until(made, VARIANTS_SECONDS)
            variants = current.variants
            return len(variants.widths) * len(variants.formats) if variants else 0

        return f"{sum(await _gather(ready, self._images))} variants"

    async def _post(self) -> str:
        # One after the other: the order of ids is the order of the feed that is checked later.
        for number in range(POSTS):
            author, photo, image = self._images[number % len(self._images)]
            caption = f"{photo.caption} (photo: {photo.credit}, {photo.licence})"
            made = await self.people[author].post([image.id], caption, [photo.name])
            self.posts.append(Expected(made.id, self.people[author].id, caption))
        return f"{len(self.posts)} posts"

    async def _react(self) -> str:
        likes = [
            (reader, post)
            for reader in range(len(self.people))
            for post in self._chance.sample(self.posts, k=len(self.posts) // 6)
        ]
        comments = self._chance.choices(likes, k=len(self.people))

        async def like(deed: tuple[int, Expected]) -> None:
            reader, post = deed
            await self.people[reader].like(post.id)
            post.liked_by.add(self.people[reader].id)

        async def comment(deed: tuple[int, Expected]) -> None:
            reader, post = deed
            await self.people[reader].comment(post.id, self._chance.choice(REMARKS))
            post.comments += 1

        await _gather(like, likes)
        await _gather(comment, comments)
        return f"{len(likes)} likes, {len(comments)} comments"

    async def _await_fanout(self, watchers: int) -> str:
        newest = next(post.id for post in reversed(self.posts) if post.author == self.people[0].id)

        async def look(person: Person) -> None:
            async def sees() -> str | None:
                there = any(post.id == newest for post in (await person.feed(limit=POSTS)).items)
                return None if there else f"{person.username} does not see the newest of the preparation's posts"

            await _until(sees, FANOUT_SECONDS)

        try:
            await _gather(look, self.people[1:][-watchers:])
        except JourneyError as error:
            self.undrained = f"its own fan-out was under way when the load began: {error}"
            return self.undrained
        return f"{watchers} followers have the newest post, the last one among them"

    # ---- checks -----------------------------------------------------------------------------------------------------

    def _expected_feed(self, reader: int) -> list[Expected]:
        followed = {self.people[number].id for number in self.graph.followees(reader)}
        wanted = [post for post in self.posts if post.author in followed | {self.people[reader].id}]
        return sorted(wanted, key=lambda post: post.id, reverse=True)

    async def _check_feeds(self) -> str:
        readers = [1, *self._chance.sample(range(2, len(self.people)), k=min(READERS - 1, len(self.people) - 2))]

        async def check(reader: int) -> int:
            person, expected = self.people[reader], self._expected_feed(reader)

            async def right() -> str | None:
                problem = feed_differs(await whole_feed(person), expected, person.id)
                return problem and f"feed of {person.username}: {problem}"

            await _until(right, SETTLE_SECONDS)
            return len(expected)

        return f"{sum(await _gather(check, readers))} posts in {len(readers)} feeds are right"

    async def _check_photos(self) -> str:
        feed = await self.people[1].feed()
        image = feed.items[0].images[0]
        made = image.variants
        if made is None:
            raise JourneyError(f"image {image.id} has no variants")
        every = [(width, kind) for width in made.widths for kind in made.formats]
        size = 0
        for width, kind in every:
            url = made.url_of(width, kind)
            answer = await self.api.download(url)
            if problem := variant_differs(answer, image, width, kind):
                raise JourneyError(problem)
            size += len(answer.content)
            again = await self.api.download(url, **{"if-none-match": answer.headers["etag"]})
            if again.status_code != 304:
                raise JourneyError(f"{url} was sent again to somebody who has it")
        formats = ", ".join(sorted(made.formats))
        return f"{len(every)} variants ({formats}), {size / 1024:.0f} KiB, decode as promised"

    async def _check_notification(self) -> str:
        # Of the author who was liked least just now: who gets more than is pushed polls for the rest.
        crowd = Counter({post.author: 0 for post in self.posts})
        for liked in self.posts:
            crowd[liked.author] += len(liked.liked_by)
        post = min(self.posts, key=lambda post: crowd[post.author])
        author = next(person for person in self.people if person.id == post.author)
        fan = next(person for person in self.people if person.id not in post.liked_by | {author.id})
        async with author.listen() as socket:
            started = time.perf_counter()
            await fan.like(post.id)
            post.liked_by.add(fan.id)
            await _heard_of(socket, author, post.id, fan)
            seconds = time.perf_counter() - started
        return f"a like reached its author in {seconds * 1000:.0f} ms"

    async def _check_unfollow(self) -> str:
        reader = self.people[-1]
        author = self.people[0]
        await reader.unfollow(author.id)
        if any(post.author.id == author.id for post in await whole_feed(reader)):
            raise JourneyError(
                f"{reader.username} still sees posts of {author.username} after the unfollow was answered"
            )
        await reader.follow(author.id)
        return "posts of the unfollowed are gone at once"

    async def _measure(self, rate: float, seconds: float) -> str:
        starts = poisson(rate, seconds, seed=self._chance.randrange(1 << 30))

        async def read(number: int) -> None:
            reader = self.people[number % len(self.people)]
            await self.api.send("GET", "/v1/feed", token=reader.token, attempts=1)

        measured = self.outcome.feed_reads = await run_open(starts, read)
        if measured.failures:
            raise JourneyError(f"{len(measured.failures)} of {measured.requests} reads failed: {measured.failures[0]}")
        milliseconds = [measured.percentile(percent) * 1000 for percent in (50, 99)]
        return "{} reads at {:g}/s: p50 {:.1f} ms, p99 {:.1f} ms".format(measured.requests, rate, *milliseconds)


async def whole_feed(person: Person) -> list[Post]:
    """All pages of a feed, to its end.

    Raises:
        JourneyError: It does not end.
    """
    posts: list[Post] = []
    cursor: str | None = None
    for _ in range(MAX_PAGES):
        page = await person.feed(limit=PAGE, cursor=cursor)
        posts += page.items
        cursor = page.next_cursor
        if cursor is None:
            return posts
    raise JourneyError(f"the feed of {person.username} does not end after {MAX_PAGES} pages")


async def _heard_of(socket: ClientConnection, author: Person, post_id: str, fan: Person) -> None:
    """Read notifications until one tells of this person's deed on this post; others may come before.

    Who gets too many to be pushed is told to poll, and does.
    """
    try:
        async with asyncio.timeout(NOTIFICATION_SECONDS):
            while True:
                message = await socket.recv(decode=True)
                if '"kind":"poll"' in message:
                    message = await author.notifications()
                if post_id in message and (fan.id in message or fan.username in message):
                    return
    except TimeoutError as error:
        raise JourneyError(f"no notification of the like arrived within {NOTIFICATION_SECONDS:g} s") from error


async def _gather(work: Callable[[Any], Coroutine[Any, Any, Answer]], items: Sequence[Any]) -> list[Answer]:
    """``work`` on all items, `AT_ONCE` at a time, answers in order; the first failure ends the rest."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(item: Any) -> Answer:
        async with gate:
            return await work(item)

    try:
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(one(item)) for item in items]
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None
    return [task.result() for task in running]


async def _until(check: Callable[[], Awaitable[str | None]], seconds: float, hint: str = "") -> None:
    """Ask again until ``check`` returns None.

    Raises:
        JourneyError: It still returned a reason after ``seconds``.
    """
    deadline = time.monotonic() + seconds
    while (reason := await check()) is not None:
        if time.monotonic() >= deadline:
            raise JourneyError(f"{reason} (waited {seconds:g} s){hint}")
        await asyncio.sleep(POLL_SECONDS)


@contextmanager
def _explained(step: str) -> Iterator[None]:
    """Turn what a step may raise into one line that names it."""
    try:
        yield
    except (JourneyError, ApiError, PhotosMissingError, OSError, websockets.WebSocketException) as error:
        reason = str(error) or type(error).__name__
        raise JourneyError(f"{step}: {reason}") from error
