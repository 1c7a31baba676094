"""What is compressed for whom, and that conditions hold for every representation."""

from __future__ import annotations

import gzip
import os
import time
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import brotli
import httpx
import pytest
from fastapi import Request, Response
from starlette.responses import StreamingResponse

from fanfold.contracts import headers
from fanfold.kit.asgi import Edge
from fanfold.kit.compression import Compression
from fanfold.kit.identity import Identity, IdentitySigner
from fanfold.kit.web import create_app

SIGNER = IdentitySigner(os.urandom(32).hex())
ME = {headers.IDENTITY: SIGNER.sign(Identity(user_id=uuid4(), session_id=uuid4()), time.time() + 3600)}
BODY = b'{"items":[%b]}' % b",".join(b'{"caption":"photo %d"}' % number for number in range(200))
TAG = '"5f3a"'


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        ("gzip", "gzip"), ("br", "br"), ("gzip, deflate, br, zstd", "gzip"), ("br, gzip", "gzip"), ("x-gzip", "gzip"),
        ("GZip ; Q=0.5", "gzip"), ("gzip;q=0.5, br;q=0.8", "br"), ("gzip;q=0, br", "br"), ("gzip;q=0", None),
        ("*", "gzip"), ("*;q=0.1", "gzip"), ("gzip;q=0, *", "br"), ("*;q=0", None), ("*;q=0, br;q=0.2", "br"),
        ("identity", None), ("identity, gzip;q=0.9", None), ("identity;q=0.5, gzip", "gzip"),
        ("gzip, identity", "gzip"), ("identity;q=0", None), ("identity;q=0, *", "gzip"), ("", None),
        ("deflate", None), (",,;q=1,", None),
        ("gzip;q=2", None), ("gzip;q=-1", None), ("gzip;q=x, br", "br"), ("gzip;q=0.0001", None),
        ("gzip;q=1.000", "gzip"),
    ],
)  # fmt: skip
def test_the_client_chooses_and_the_server_breaks_ties(accepted: str, coding: str | None) -> None:
    assert Compression(("gzip", "br")).choose(accepted.encode()) == coding


def test_only_what_is_offered_is_chosen() -> None:
    assert Compression(("br",)).choose(b"gzip, br;q=0.1") == "br"
    assert Compression(("br", "gzip")).choose(b"gzip, br") == "br"
    assert Compression().choose(b"gzip, br, *") is None


Call = Callable[..., Any]


@pytest.fixture
async def call() -> Call:
    app = create_app("test", "0")

    @app.api_route("/page", methods=["GET", "POST"])
    async def page(
        request: Request, size: int = len(BODY), kind: str = "application/json", control: str = ""
    ) -> Response:
        tags = {"etag": f"W/{TAG}" if "weak" in request.query_params else TAG} | (
            {"cache-control": control} if control else {}
        )
        for name in ("if-none-match", "if-match"):
            if (asked := request.headers.get(name)) is not None:
                assert "gzip" not in asked
                if name == "if-none-match" and TAG in asked.split(", "):
                    return Response(status_code=304, headers=tags)
                if name == "if-match" and asked != TAG:
                    return Response(status_code=412)
        return Response(BODY[:size], headers=tags, media_type=kind)

    @app.get("/stream")
    async def stream() -> Response:
        async def pieces() -> Any:
            yield BODY
            yield BODY

        return StreamingResponse(pieces(), media_type="application/json")

    async def ask(
        path: str, accepted: str | None = "gzip", method: str = "GET", offered: Any = ("gzip", "br"), **more: str
    ) -> tuple[httpx.Response, bytes]:
        transport = httpx.ASGITransport(Edge(app, SIGNER, compression=Compression(offered)))
        head = {**ME, **{name.replace("_", "-"): value for name, value in more.items()}}
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            client.headers.pop("accept-encoding")
            head |= {} if accepted is None else {"accept-encoding": accepted}
            async with client.stream(method, path, headers=head) as answer:
                return answer, b"".join([part async for part in answer.aiter_raw()])

    return ask


@pytest.mark.parametrize(("coding", "unpack"), [("gzip", gzip.decompress), ("br", brotli.decompress)])
async def test_json_above_the_size_comes_in_the_coding_asked_for(
    call: Call, coding: str, unpack: Callable[[bytes], bytes]
) -> None:
    answer, body = await call("/page", coding)
    assert answer.headers["content-encoding"] == coding
    assert answer.headers["vary"] == "accept-encoding"
    assert answer.headers["content-length"] == str(len(body))
    assert len(body) < len(BODY) / 3
    assert unpack(body) == BODY


@pytest.mark.parametrize(
    ("path", "asked", "vary"),
    [
        ("/page", {"accepted": None}, True),
        ("/page", {"accepted": "identity"}, True),
        ("/page", {"method": "POST"}, False),
        ("/page", {"offered": ()}, False),
        ("/page?size=1023", {}, False),
        ("/page?kind=image/webp", {}, False),
        ("/page?kind=application/zip", {}, False),
        ("/page?kind=application/msgpack", {}, False),
        ("/page?control=no-transform", {}, False),
        ("/stream", {}, False),
    ],
)
async def test_everything_else_comes_as_it_is(call: Call, path: str, asked: dict[str, Any], vary: bool) -> None:
    answer, body = await call(path, **asked)
    assert answer.status_code == 200
    assert "content-encoding" not in answer.headers
    assert body[: len(BODY)] == BODY[: len(body)]
    assert ("vary" in answer.headers) is vary
    assert answer.headers.get("etag", TAG) == TAG


async def test_each_representation_has_a_tag_of_its_own_and_all_are_known(call: Call) -> None:
    plain, _ = await call("/page", None)
    packed, _ = await call("/page", "br")
    assert (plain.headers["etag"], packed.headers["etag"]) == (TAG, '"5f3a-br"')
    for had in (TAG, '"5f3a-gzip"', '"5f3a-br"', '"old", "5f3a-br"'):
        again, body = await call("/page", "br", if_none_match=had)
        assert (again.status_code, body) == (304, b"")
        assert again.headers["etag"] == had.rpartition(" ")[2]
        assert ("vary" in again.headers) is (had != TAG)
    for other in ('"5f3b-gzip"', '"gzip"', "5f3a-gzip"):
        again, _ = await call("/page", "identity", if_none_match=other.replace("gzip", "zip"))
        assert again.status_code == 200


async def test_a_weak_tag_names_every_coding(call: Call) -> None:
    packed, _ = await call("/page?weak=1", "br")
    assert (packed.headers["content-encoding"], packed.headers["etag"]) == ("br", f"W/{TAG}")


async def test_an_edit_is_of_the_thing_whatever_came_of_it(call: Call) -> None:
    for had, status in ((TAG, 200), ('"5f3a-gzip"', 200), ('"5f3b-br"', 412)):
        answer, _ = await call("/page", method="POST", if_match=had)
        assert answer.status_code == status
