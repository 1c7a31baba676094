from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx
import jwt
import pytest

if TYPE_CHECKING:
    from tests.integration.conftest import House

PASSWORD = "tr0ubador&3"


@dataclass
class Person:
    """A registered user with one session."""

    id: str
    username: str
    session_id: str
    access_token: str
    refresh_token: str
    headers: dict[str, str]


Join = Callable[..., Awaitable[Person]]


@pytest.fixture
async def profile(house: House) -> httpx.AsyncClient:
    return await house.start("profile")


@pytest.fixture
def join(house: House, profile: httpx.AsyncClient) -> Join:
    """Register somebody and log them in."""

    async def register(username: str = "", password: str = PASSWORD) -> Person:
        name = username or f"user_{secrets.token_hex(6)}"
        account = {"username": name, "password": password}
        made = await profile.post("/v1/accounts", json=account, headers=house.anonymous())
        assert made.status_code == 201, made.text
        return await login(house, profile, name, password)

    return register


async def login(house: House, profile: httpx.AsyncClient, username: str, password: str = PASSWORD) -> Person:
    answer = await profile.post(
        "/v1/sessions", json={"username": username, "password": password}, headers=house.anonymous()
    )
    assert answer.status_code == 201, answer.text
    tokens: dict[str, Any] = answer.json()
    session_id = jwt.decode(tokens["access_token"], options={"verify_signature": False})["sid"]
    return Person(
        id=tokens["user_id"],
        username=username,
        session_id=session_id,
        access_token=tokens["access_token"],
        refresh_token=tokens["refresh_token"],
        headers=house.as_user(tokens["user_id"], session_id),
    )


@pytest.fixture
def log_in(house: House, profile: httpx.AsyncClient) -> Join:
    """Log somebody in once more."""

    async def again(username: str, password: str = PASSWORD) -> Person:
        return await login(house, profile, username, password)

    return again
