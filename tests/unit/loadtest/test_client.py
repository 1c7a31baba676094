from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import pytest

from fanfold_loadtest import client
from fanfold_loadtest.client import Api, ApiError
from fanfold_loadtest.shapes import Tokens

Answers = Callable[..., None]
TOKENS = b'{"access_token": "t", "user_id": "u", "expires_in": 900, "refresh_token": "r", "token_type": "Bearer"}'


class Gateway:
    """Answers with prepared responses and keeps the requests."""

    def __init__(self) -> None:
        self.answers: list[bytes] = []
        self.requests: list[str] = []
        self.url = ""

    def will_answer(self, status: int, body: bytes = b"{}", **headers: str) -> None:
        lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.answers.append("\r\n".join([*lines, "", ""]).encode() + body)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                length = next((int(line[15:]) for line in head.split("\r\n") if line.startswith("content-length:")), 0)
                self.requests.append(head + (await reader.readexactly(length)).decode())
                writer.write(self.answers.pop(0))
                await writer.drain()
        writer.close()


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    gateway = Gateway()
    server = await asyncio.start_server(gateway.serve, "127.0.0.1", 0)
    gateway.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield gateway
    server.close()


async def test_a_login_is_sent_as_json_and_its_token_with_what_follows(gateway: Gateway) -> None:
    gateway.will_answer(201, TOKENS)
    gateway.will_answer(204, b"")
    async with Api(gateway.url) as api:
        person = await api.login("ada", "secret")
        await person.follow("u2")
    login, follow = gateway.requests
    assert login.startswith("post /v1/sessions ")
    assert '"username":"ada"' in login
    assert follow.startswith("put /v1/users/me/following/u2 ")
    assert "authorization: bearer t" in follow


async def test_an_overloaded_gateway_is_waited_out_and_the_repetition_has_the_same_key(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr("fanfold_loadtest.client.asyncio.sleep", sleep)
    gateway.will_answer(503, retry_after="2")
    gateway.will_answer(429, retry_after="3600")
    gateway.will_answer(201, TOKENS)
    async with Api(gateway.url) as api:
        await api.login("ada", "secret")
    assert pauses == [2, client.MAX_PAUSE]
    lines = [line for request in gateway.requests for line in request.split("\r\n")]
    keys = {line for line in lines if line.startswith("idempotency-key")}
    assert len(gateway.requests) == 3
    assert len(keys) == 1


async def test_waiting_ends_with_the_gateways_own_words(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "MAX_PAUSE", 0.0)
    for _ in range(client.ATTEMPTS):
        gateway.will_answer(503, b'{"type": "t", "detail": "All full.", "request_id": "r1"}')
    async with Api(gateway.url) as api:
        with pytest.raises(ApiError, match=r"GET /v1/feed: 503: All full\. \(request r1\)") as caught:
            await api.send("GET", "/v1/feed")
    assert caught.value.status == 503
    assert not gateway.answers


async def test_a_refusal_is_not_repeated(gateway: Gateway) -> None:
    gateway.will_answer(422, b'{"type": "t", "detail": "Take another name."}')
    async with Api(gateway.url) as api:
        with pytest.raises(ApiError, match="Take another name"):
            await api.register("ada", "secret", "Ada")
    assert len(gateway.requests) == 1


async def test_an_answer_of_another_shape_is_told(gateway: Gateway) -> None:
    gateway.will_answer(200, b'{"access_token": 1}')
    async with Api(gateway.url) as api:
        with pytest.raises(ApiError, match="not what the API promises"):
            await api.call("GET", "/v1/sessions", Tokens)


async def test_nobody_there_is_told() -> None:
    async with Api("http://127.0.0.1:9") as api:
        with pytest.raises(ApiError, match="ConnectError"):
            await api.send("GET", "/")


async def test_new_tokens_are_used_from_then_on(gateway: Gateway) -> None:
    gateway.will_answer(201, TOKENS)
    gateway.will_answer(200, TOKENS.replace(b'"t"', b'"t2"').replace(b'"r"', b'"r2"'))
    gateway.will_answer(204, b"")
    gateway.will_answer(204, b"")
    async with Api(gateway.url) as api:
        person = await api.login("ada", "secret")
        await person.renew()
        await person.delete_post("p1")
        await person.leave("secret")
    _, refresh, delete, leave = gateway.requests
    assert '"refresh_token":"r"' in refresh
    assert person.refresh_token == "r2"
    assert delete.startswith("delete /v1/posts/p1 ")
    assert "authorization: bearer t2" in delete
    assert leave.startswith("delete /v1/users/me ")
    assert '"password":"secret"' in leave
