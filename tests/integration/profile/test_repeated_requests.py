"""Registration, login and refresh whose answer was lost: who repeats one with its Idempotency-Key gets on."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from fanfold.kit.idempotency import REPLAYED, Attempt

if TYPE_CHECKING:
    import httpx

    from tests.integration.conftest import House
    from tests.integration.profile.conftest import Join, Person

pytestmark = pytest.mark.integration

PASSWORD = "tr0ubador&3"


class Client:
    """One that gives its requests keys."""

    def __init__(self, house: House, profile: httpx.AsyncClient) -> None:
        self._house, self._profile = house, profile

    async def post(self, path: str, body: dict[str, str], key: str) -> httpx.Response:
        head = {**self._house.anonymous(), "Idempotency-Key": key}
        return await self._profile.post(path, json=body, headers=head)

    async def register(self, name: str, key: str, password: str = PASSWORD) -> httpx.Response:
        return await self.post("/v1/accounts", {"username": name, "password": password}, key)

    async def login(self, person: Person, key: str) -> httpx.Response:
        return await self.post("/v1/sessions", {"username": person.username, "password": PASSWORD}, key)

    async def refresh(self, token: str, key: str) -> httpx.Response:
        return await self.post("/v1/sessions/refresh", {"refresh_token": token}, key)

    async def sessions(self, person: Person) -> int:
        answer = await self._profile.get("/v1/sessions", headers=person.headers)
        return len(answer.json()["items"])


@pytest.fixture
def client(house: House, profile: httpx.AsyncClient) -> Client:
    return Client(house, profile)


@pytest.fixture
def lose_answers(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """As if each process died when its work was committed: no answer is kept, the next attempt takes over."""

    async def die(self: Attempt, _: object) -> None:
        await self.fail(RuntimeError("killed"))

    monkeypatch.setattr(Attempt, "finish", die)
    return monkeypatch


async def test_a_repeated_registration_is_one_account(client: Client) -> None:
    name, key = f"user_{secrets.token_hex(6)}", str(uuid4())
    first, second = await client.register(name, key), await client.register(name, key)
    assert (first.status_code, second.status_code, second.headers[REPLAYED]) == (201, 201, "true")
    assert first.json() == second.json()
    assert (await client.register(name, key, "another.secret.1")).status_code == 422
    assert (await client.register(name, str(uuid4()))).status_code == 409


async def test_a_registration_that_was_carried_out_and_not_answered_is_found(
    client: Client, lose_answers: pytest.MonkeyPatch
) -> None:
    name, key = f"user_{secrets.token_hex(6)}", str(uuid4())
    first = await client.register(name, key)
    lose_answers.undo()
    second = await client.register(name, key)
    assert (second.status_code, second.json()) == (201, first.json())
    assert REPLAYED not in second.headers
    assert (await client.register(name, str(uuid4()))).status_code == 409


async def test_a_repeated_login_is_one_session(client: Client, join: Join) -> None:
    person, key = await join(), str(uuid4())
    first, second = await client.login(person, key), await client.login(person, key)
    assert first.json() == second.json()
    assert second.headers["cache-control"] == "no-store"
    assert await client.sessions(person) == 2  # this one, and the one they joined with


async def test_a_login_that_was_carried_out_and_not_answered_leaves_no_second_session(
    client: Client, join: Join, lose_answers: pytest.MonkeyPatch
) -> None:
    person, key = await join(), str(uuid4())
    await client.login(person, key)
    lose_answers.undo()
    answer = await client.login(person, key)
    assert answer.status_code == 201
    assert await client.sessions(person) == 2
    assert (await client.refresh(answer.json()["refresh_token"], str(uuid4()))).status_code == 200


async def test_a_wrong_password_is_not_remembered(client: Client, join: Join) -> None:
    person, key = await join(), str(uuid4())
    wrong = await client.post("/v1/sessions", {"username": person.username, "password": "not it"}, key)
    assert wrong.status_code == 401
    assert (await client.login(person, key)).status_code == 201


async def test_a_repeated_refresh_does_not_cost_the_session(client: Client, join: Join) -> None:
    person, key = await join(), str(uuid4())
    first, second = await client.refresh(person.refresh_token, key), await client.refresh(person.refresh_token, key)
    assert (first.status_code, first.json()) == (200, second.json())
    assert (await client.refresh(first.json()["refresh_token"], str(uuid4()))).status_code == 200


async def test_a_refresh_that_was_carried_out_and_not_answered_can_be_repeated(
    client: Client, join: Join, lose_answers: pytest.MonkeyPatch
) -> None:
    person, key = await join(), str(uuid4())
    first = await client.refresh(person.refresh_token, key)
    lose_answers.undo()
    second = await client.refresh(person.refresh_token, key)
    assert second.json()["refresh_token"] == first.json()["refresh_token"]
    assert (await client.refresh(second.json()["refresh_token"], str(uuid4()))).status_code == 200


async def test_a_stolen_token_is_reuse_whatever_key_comes_with_it(client: Client, join: Join) -> None:
    person = await join()
    good = await client.refresh(person.refresh_token, str(uuid4()))
    assert (await client.refresh(person.refresh_token, str(uuid4()))).status_code == 401
    assert (await client.refresh(good.json()["refresh_token"], str(uuid4()))).status_code == 401, "the session is over"
