"""Sessions against a model, on a real PostgreSQL and Valkey: tokens in any order, old, stolen, several at once.

The model: a session has one good refresh token; using it makes the next one good, using one that was good ends it.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import create_async_engine

from fanfold.contracts.ids import new_id
from fanfold.contracts.keys import REVOKED_SESSIONS
from fanfold.kit.cluster import connect
from fanfold.kit.db import Database
from fanfold.kit.errors import Forbidden, Unauthorized
from fanfold.kit.keyring import Keyring
from fanfold.profile import passwords
from fanfold.profile.directory import Directory
from fanfold.profile.revocations import Revocations
from fanfold.profile.schemas import PasswordChange
from fanfold.profile.service import Accounts, Issued, Parts, Sessions
from fanfold.profile.settings import ProfileSettings
from fanfold.profile.throttle import LoginThrottle
from fanfold.profile.tokens import AccessTokens, RefreshToken

if TYPE_CHECKING:
    from fanfold.dev.stores import BackingStores

pytestmark = pytest.mark.integration

PEOPLE = 2
AT_ONCE = 3
"""Sessions a user may have; the longest unused one ends for a new one."""
PASSWORDS = ("tr0ubador&3", "correct.h0rse", "battery%staple1")
ADDRESS = "192.0.2.1"


@dataclass
class Login:
    """One session as its client knows it: all the tokens it was ever given, the last of which is good."""

    session_id: UUID
    tokens: list[str]
    used_at: int = 0


@dataclass
class Person:
    """A user, and the model of what is open."""

    id: UUID
    username: str
    password: str
    open: list[Login] = field(default_factory=list)
    ended: list[Login] = field(default_factory=list)

    def end(self, *logins: Login) -> None:
        for login in logins:
            self.open.remove(login)
            self.ended.append(login)


class Machine(RuleBasedStateMachine):
    """Clients, and whoever has copied their tokens."""

    database_url = ""
    valkey_url = ""
    secrets_dir = Path()

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.turn = 0
        options = ProfileSettings(secrets_dir=self.secrets_dir, sessions_per_user=AT_ONCE)
        self.database = Database(create_async_engine(self.database_url))
        self.valkey = connect(self.valkey_url)
        self.hasher = passwords.Hasher(2, 20)
        parts = Parts(
            settings=options,
            database=self.database,
            directory=Directory(self.valkey),
            hasher=self.hasher,
            throttle=LoginThrottle(
                self.valkey, window_seconds=300, per_pair=10_000, per_user=10_000, per_address=10_000
            ),
            tokens=AccessTokens(options.secrets, options.access_token_seconds),
            refresh_keys=Keyring(options.secrets.read("identity_key"), b"refresh"),
            revocations=Revocations(self.valkey, self.database, options.access_token_seconds),
            pictures=cast("Any", None),
            desk=cast("Any", None),
        )
        self.sessions, accounts = Sessions(parts), Accounts(parts)
        self.people = []
        for _ in range(PEOPLE):
            name = f"user_{secrets.token_hex(6)}"
            user = self.run(accounts.register(new_id(), name, PASSWORDS[0], None))
            self.people.append(Person(user.id, name, PASSWORDS[0]))

    def run(self, work: Awaitable[Any]) -> Any:
        return self.loop.run_until_complete(work)

    def now(self) -> int:
        """Uses of sessions in their order; the database's clock must see them in the same."""
        self.turn += 1
        time.sleep(0.001)
        return self.turn

    @rule(who=st.integers(0, PEOPLE - 1), word=st.sampled_from(PASSWORDS))
    def somebody_logs_in(self, who: int, word: str) -> None:
        person, at = self.people[who], self.now()
        work = self.sessions.login(new_id(), person.username, word, ADDRESS)
        if word != person.password:
            with pytest.raises(Unauthorized):
                self.run(work)
            return
        issued: Issued = self.run(work)
        if len(person.open) == AT_ONCE:
            person.end(min(person.open, key=lambda login: login.used_at))
        person.open.append(Login(session_of(issued), [issued.refresh_token], at))

    @rule(who=st.integers(0, PEOPLE - 1), which=st.integers(0, 9))
    def a_client_refreshes(self, who: int, which: int) -> None:
        person, at = self.people[who], self.now()
        if person.open:
            login = person.open[which % len(person.open)]
            issued: Issued = self.run(self.sessions.refresh(new_id(), login.tokens[-1]))
            assert session_of(issued) == login.session_id
            login.tokens.append(issued.refresh_token)
            login.used_at = at

    @rule(who=st.integers(0, PEOPLE - 1), which=st.integers(0, 9))
    def an_answer_is_lost_and_asked_for_again(self, who: int, which: int) -> None:
        """One attempt carried out twice is no reuse."""
        person, at = self.people[who], self.now()
        if person.open:
            login, attempt = person.open[which % len(person.open)], new_id()
            answers = [self.run(self.sessions.refresh(attempt, login.tokens[-1])) for _ in range(2)]
            assert answers[0].refresh_token == answers[1].refresh_token
            login.tokens.append(answers[1].refresh_token)
            login.used_at = at

    @rule(who=st.integers(0, PEOPLE - 1), which=st.integers(0, 9), age=st.integers(0, 9))
    def an_old_token_comes_again(self, who: int, which: int, age: int) -> None:
        """Whoever it is: the session is over for thief and victim."""
        person = self.people[who]
        used = [login for login in person.open if len(login.tokens) > 1]
        if used:
            login = used[which % len(used)]
            with pytest.raises(Unauthorized):
                self.run(self.sessions.refresh(new_id(), login.tokens[age % (len(login.tokens) - 1)]))
            person.end(login)

    @rule(who=st.integers(0, PEOPLE - 1), which=st.integers(0, 9), age=st.integers(0, 9))
    def a_token_of_an_ended_session_comes(self, who: int, which: int, age: int) -> None:
        person = self.people[who]
        if person.ended:
            login = person.ended[which % len(person.ended)]
            with pytest.raises(Unauthorized):
                self.run(self.sessions.refresh(new_id(), login.tokens[age % len(login.tokens)]))

    @rule(who=st.integers(0, PEOPLE - 1), which=st.integers(0, 9))
    def an_invented_token_ends_nothing(self, who: int, which: int) -> None:
        person = self.people[who]
        if person.open:
            login = person.open[which % len(person.open)]
            with pytest.raises(Unauthorized):
                self.run(self.sessions.refresh(new_id(), str(RefreshToken.new(person.id, login.session_id))))

    @rule(who=st.integers(0, PEOPLE - 1), which=st.integers(0, 9), count=st.integers(2, 4))
    def one_token_is_sent_several_times_at_once(self, who: int, which: int, count: int) -> None:
        """One is the first at most, and each of the others an old token."""
        person = self.people[who]
        if not person.open:
            return
        login = person.open[which % len(person.open)]

        async def together() -> list[Any]:
            sent = (self.sessions.refresh(new_id(), login.tokens[-1]) for _ in range(count))
            return await asyncio.gather(*sent, return_exceptions=True)

        answers = self.run(together())
        good = [answer for answer in answers if isinstance(answer, Issued)]
        assert len(good) == 1
        assert all(isinstance(answer, Issued | Unauthorized) for answer in answers)
        login.tokens.append(good[0].refresh_token)
        person.end(login)

    @rule(who=st.integers(0, PEOPLE - 1), which=st.integers(0, 9))
    def somebody_logs_out(self, who: int, which: int) -> None:
        person = self.people[who]
        logins = person.open + person.ended
        if logins:
            login = logins[which % len(logins)]
            self.run(self.sessions.logout(person.id, login.session_id))
            if login in person.open:
                person.end(login)

    @rule(who=st.integers(0, PEOPLE - 1))
    def somebody_logs_out_everywhere(self, who: int) -> None:
        person = self.people[who]
        self.run(self.sessions.logout_everywhere(person.id))
        person.end(*list(person.open))

    @rule(
        who=st.integers(0, PEOPLE - 1),
        which=st.integers(0, 9),
        old=st.sampled_from(PASSWORDS),
        new=st.sampled_from(PASSWORDS),
    )
    def somebody_changes_the_password(self, who: int, which: int, old: str, new: str) -> None:
        person = self.people[who]
        if not person.open:
            return
        asking = person.open[which % len(person.open)]
        change = PasswordChange(current_password=SecretStr(old), new_password=SecretStr(new))
        work = self.sessions.change_password(person.id, asking.session_id, change, ADDRESS)
        if old != person.password:
            with pytest.raises(Forbidden):
                self.run(work)
            return
        self.run(work)
        person.password = new
        person.end(*[login for login in person.open if login is not asking])

    @invariant()
    def what_is_open_is_listed_and_what_has_ended_was_announced(self) -> None:
        announced = set(self.run(self.valkey.execute("ZRANGE", REVOKED_SESSIONS, 0, -1)))
        for person in self.people:
            listed = {item.id for item in self.run(self.sessions.active(person.id))}
            assert listed == {login.session_id for login in person.open}
            assert {login.session_id.bytes for login in person.ended} <= announced
            assert not {login.session_id.bytes for login in person.open} & announced

    def teardown(self) -> None:
        self.run(self.hasher.close())
        self.run(self.valkey.close())
        self.run(self.database.close())
        self.loop.close()


def session_of(issued: Issued) -> UUID:
    token = RefreshToken.parse(issued.refresh_token)
    assert token is not None
    return token.session_id


def test_sessions_are_as_a_model_says(
    database_url: str, stores: BackingStores, secrets_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What argon2 costs is not what is tested here.
    monkeypatch.setattr(passwords, "PASSES", 1)
    monkeypatch.setattr(passwords, "MEMORY_KIB", 8)
    Machine.database_url, Machine.valkey_url, Machine.secrets_dir = database_url, stores.valkey_url, secrets_dir
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=15,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )
