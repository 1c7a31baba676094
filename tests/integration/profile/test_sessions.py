from __future__ import annotations

import asyncio
import secrets
import shutil
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

import httpx
import jwt
import pytest

from fanfold.contracts import keys
from fanfold.dev.process import free_ports
from fanfold.profile.tokens import RefreshToken

if TYPE_CHECKING:
    from tests.integration.conftest import House
    from tests.integration.profile.conftest import Join

pytestmark = pytest.mark.integration

PASSWORD = "tr0ubador&3"


async def test_a_login_gives_a_token_that_the_published_keys_verify(
    house: House, join: Join, secrets_dir: Path
) -> None:
    person = await join()
    (key,) = jwt.PyJWKSet.from_json((secrets_dir / "token_jwks").read_text()).keys
    assert jwt.get_unverified_header(person.access_token)["kid"] == key.key_id
    claims = jwt.decode(person.access_token, key.key, algorithms=["EdDSA"], issuer="fanfold")
    assert claims["sub"] == person.id
    assert claims["exp"] - claims["iat"] == 900
    assert abs(claims["iat"] - time.time()) < 30


async def test_usernames_are_taken_in_any_case(join: Join, log_in: Join) -> None:
    person = await join("Mixed.Case")
    assert (await log_in("mIXED.cASE")).id == person.id


async def test_a_wrong_password_and_an_unknown_name_cannot_be_told_apart(
    house: House, profile: httpx.AsyncClient, join: Join
) -> None:
    person = await join()
    answers = [
        await profile.post("/v1/sessions", json={"username": name, "password": "wrong one"}, headers=house.anonymous())
        for name in (person.username, "no.such.person")
    ]
    for answer in answers:
        assert answer.status_code == 401
    first, second = ({**answer.json(), "request_id": ""} for answer in answers)
    assert first == second
    assert first["type"].endswith("/wrong-credentials")


async def test_a_refresh_replaces_both_tokens_and_keeps_the_session(
    house: House, profile: httpx.AsyncClient, join: Join
) -> None:
    person = await join()
    token = person.refresh_token
    for _ in range(3):
        answer = await profile.post("/v1/sessions/refresh", json={"refresh_token": token}, headers=house.anonymous())
        assert answer.status_code == 200
        assert answer.json()["refresh_token"] != token
        token = answer.json()["refresh_token"]
        claims = jwt.decode(answer.json()["access_token"], options={"verify_signature": False})
        assert (claims["sub"], claims["sid"]) == (person.id, person.session_id)


@pytest.mark.parametrize("age", [1, 2, 3])
async def test_an_old_refresh_token_of_any_age_ends_the_session_for_thief_and_victim(
    house: House, profile: httpx.AsyncClient, join: Join, age: int
) -> None:
    person = await join()
    tokens = [person.refresh_token]
    for _ in range(age):
        answer = await profile.post(
            "/v1/sessions/refresh", json={"refresh_token": tokens[-1]}, headers=house.anonymous()
        )
        tokens.append(answer.json()["refresh_token"])
    reused = await profile.post("/v1/sessions/refresh", json={"refresh_token": tokens[0]}, headers=house.anonymous())
    assert reused.status_code == 401
    newest = await profile.post("/v1/sessions/refresh", json={"refresh_token": tokens[-1]}, headers=house.anonymous())
    assert newest.status_code == 401
    assert await house.redis.zscore(keys.REVOKED_SESSIONS, UUID(person.session_id).bytes)


async def test_one_token_sent_twice_at_once_is_good_at_most_once(
    house: House, profile: httpx.AsyncClient, join: Join
) -> None:
    person = await join()
    answers = await asyncio.gather(
        *(
            profile.post(
                "/v1/sessions/refresh", json={"refresh_token": person.refresh_token}, headers=house.anonymous()
            )
            for _ in range(5)
        )
    )
    assert sorted(answer.status_code for answer in answers) == [200, 401, 401, 401, 401]


async def test_an_invented_token_of_a_known_session_does_not_end_it(
    house: House, profile: httpx.AsyncClient, join: Join
) -> None:
    person = await join()
    invented = str(RefreshToken.new(UUID(person.id), UUID(person.session_id)))
    for text in (invented, "nonsense", person.refresh_token[:-1], person.refresh_token + "A"):
        answer = await profile.post("/v1/sessions/refresh", json={"refresh_token": text}, headers=house.anonymous())
        assert answer.status_code == 401
    good = await profile.post(
        "/v1/sessions/refresh", json={"refresh_token": person.refresh_token}, headers=house.anonymous()
    )
    assert good.status_code == 200


async def test_a_logout_ends_the_session_and_tells_gateways_until_its_last_token_has_expired(
    house: House, profile: httpx.AsyncClient, join: Join, log_in: Join
) -> None:
    person = await join()
    other = await log_in(person.username)
    for _ in range(2):
        assert (await profile.delete("/v1/sessions/current", headers=person.headers)).status_code == 204
    score = await house.redis.zscore(keys.REVOKED_SESSIONS, UUID(person.session_id).bytes)
    claims = jwt.decode(person.access_token, options={"verify_signature": False})
    assert score > claims["exp"] + 30
    refused = await profile.post(
        "/v1/sessions/refresh", json={"refresh_token": person.refresh_token}, headers=house.anonymous()
    )
    assert refused.status_code == 401
    untouched = await profile.post(
        "/v1/sessions/refresh", json={"refresh_token": other.refresh_token}, headers=house.anonymous()
    )
    assert untouched.status_code == 200


async def test_nobody_ends_the_session_of_another_user(house: House, profile: httpx.AsyncClient, join: Join) -> None:
    victim, stranger = await join(), await join()
    forged = house.as_user(stranger.id, victim.session_id)
    await profile.delete("/v1/sessions/current", headers=forged)
    answer = await profile.post(
        "/v1/sessions/refresh", json={"refresh_token": victim.refresh_token}, headers=house.anonymous()
    )
    assert answer.status_code == 200


async def test_a_logout_that_valkey_lost_is_announced_again(
    house: House, profile: httpx.AsyncClient, join: Join
) -> None:
    person = await join()
    await profile.delete("/v1/sessions/current", headers=person.headers)
    before = await house.redis.zscore(keys.REVOKED_SESSIONS, UUID(person.session_id).bytes)
    await house.redis.flushall()
    async with asyncio.timeout(60):
        while not (again := await house.redis.zscore(keys.REVOKED_SESSIONS, UUID(person.session_id).bytes)):
            await asyncio.sleep(0.05)
    assert abs(again - before) <= 1


@pytest.fixture
async def strict(house: House) -> httpx.AsyncClient:
    """A profile service with small limits."""
    return await house.start(
        "profile",
        sessions_per_user=2,
        login_attempts_per_pair=2,
        login_attempts_per_user=4,
        login_attempts_per_address=6,
        login_window_seconds=600,
    )


@pytest.fixture
async def person(house: House, strict: httpx.AsyncClient) -> str:
    """Name of somebody registered there."""
    name = f"user_{secrets.token_hex(6)}"
    answer = await strict.post("/v1/accounts", json={"username": name, "password": PASSWORD}, headers=house.anonymous())
    assert answer.status_code == 201
    return name


Attempt = Callable[..., Awaitable[httpx.Response]]


@pytest.fixture
def attempt(house: House, strict: httpx.AsyncClient) -> Attempt:
    async def post(username: str, password: str = "wrong one", address: str = "203.0.113.1") -> httpx.Response:
        headers = {**house.anonymous(), "x-forwarded-for": address}
        return await strict.post("/v1/sessions", json={"username": username, "password": password}, headers=headers)

    return post


async def test_the_longest_unused_session_ends_when_there_are_too_many(
    house: House, strict: httpx.AsyncClient, person: str, attempt: Attempt
) -> None:
    refresh_tokens = [(await attempt(person, PASSWORD)).json()["refresh_token"] for _ in range(3)]
    answers = [
        await strict.post("/v1/sessions/refresh", json={"refresh_token": token}, headers=house.anonymous())
        for token in refresh_tokens
    ]
    assert [answer.status_code for answer in answers] == [401, 200, 200]


@pytest.mark.parametrize("known", [True, False])
async def test_failed_logins_of_a_name_are_throttled_whether_it_exists_or_not(
    person: str, attempt: Attempt, known: bool
) -> None:
    name = person if known else "no.such.person"
    assert [(await attempt(name)).status_code for _ in range(4)] == [401, 401, 429, 429]
    refused = await attempt(name, PASSWORD)
    assert refused.status_code == 429
    assert 1 <= int(refused.headers["retry-after"]) <= 600


async def test_a_strangers_failures_elsewhere_do_not_lock_the_owner_out_at_once(person: str, attempt: Attempt) -> None:
    assert [(await attempt(person, address="198.51.100.7")).status_code for _ in range(3)] == [401, 401, 429]
    assert (await attempt(person, PASSWORD)).status_code == 201


async def test_failures_of_one_name_from_everywhere_are_throttled_too(person: str, attempt: Attempt) -> None:
    statuses = [(await attempt(person, address=f"198.51.100.{host}")).status_code for host in range(6)]
    assert statuses == [401, 401, 401, 401, 429, 429]


async def test_failures_from_one_address_are_throttled_whatever_the_name(attempt: Attempt) -> None:
    statuses = [(await attempt(f"nobody.{number}")).status_code for number in range(8)]
    assert statuses == [401] * 6 + [429] * 2


async def test_successful_logins_use_no_budget_up(person: str, attempt: Attempt) -> None:
    assert [(await attempt(person, PASSWORD)).status_code for _ in range(9)] == [201] * 9
    assert (await attempt(person)).status_code == 401


async def test_without_valkey_nobody_logs_in(house: House, join: Join, secrets_dir: Path, tmp_path: Path) -> None:
    person = await join()
    (closed,) = free_ports(1)
    cut_off = tmp_path / "secrets"
    shutil.copytree(secrets_dir, cut_off)
    (cut_off / "valkey_url").write_text(f"redis://127.0.0.1:{closed}/0")
    (port,) = free_ports(1)
    alone = await house.start("profile", secrets_dir=cut_off, traffic_port=port)
    answer = await alone.post(
        "/v1/sessions", json={"username": person.username, "password": PASSWORD}, headers=house.anonymous()
    )
    assert answer.status_code == 503
    assert answer.headers["retry-after"]
