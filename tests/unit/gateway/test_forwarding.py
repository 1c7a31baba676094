from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.unit.gateway.conftest import Rig


async def test_a_request_reaches_the_service_and_its_answer_the_client(rig: Rig) -> None:
    await rig.start()
    got = await rig.ask(b"GET /v1/feed?limit=5", b"accept: application/json\r\n")
    assert (got.status, got.body) == (200, b"ok")
    (received,) = rig.service.received
    assert (received.method, received.target, received.one("accept")) == ("GET", "/v1/feed?limit=5", "application/json")
