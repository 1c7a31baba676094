from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.unit.gateway.conftest import Got, Rig

APP = b"https://app.example"


async def preflight(rig: Rig, path: bytes, origin: bytes = APP, method: bytes = b"PUT") -> Got:
    wire = await rig.send(
        b"OPTIONS %b HTTP/1.1\r\nhost: a\r\norigin: %b\r\naccess-control-request-method: %b\r\n"
        b"access-control-request-headers: authorization\r\n\r\n" % (path, origin, method)
    )
    return await wire.answer()


async def test_a_preflight_is_answered_here_without_a_token(rig: Rig) -> None:
    await rig.start(cors_origins=["https://app.example"])
    got = await preflight(rig, b"/v1/users/me/following/1")
    assert (got.status, got.body) == (204, b"")
    assert got.headers["access-control-allow-origin"] == "https://app.example"
    assert got.headers["access-control-allow-methods"] == "PUT"
    allowed = got.headers["access-control-allow-headers"].split(", ")
    assert {"authorization", "content-type", "idempotency-key", "if-match", "if-none-match"} <= set(allowed)
    assert got.headers["vary"] == "origin"
    assert "access-control-allow-credentials" not in got.headers
    assert rig.service.received == []


@pytest.mark.parametrize(
    ("path", "origin", "method", "status"),
    [
        (b"/v1/feed", b"https://evil.example", b"GET", 403),
        (b"/v1/feed", b"null", b"GET", 403),
        (b"/v1/feed", APP + b".evil.example", b"GET", 403),
        (b"/v1/feed", APP, b"DELETE", 405),
        (b"/internal/users/batch", APP, b"POST", 404),
    ],
)
async def test_a_preflight_for_what_may_not_be_is_refused(
    rig: Rig, path: bytes, origin: bytes, method: bytes, status: int
) -> None:
    await rig.start(cors_origins=["https://app.example"])
    got = await preflight(rig, path, origin, method)
    assert got.status == status
    assert ("access-control-allow-origin" in got.headers) is (origin == APP)


async def test_answers_and_problems_may_be_read_by_pages_that_may_call(rig: Rig) -> None:
    await rig.start(cors_origins=["https://app.example"])
    ours = await rig.ask(headers=b"origin: https://app.example\r\n")
    assert ours.headers["access-control-allow-origin"] == "https://app.example"
    exposed = set(ours.headers["access-control-expose-headers"].split(", "))
    assert exposed >= {"x-request-id", "etag", "poll-interval", "retry-after", "ratelimit"}
    wire = await rig.send(b"GET /v1/feed HTTP/1.1\r\nhost: a\r\norigin: https://app.example\r\n\r\n")
    refused = await wire.answer()
    assert (refused.status, refused.headers["access-control-allow-origin"]) == (401, "https://app.example")
    theirs = await rig.ask(headers=b"origin: https://evil.example\r\n")
    assert "access-control-allow-origin" not in theirs.headers
    assert (theirs.headers["vary"], (await rig.ask()).headers["vary"]) == ("origin", "origin")


async def test_a_star_lets_every_page_call(rig: Rig) -> None:
    await rig.start(cors_origins=["*"])
    got = await rig.ask(headers=b"origin: https://anybody.example\r\n")
    assert got.headers["access-control-allow-origin"] == "*"
    assert "vary" not in got.headers


async def test_without_the_setting_nothing_is_said_and_options_is_no_method(rig: Rig) -> None:
    await rig.start()
    assert "access-control-allow-origin" not in (await rig.ask(headers=b"origin: https://app.example\r\n")).headers
    assert (await preflight(rig, b"/v1/feed")).status == 405


async def test_options_that_is_no_preflight_is_405(rig: Rig) -> None:
    await rig.start(cors_origins=["*"])
    assert (await rig.ask(b"OPTIONS /v1/feed")).status == 405
