from __future__ import annotations

import asyncio
import os
import time
from types import SimpleNamespace

import httpx
import pytest
from fastapi import APIRouter, FastAPI

from fanfold.contracts import headers, internal
from fanfold.kit import deadline
from fanfold.kit.asgi import Edge
from fanfold.kit.flight import SingleFlight
from fanfold.kit.identity import Identity, IdentitySigner
from fanfold.kit.peers import Peers
from fanfold.kit.web import create_app, internal_route

SIGNER = IdentitySigner(os.urandom(32).hex())


def at(seconds_from_now: float) -> str:
    return str(int((time.time() + seconds_from_now) * 1000))


class House:
    """A service that calls another, which keeps the deadlines it was sent."""

    def __init__(self) -> None:
        self.inner: list[dict[str, str]] = []
        self.handled = 0
        self.outer = create_app("outer", "0")
        router = APIRouter()

        @router.get("/work")
        async def work() -> dict[str, int]:
            self.handled += 1
            await self.peers.call(internal.POSTS, internal.Ids([]))
            return {"done": 1}

        self.outer.include_router(router)
        self.peers = Peers({"post": "http://post"}, SIGNER, "outer")
        self.peers._client = httpx.AsyncClient(transport=httpx.ASGITransport(Edge(self._inner(), SIGNER)))

    def _inner(self) -> FastAPI:
        inner = create_app("inner", "0")
        router = APIRouter()

        async def answer(_: internal.Ids) -> internal.Blobs:
            return internal.Blobs({})

        internal_route(router, internal.POSTS, answer)
        inner.include_router(router)

        @inner.middleware("http")
        async def _(request: object, call_next: object) -> object:
            self.inner.append(dict(request.headers))  # type: ignore[attr-defined]
            return await call_next(request)  # type: ignore[operator]

        return inner

    async def ask(self, **more: str) -> httpx.Response:
        identity = {headers.IDENTITY: SIGNER.sign(Identity())}
        transport = httpx.ASGITransport(Edge(self.outer, SIGNER))
        async with httpx.AsyncClient(transport=transport, base_url="http://outer") as client:
            return await client.get("/work", headers={**identity, **more})


@pytest.fixture
def house() -> House:
    return House()


async def test_work_whose_deadline_has_passed_is_refused_and_not_done(house: House) -> None:
    answer = await house.ask(**{headers.DEADLINE: at(-1)})
    assert (answer.status_code, answer.json()["type"].rpartition("/")[2]) == (504, "deadline-passed")
    assert house.handled == 0


async def test_clocks_may_differ_a_little(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    monkeypatch.setattr(deadline, "time", SimpleNamespace(time=lambda: now))
    for behind, status in ((deadline.SKEW_SECONDS - 0.01, 200), (deadline.SKEW_SECONDS + 0.01, 504)):
        passed = str(int((now - behind) * 1000))
        assert (await house.ask(**{headers.DEADLINE: passed})).status_code == status


async def test_a_deadline_goes_on_to_other_services_as_it_came(house: House) -> None:
    until = at(60)
    assert (await house.ask(**{headers.DEADLINE: until})).status_code == 200
    assert house.inner[0][headers.DEADLINE] == until
    assert (await house.ask()).status_code == 200
    assert headers.DEADLINE not in house.inner[1]


@pytest.mark.parametrize("value", ["", "soon", "-5", "1e9"])
async def test_what_is_no_deadline_is_none(house: House, value: str) -> None:
    assert (await house.ask(**{headers.DEADLINE: value})).status_code == 200


async def test_a_call_made_too_late_is_not_repeated(house: House) -> None:
    deadline.current.set(at(-1).encode())
    with pytest.raises(deadline.DeadlinePassed):
        await house.peers.call(internal.POSTS, internal.Ids([]))
    assert house.inner == []  # refused at the edge, once


async def test_shared_work_has_no_callers_deadline() -> None:
    deadline.current.set(at(-1).encode())

    async def work() -> dict[str, str]:
        await asyncio.sleep(0)
        return deadline.onward()

    assert await SingleFlight[dict[str, str]]().do("key", work) == {}
