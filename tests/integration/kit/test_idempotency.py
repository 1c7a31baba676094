from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import httpx
import pytest
from fastapi import APIRouter, FastAPI, Request, Response
from pydantic import BaseModel

from fanfold.contracts import headers
from fanfold.dev.stores import BackingStores
from fanfold.kit import idempotency
from fanfold.kit.asgi import Edge
from fanfold.kit.errors import NotFound, Unavailable
from fanfold.kit.idempotency import REPLAYED, Begin, Idempotency, IdempotentRoute, ReservedId, StreamedRoute
from fanfold.kit.identity import Identity, IdentitySigner
from fanfold.kit.valkey import Valkey
from fanfold.kit.web import CurrentUser, create_app

pytestmark = pytest.mark.integration
KEY = os.urandom(32).hex()
NEXT_KEY = os.urandom(32).hex()
SIGNER = IdentitySigner(KEY)
PASSWORD = "correct.h0rse"
TOKEN = "a-token-of-a-session"
UNGUESSABLE, OTHER_UNGUESSABLE = str(uuid4()), str(uuid4())


class Order(BaseModel):
    text: str


class Shop:
    """Counts what it carried out; told how to fail by the text of an order."""

    def __init__(self) -> None:
        self.made: list[UUID] = []
        self.go_on = asyncio.Event()
        self.entered = asyncio.Event()
        self.go_on.set()

    async def make(self, text: str, reserved: UUID) -> None:
        self.entered.set()
        await self.go_on.wait()
        if text == "refuse" and not self.made:
            self.made.append(reserved)
            raise NotFound("There is no such thing.")
        self.made.append(reserved)
        if text == "break" and len(self.made) == 1:
            raise RuntimeError("the connection broke after the commit")
        if text == "down" and len(self.made) == 1:
            raise Unavailable("The answer was lost.")


@pytest.fixture
def shop() -> Shop:
    return Shop()


@pytest.fixture
async def valkey(stores: BackingStores) -> AsyncIterator[Valkey]:
    valkey = Valkey(stores.valkey_url)
    await valkey.execute("FLUSHALL")
    yield valkey
    await valkey.close()


@pytest.fixture
def app(valkey: Valkey, shop: Shop) -> FastAPI:
    app = create_app("test", "0")
    app.state.idempotency = Idempotency(valkey, KEY)
    router = APIRouter(route_class=IdempotentRoute)

    @router.post("/orders", status_code=201)
    async def order(_: CurrentUser, order: Order, reserved: ReservedId) -> dict[str, str]:
        await shop.make(order.text, reserved)
        return {"id": str(reserved)}

    @router.post("/orders/{number}/notes", status_code=201)
    async def note(_: CurrentUser, number: int, order: Order, reserved: ReservedId) -> dict[str, str]:
        await shop.make(order.text, reserved)
        return {"id": str(reserved)}

    @router.post("/anonymous", status_code=201)
    async def anonymous(order: Order, reserved: ReservedId, response: Response) -> dict[str, str]:
        await shop.make(order.text, reserved)
        response.headers["cache-control"] = "no-store"
        return {"id": str(reserved), "token": TOKEN}

    streamed = APIRouter(route_class=StreamedRoute)

    @streamed.post("/photos", status_code=201)
    async def photo(_: CurrentUser, request: Request, begin: Begin) -> dict[str, int]:
        size = 0
        async for piece in request.stream():
            size += len(piece)
        if size == 0:
            raise NotFound("There is no photo in it.")
        await begin(f"{size} bytes")
        await shop.make("photo", uuid4())
        return {"size": size}

    app.include_router(router)
    app.include_router(streamed)
    return app


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(Edge(app, SIGNER), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as http:
        yield http


ADA = Identity(user_id=uuid4(), session_id=uuid4())
BOB = Identity(user_id=uuid4(), session_id=uuid4())


def _head(key: str | None = "k1", who: Identity = ADA) -> dict[str, str]:
    head = {headers.IDENTITY: SIGNER.sign(who)}
    return head if key is None else {**head, "Idempotency-Key": key}


async def _order(
    client: httpx.AsyncClient, text: str = "one", key: str | None = "k1", who: Identity = ADA
) -> httpx.Response:
    return await client.post("/orders", json={"text": text}, headers=_head(key, who))


async def test_a_repeated_request_gets_the_first_answer_and_is_carried_out_once(
    client: httpx.AsyncClient, shop: Shop
) -> None:
    first, second = await _order(client), await _order(client)
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.content == second.content
    assert first.headers["content-type"] == second.headers["content-type"]
    assert (first.headers.get(REPLAYED), second.headers[REPLAYED]) == (None, "true")
    assert len(shop.made) == 1


async def test_requests_without_the_header_are_all_carried_out(client: httpx.AsyncClient, shop: Shop) -> None:
    await _order(client, key=None)
    await _order(client, key=None)
    assert len(set(shop.made)) == 2


async def test_the_key_with_another_body_is_refused(client: httpx.AsyncClient, shop: Shop) -> None:
    await _order(client)
    answer = await _order(client, "two")
    assert answer.status_code == 422
    assert answer.json()["type"].endswith("/idempotency-key-reused")
    assert len(shop.made) == 1


async def test_the_key_on_another_path_of_the_route_is_refused(client: httpx.AsyncClient) -> None:
    body = {"text": "one"}
    assert (await client.post("/orders/1/notes", json=body, headers=_head())).status_code == 201
    assert (await client.post("/orders/2/notes", json=body, headers=_head())).status_code == 422


async def test_users_and_routes_do_not_share_keys(client: httpx.AsyncClient, shop: Shop) -> None:
    await _order(client)
    await _order(client, who=BOB)
    await client.post("/orders/1/notes", json={"text": "one"}, headers=_head())
    assert len(set(shop.made)) == 3


async def test_a_request_under_way_is_a_conflict_that_says_when_to_come_back(
    client: httpx.AsyncClient, shop: Shop
) -> None:
    shop.go_on.clear()
    first = asyncio.create_task(_order(client))
    await shop.entered.wait()
    second = await _order(client)
    assert second.status_code == 409
    assert 1 <= int(second.headers["retry-after"]) <= 5
    shop.go_on.set()
    assert (await first).status_code == 201
    assert len(shop.made) == 1


async def test_of_many_at_once_one_is_carried_out(client: httpx.AsyncClient, shop: Shop) -> None:
    answers = await asyncio.gather(*(_order(client) for _ in range(20)))
    assert len(shop.made) == 1
    assert {answer.status_code for answer in answers} <= {201, 409}


async def test_a_refusal_frees_the_key_for_a_mended_request(client: httpx.AsyncClient) -> None:
    assert (await _order(client, "refuse")).status_code == 404
    assert (await _order(client, "mended")).status_code == 201


async def test_an_invalid_body_frees_the_key(client: httpx.AsyncClient) -> None:
    assert (await client.post("/orders", json={}, headers=_head())).status_code == 422
    assert (await _order(client)).status_code == 201


@pytest.mark.parametrize(("text", "status"), [("break", 500), ("down", 503)])
async def test_after_a_failure_the_next_attempt_gets_the_same_reserved_id(
    client: httpx.AsyncClient, shop: Shop, text: str, status: int
) -> None:
    assert (await _order(client, text)).status_code == status
    again = await _order(client, text)
    assert again.status_code == 201
    assert shop.made[0] == shop.made[1] == UUID(again.json()["id"])


async def test_a_crashed_attempt_is_taken_over_when_its_lock_has_expired(
    client: httpx.AsyncClient, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idempotency, "LOCK_SECONDS", 0)
    shop.go_on.clear()
    crashed = asyncio.create_task(_order(client))
    await shop.entered.wait()
    crashed.cancel()  # as a killed process: neither answer nor unlock
    shop.go_on.set()
    answer = await _order(client)
    assert answer.status_code == 201
    assert len(shop.made) == 1


async def test_a_key_that_is_too_long_is_refused(client: httpx.AsyncClient) -> None:
    assert (await _order(client, key="x" * 129)).status_code == 400


async def _ask(client: httpx.AsyncClient, text: str = PASSWORD, key: str = UNGUESSABLE) -> httpx.Response:
    """As somebody who is not logged in."""
    return await client.post("/anonymous", json={"text": text}, headers=_head(key, Identity()))


async def test_who_is_not_logged_in_gets_the_first_answer_again_too(client: httpx.AsyncClient, shop: Shop) -> None:
    first, second = await _ask(client), await _ask(client)
    assert (first.status_code, first.content) == (second.status_code, second.content)
    assert second.headers["cache-control"] == "no-store"
    assert (await _ask(client, "other")).status_code == 422
    assert (await _ask(client, key=str(uuid4()))).content != first.content
    assert len(shop.made) == 2


async def test_a_key_of_nobody_must_be_nobody_elses(client: httpx.AsyncClient, shop: Shop) -> None:
    answer = await _ask(client, key="first-login")
    assert answer.status_code == 400
    assert "UUID" in answer.json()["detail"]
    assert shop.made == []


async def test_what_is_kept_tells_nothing(client: httpx.AsyncClient, valkey: Valkey) -> None:
    """Neither the password nor the token, in the open or as a hash that can be tried; nor what a user wrote."""
    token = (await _ask(client)).json()["token"]
    await _order(client, PASSWORD)
    kept = [b"".join([key, *await valkey.execute("HVALS", key)]) for key in await valkey.execute("KEYS", "*")]
    assert len(kept) == 2
    body = json.dumps({"text": PASSWORD}, separators=(",", ":")).encode()
    tried = [hashlib.sha256(part + body).digest() for part in (b"", b"/anonymous?\0", b"/orders?\0")]
    for record in kept:
        for secret in (PASSWORD.encode(), token.encode(), *tried):
            assert secret not in record


async def test_another_key_of_the_platform_changes_nothing(
    client: httpx.AsyncClient, app: FastAPI, valkey: Valkey
) -> None:
    first = await _ask(client)
    app.state.idempotency = Idempotency(valkey, f"{NEXT_KEY}\n{KEY}")
    assert (await _ask(client)).content == first.content
    assert (await _ask(client, "other")).status_code == 422
    later = await _ask(client, key=OTHER_UNGUESSABLE)
    app.state.idempotency = Idempotency(valkey, NEXT_KEY)
    assert (await _ask(client, key=OTHER_UNGUESSABLE)).content == later.content


async def test_an_upload_is_known_by_its_content(client: httpx.AsyncClient, shop: Shop) -> None:
    answers = [await client.post("/photos", content=b"12345", headers=_head()) for _ in range(2)]
    assert [answer.json() for answer in answers] == [{"size": 5}] * 2
    assert (await client.post("/photos", content=b"123", headers=_head())).status_code == 422
    assert len(shop.made) == 1
    assert (await client.post("/photos", content=b"", headers=_head())).status_code == 404
    again = await client.post("/photos", content=b"12345", headers=_head())
    assert again.headers[REPLAYED] == "true"
