"""Changing the password, and ending sessions: one, and all."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from fanfold.contracts import keys
from fanfold.profile import repository

if TYPE_CHECKING:
    import httpx

    from tests.integration.conftest import House
    from tests.integration.profile.conftest import Join, Person

pytestmark = pytest.mark.integration

OLD = "tr0ubador&3"
NEW = "a quite different phrase"


async def change(profile: httpx.AsyncClient, person: Person, current: str = OLD, new: str = NEW) -> httpx.Response:
    body = {"current_password": current, "new_password": new}
    return await profile.put("/v1/users/me/password", json=body, headers=person.headers)


async def login(house: House, profile: httpx.AsyncClient, name: str, password: str) -> int:
    body = {"username": name, "password": password}
    return (await profile.post("/v1/sessions", json=body, headers=house.anonymous())).status_code


async def refresh(house: House, profile: httpx.AsyncClient, person: Person) -> int:
    body = {"refresh_token": person.refresh_token}
    return (await profile.post("/v1/sessions/refresh", json=body, headers=house.anonymous())).status_code


async def revoked(house: House, person: Person) -> bool:
    """Whether gateways are told to refuse the session's access tokens."""
    return await house.redis.zscore(keys.REVOKED_SESSIONS, UUID(person.session_id).bytes) is not None


async def test_a_changed_password_counts_at_once_and_ends_all_other_sessions(
    house: House, profile: httpx.AsyncClient, join: Join, log_in: Join
) -> None:
    here = await join()
    elsewhere = await log_in(here.username)
    wrong = await change(profile, here, current="not it at all")
    assert (wrong.status_code, wrong.json()["type"].rpartition("/")[2]) == (403, "wrong-password")
    assert (await change(profile, here, new="password1")).status_code == 422
    assert not await revoked(house, elsewhere)
    assert (await change(profile, here)).status_code == 204
    assert await login(house, profile, here.username, OLD) == 401
    assert await login(house, profile, here.username, NEW) == 201
    assert await refresh(house, profile, elsewhere) == 401
    assert await refresh(house, profile, here) == 200
    assert [await revoked(house, person) for person in (here, elsewhere)] == [False, True]


async def test_a_login_with_the_old_password_that_meets_the_change_begins_no_session(
    house: House, profile: httpx.AsyncClient, join: Join, monkeypatch: pytest.MonkeyPatch
) -> None:
    person = await join()
    verified = repository.still_has_hash

    async def changed_meanwhile(session: Any, user_id: UUID, known: str) -> bool:
        monkeypatch.setattr(repository, "still_has_hash", verified)
        assert (await change(profile, person)).status_code == 204
        return await verified(session, user_id, known)

    monkeypatch.setattr(repository, "still_has_hash", changed_meanwhile)
    assert await login(house, profile, person.username, OLD) == 401
    assert await login(house, profile, person.username, NEW) == 201


async def test_two_changes_at_the_same_moment_are_one(profile: httpx.AsyncClient, join: Join) -> None:
    person = await join()
    answers = await asyncio.gather(change(profile, person), change(profile, person, new="still another phrase"))
    assert sorted(answer.status_code for answer in answers) == [204, 403]


async def test_sessions_are_listed_and_ended_one_by_one_and_all_at_once(
    house: House, profile: httpx.AsyncClient, join: Join, log_in: Join
) -> None:
    here, stranger = await join(), await join()
    there, third = await log_in(here.username), await log_in(here.username)

    async def listed() -> list[tuple[str, bool]]:
        answer = await profile.get("/v1/sessions", headers=here.headers)
        return [(item["id"], item["current"]) for item in answer.json()["items"]]

    assert await listed() == [(third.session_id, False), (there.session_id, False), (here.session_id, True)]
    for person in (stranger, here):  # the stranger ends nothing: sessions are found by user and id
        answer = await profile.delete(f"/v1/sessions/{there.session_id}", headers=person.headers)
        assert answer.status_code == 204
        ended = person is here
        assert ((there.session_id, False) not in await listed()) is ended
    assert await revoked(house, there)
    for _ in range(2):
        assert (await profile.delete("/v1/sessions", headers=here.headers)).status_code == 204
    assert await listed() == []
    assert [await revoked(house, person) for person in (here, third, stranger)] == [True, True, False]
    assert await refresh(house, profile, here) == 401
    assert await refresh(house, profile, stranger) == 200
