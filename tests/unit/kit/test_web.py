from __future__ import annotations

import os
from collections.abc import AsyncIterator
from uuid import uuid4

import httpx
import msgspec
import pytest
from fastapi import APIRouter, Response

from fanfold.contracts import headers, internal
from fanfold.kit.asgi import Edge
from fanfold.kit.errors import NotFound
from fanfold.kit.identity import Identity, IdentitySigner
from fanfold.kit.web import CurrentUser, create_app, internal_route

SIGNER = IdentitySigner(os.urandom(32).hex())
USER = Identity(user_id=uuid4(), session_id=uuid4())


async def _answer(asked: internal.Ids) -> internal.Blobs:
    return internal.Blobs(dict.fromkeys(asked.ids, b"blob"))


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    app = create_app("test", "0")
    router = APIRouter()

    @router.get("/me")
    async def me(user: CurrentUser, size: int = 1) -> dict[str, str]:
        return {"user": str(user), "size": str(size)}

    @router.get("/missing")
    async def missing() -> None:
        raise NotFound("There is no such post.", kind="post-not-found")

    @router.get("/broken")
    async def broken() -> None:
        raise RuntimeError("secret detail")

    @router.get("/kept")
    async def kept() -> Response:
        return Response(headers={"cache-control": "public, max-age=9"})

    internal_route(router, internal.POSTS, _answer)
    app.include_router(router)
    transport = httpx.ASGITransport(Edge(app, SIGNER), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as http:
        yield http


def _as(identity: Identity) -> dict[str, str]:
    return {headers.IDENTITY: SIGNER.sign(identity)}


async def test_a_call_without_an_identity_is_refused(client: httpx.AsyncClient) -> None:
    answer = await client.get("/me")
    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"].endswith("/no-identity")


async def test_an_identity_header_of_our_own_making_is_refused(client: httpx.AsyncClient) -> None:
    forged = IdentitySigner(os.urandom(32).hex()).sign(USER)
    assert (await client.get("/me", headers={headers.IDENTITY: forged})).status_code == 401


async def test_the_user_reaches_the_route_and_the_request_id_comes_back(client: httpx.AsyncClient) -> None:
    answer = await client.get("/me", headers={**_as(USER), headers.REQUEST_ID: "r-1"})
    assert answer.json()["user"] == str(USER.user_id)
    assert answer.headers[headers.REQUEST_ID] == "r-1"


async def test_what_one_user_sees_is_kept_by_nobody_else(client: httpx.AsyncClient) -> None:
    for path in ("/me", "/missing", "/broken", "/nowhere"):
        assert (await client.get(path, headers=_as(USER))).headers["cache-control"] == "private, no-cache"
    assert (await client.get("/kept", headers=_as(USER))).headers.get_list("cache-control") == ["public, max-age=9"]


async def test_anonymous_must_log_in(client: httpx.AsyncClient) -> None:
    answer = await client.get("/me", headers=_as(Identity()))
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"


async def test_validation_errors_name_the_field(client: httpx.AsyncClient) -> None:
    answer = await client.get("/me", params={"size": "many"}, headers=_as(USER))
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "query.size"


async def test_problems_unknown_paths_and_bugs_are_all_problem_details(client: httpx.AsyncClient) -> None:
    missing = await client.get("/missing", headers=_as(USER))
    assert (missing.status_code, missing.json()["type"].rpartition("/")[2]) == (404, "post-not-found")
    unknown = await client.get("/nowhere", headers=_as(USER))
    assert (unknown.status_code, unknown.json()["title"]) == (404, "Not Found")
    broken = await client.get("/broken", headers=_as(USER))
    assert broken.status_code == 500
    assert "secret" not in broken.text
    assert broken.json()["type"].endswith("/internal-error")


async def test_internal_paths_are_for_services_only(client: httpx.AsyncClient) -> None:
    body = msgspec.msgpack.encode(internal.Ids([b"a" * 16]))
    as_user = await client.post(internal.POSTS.path, content=body, headers=_as(USER))
    assert as_user.status_code == 403
    as_service = await client.post(internal.POSTS.path, content=body, headers=_as(Identity(service="feed")))
    assert msgspec.msgpack.decode(as_service.content, type=internal.Blobs).blobs == {b"a" * 16: b"blob"}


async def test_a_malformed_internal_body_is_422(client: httpx.AsyncClient) -> None:
    answer = await client.post(internal.POSTS.path, content=b"\xc1", headers=_as(Identity(service="feed")))
    assert answer.status_code == 422
