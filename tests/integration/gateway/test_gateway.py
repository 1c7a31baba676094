from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING

import pytest

from fanfold.contracts import keys
from fanfold.contracts.ids import new_id
from fanfold.contracts.snapshot import decode
from tests.waiting import eventually

if TYPE_CHECKING:
    from tests.integration.gateway.conftest import Rig

pytestmark = pytest.mark.integration


async def test_a_request_crosses_the_whole_gateway(rig: Rig) -> None:
    await rig.start()
    answer = await rig.client.get("/v1/feed", headers=rig.bearer())
    assert (answer.status_code, answer.json()) == (200, {"bytes": 0})
    assert (await rig.client.get("/v1/feed")).status_code == 401
    upload = await rig.client.post("/v1/images", headers=rig.bearer(), content=b"x" * 5_000_000)
    assert upload.json() == {"bytes": 5_000_000}


async def test_a_logout_counts_within_seconds_and_survives_an_outage_of_valkey(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fanfold.kit.valkey.COMMAND_SECONDS", 2.0)
    await rig.start()
    assert (await rig.client.get("/v1/feed", headers=rig.bearer())).status_code == 200
    await rig.redis.zadd(keys.REVOKED_SESSIONS, {rig.session.bytes: int(time.time()) + 900})

    async def refused() -> bool:
        return (await rig.client.get("/v1/feed", headers=rig.bearer())).status_code == 401

    began = time.monotonic()
    await eventually(refused)
    assert time.monotonic() - began < 30, "a second or two on a quiet machine"
    await rig.redis.client_pause(3000, all=True)
    await asyncio.sleep(2.5)
    assert await refused()
    other = rig.bearer(session=new_id())
    assert (await rig.client.get("/v1/feed", headers=other)).status_code == 200


async def test_a_revocation_whose_tokens_have_all_expired_is_forgotten(rig: Rig) -> None:
    await rig.redis.zadd(keys.REVOKED_SESSIONS, {rig.session.bytes: int(time.time()) - 1})
    await rig.start()
    assert (await rig.client.get("/v1/feed", headers=rig.bearer())).status_code == 200


async def test_the_snapshot_in_force_can_be_seen_and_follows_its_file(rig: Rig) -> None:
    await rig.start()
    shown = (await rig.admin.get("/snapshot")).json()
    current = decode(rig.file.read_bytes())
    assert (shown["epoch"], shown["checksum"], shown["source"]) == (1, current.checksum, "file")
    assert shown["age_seconds"] < 60
    rig.locate(2, feed=3)

    async def applied() -> bool:
        return bool((await rig.admin.get("/snapshot")).json()["epoch"] == 2)

    await eventually(applied)
    assert await rig.metric("fanfold_gateway_snapshot_epoch") == 2


async def test_a_gateway_whose_source_is_away_serves_from_disk(
    rig: Rig, tmp_path_factory: pytest.TempPathFactory
) -> None:
    cache = tmp_path_factory.mktemp("cache")
    rig.locate(5)
    (cache / "snapshot.json").write_bytes(rig.file.read_bytes())
    await rig.start(snapshot_source="file:/nowhere/snapshot.json", snapshot_cache=cache)
    assert (await rig.client.get("/v1/feed", headers=rig.bearer())).status_code == 200
    assert (await rig.admin.get("/snapshot")).json() == {
        "epoch": 5,
        "checksum": decode(rig.file.read_bytes()).checksum,
        "age_seconds": None,
        "source": "disk",
        "held_back": None,
    }


async def test_without_any_snapshot_the_gateway_is_not_ready(rig: Rig) -> None:
    starting = asyncio.create_task(rig.start(snapshot_source="file:/nowhere/snapshot.json"))

    async def told() -> bool:
        answer = await rig.admin.get("/readyz") if hasattr(rig, "client") else None
        return answer is not None and answer.status_code == 503 and "no snapshot" in answer.text

    await eventually(told)
    starting.cancel()


async def test_requests_are_counted_by_route_and_slot(rig: Rig) -> None:
    await rig.start()
    for _ in range(3):
        await rig.client.get("/v1/feed", headers=rig.bearer())
    await rig.client.get("/nowhere")
    assert await rig.metric('fanfold_gateway_requests_total{method="GET",route="/v1/feed",status="200"}') == 3
    assert (
        await rig.metric('fanfold_gateway_request_duration_seconds_bucket{le="+Inf",method="GET",route="/v1/feed"}')
        == 3
    )
    slot = 'fanfold_gateway_upstream_requests_total{outcome="answered",service="feed",slot="feed-0"}'
    assert await rig.metric(slot) == 3
    assert await rig.metric('fanfold_gateway_rejected_requests_total{kind="404"}') == 1


async def test_answers_are_logged_as_json_without_query_or_token(rig: Rig, capsys: pytest.CaptureFixture[str]) -> None:
    await rig.start(access_log_sample=1)
    headers = rig.bearer()
    await rig.client.get("/v1/feed?secret=1", headers=headers)
    printed = capsys.readouterr().out
    assert "/v1/feed" in printed
    assert "secret" not in printed
    assert headers["authorization"][7:] not in printed


async def test_the_documentation_loads_nothing_from_elsewhere(rig: Rig) -> None:
    await rig.start()
    page = await rig.client.get("/docs")
    assert page.status_code == 200
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "sha256-" in page.headers["content-security-policy"]
    assert "//" not in page.text.replace("http://www.w3.org", "")
    again = await rig.client.get("/docs", headers={"if-none-match": page.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert (page.headers["content-encoding"], page.headers["vary"]) == ("gzip", "accept-encoding")
    head = await rig.client.head("/docs")
    for name in ("content-length", "content-encoding", "etag", "vary"):
        assert head.headers[name] == page.headers[name]
    plain = await rig.client.get("/docs", headers={"accept-encoding": "identity"})
    assert "content-encoding" not in plain.headers
    assert (plain.text, plain.headers["etag"] != page.headers["etag"]) == (page.text, True)
    openapi = await rig.client.get("/openapi.json")
    assert openapi.status_code in (200, 404)
    assert isinstance(json.loads(openapi.content), dict)
