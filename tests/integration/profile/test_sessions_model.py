"""Sessions under random orders of login, refresh, theft and logout, against a model of a few lines."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

import httpx
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from fanfold.contracts import keys
from fanfold.profile.tokens import RefreshToken

from .conftest import PASSWORD, Person, login

if TYPE_CHECKING:
    from tests.integration.conftest import House

pytestmark = pytest.mark.integration

SESSIONS = 3
"""Of the user at once; a fourth login ends the one that was longest unused."""
CALL_SECONDS = 20.0
NUMBER = st.integers(0, 5)
STEPS = (
    *["go_on"] * 6,
    *["come_with_an_old_token"] * 3,
    *["log_in"] * 2,
    "come_with_an_invented_token",
    "end_one",
    "end_all",
)
"""As often as they stand here."""


@dataclass
class Known:
    """What the model knows of one session. ``tokens``: all it ever gave, the newest last."""

    person: Person
    tokens: list[str]
    alive: bool = True


class Sessions(RuleBasedStateMachine):
    """One user, their devices, and a thief who has tokens of the past."""

    house: House
    profile: httpx.AsyncClient
    loop: asyncio.AbstractEventLoop

    def __init__(self) -> None:
        super().__init__()
        self.name = f"user_{secrets.token_hex(6)}"
        self.known: list[Known] = []
        self.used: list[Known] = []
        """The living, the longest unused first."""

    def run(self, work: Awaitable[Any]) -> Any:
        async def waited() -> Any:
            return await work

        return asyncio.run_coroutine_threadsafe(waited(), self.loop).result(CALL_SECONDS)

    def end(self, one: Known) -> None:
        one.alive = False
        self.used = [other for other in self.used if other is not one]

    def refresh(self, token: str) -> httpx.Response:
        call = self.profile.post("/v1/sessions/refresh", json={"refresh_token": token}, headers=self.house.anonymous())
        answer: httpx.Response = self.run(call)
        return answer

    def one(self, number: int) -> Known:
        """The living come first: most of what happens, happens to them."""
        ordered = [*reversed(self.used), *(one for one in self.known if not one.alive)]
        return ordered[number % len(ordered)]

    @rule(what=st.sampled_from(STEPS), number=NUMBER, other=NUMBER)
    def step(self, what: str, number: int, other: int) -> None:
        getattr(self, what)(number, other)

    @initialize()
    def register(self) -> None:
        account = {"username": self.name, "password": PASSWORD}
        self.run(self.profile.post("/v1/accounts", json=account, headers=self.house.anonymous()))
        self.log_in()

    def log_in(self, *_: int) -> None:
        person = self.run(login(self.house, self.profile, self.name))
        fresh = Known(person, [person.refresh_token])
        self.known.append(fresh)
        self.used.append(fresh)
        if len(self.used) > SESSIONS:
            self.end(self.used[0])

    def go_on(self, number: int, _: int) -> None:
        one = self.one(number)
        answer = self.refresh(one.tokens[-1])
        assert answer.status_code == (200 if one.alive else 401)
        if one.alive:
            one.tokens.append(answer.json()["refresh_token"])
            self.used = [*(other for other in self.used if other is not one), one]

    def come_with_an_old_token(self, number: int, age: int) -> None:
        one = self.one(number)
        if len(one.tokens) > 1:
            assert self.refresh(one.tokens[age % (len(one.tokens) - 1)]).status_code == 401
            self.end(one)

    def come_with_an_invented_token(self, number: int, _: int) -> None:
        person = self.one(number).person
        assert self.refresh(str(RefreshToken.new(UUID(person.id), UUID(person.session_id)))).status_code == 401

    def end_one(self, number: int, by: int) -> None:
        one, head = self.one(number), self.one(by).person.headers
        answer = self.run(self.profile.delete(f"/v1/sessions/{one.person.session_id}", headers=head))
        assert answer.status_code == 204
        self.end(one)

    def end_all(self, *_: int) -> None:
        assert self.run(self.profile.delete("/v1/sessions", headers=self.known[0].person.headers)).status_code == 204
        for one in list(self.used):
            self.end(one)

    @invariant()
    def those_that_live_are_listed_and_gateways_are_told_of_the_others(self) -> None:
        if not self.known:
            return
        answer = self.run(self.profile.get("/v1/sessions", headers=self.known[0].person.headers))
        assert {item["id"] for item in answer.json()["items"]} == {one.person.session_id for one in self.used}
        for one in self.known:
            member = UUID(one.person.session_id).bytes
            told = self.run(self.house.redis.zscore(keys.REVOKED_SESSIONS, member)) is not None
            assert told is not one.alive, "lives, and gateways refuse it" if told else "ended, and no gateway knows"


async def test_whatever_the_order_a_session_is_its_newest_tokens_until_it_ends(house: House) -> None:
    profile = await house.start("profile", sessions_per_user=SESSIONS)
    Sessions.house, Sessions.profile, Sessions.loop = house, profile, asyncio.get_running_loop()
    limits = settings(
        max_examples=8, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck), database=None
    )
    await asyncio.to_thread(run_state_machine_as_test, Sessions, settings=limits)
