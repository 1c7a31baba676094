"""People who comment, like and read through the gateway while something happens behind it."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Final
from uuid import UUID

import httpx

PEOPLE: Final = 8
PATIENCE: Final = 60.0
BROKEN_OFF: Final = 0
"""For a status: the connection ended in the middle of an answer."""


@dataclass
class Outcomes:
    """What came of it. Nothing is tried again by the client.

    Attributes:
        statuses: Answers by (kind of request, status).
        made: Texts of comments that were answered with 201.
        unsure: Texts of comments that were not: they are there, or not.
    """

    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)
    made: list[str] = field(default_factory=list)
    unsure: list[str] = field(default_factory=list)

    @property
    def answered(self) -> int:
        """Requests that got what they asked for."""
        return sum(number for (_, status), number in self.statuses.items() if 200 <= status < 300)

    @property
    def failed(self) -> dict[tuple[str, int], int]:
        """The others."""
        return {key: number for key, number in self.statuses.items() if not 200 <= key[1] < 300}


class Journey:
    """Some people, each with one request under way at a time: unkeyed POSTs, GETs, PUTs and DELETEs.

    Args:
        client: Of the gateway.
        bearer: Headers of one user.
        people: Ids; enough that every replica owns some.
        post: What they comment on.
        pause: Seconds that each of them rests between requests.
    """

    def __init__(
        self,
        client: httpx.AsyncClient,
        bearer: Callable[[UUID], dict[str, str]],
        people: list[UUID],
        post: UUID,
        pause: float = 0,
    ) -> None:
        self._pause = pause
        self._client = client
        self._tokens = {person: bearer(person) for person in people}
        self._post = post
        self._numbers = count()
        self._stopping = False
        self.outcomes = Outcomes()

    @asynccontextmanager
    async def under_way(self) -> AsyncIterator[Outcomes]:
        """Requests until left; those under way then are waited for."""
        self._stopping = False
        people = list(self._tokens)
        tasks = [asyncio.create_task(self._live(people[index::PEOPLE])) for index in range(PEOPLE)]
        try:
            yield self.outcomes
            self._stopping = True
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()

    async def more(self, requests: int) -> None:
        """Until so many further requests have got what they asked for."""
        wanted = self.outcomes.answered + requests
        began = time.monotonic()
        while self.outcomes.answered < wanted:
            assert time.monotonic() - began < PATIENCE, f"no {requests} good answers in {PATIENCE} s"
            await asyncio.sleep(0.02)

    async def _live(self, people: list[UUID]) -> None:
        acts = (self._comment, self._read, self._like, self._unlike)
        while not self._stopping:
            await random.choice(acts)(random.choice(people))
            await asyncio.sleep(self._pause)

    async def _comment(self, person: UUID) -> None:
        text = f"comment {next(self._numbers)}"
        status = await self.ask("POST", person, "comments", json={"text": text})
        (self.outcomes.made if status == httpx.codes.CREATED else self.outcomes.unsure).append(text)

    async def _read(self, person: UUID) -> None:
        await self.ask("GET", person, "comments")

    async def _like(self, person: UUID) -> None:
        await self.ask("PUT", person, "like")

    async def _unlike(self, person: UUID) -> None:
        await self.ask("DELETE", person, "like")

    async def ask(self, method: str, person: UUID, what: str, json: object = None) -> int:
        """One request; its status, which is counted."""
        url = f"/v1/posts/{self._post}/{what}"
        try:
            answer = await self._client.request(method, url, headers=self._tokens[person], json=json)
            status = answer.status_code
        except httpx.TransportError:
            status = BROKEN_OFF
        self.outcomes.statuses[method, status] += 1
        return status
