from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from time import monotonic
from typing import TYPE_CHECKING

import pytest

from fanfold.gateway.limits import Limits, Policy
from fanfold.gateway.metrics import GatewayStats
from fanfold.gateway.reconcile import Reconciler
from fanfold.gateway.settings import GatewaySettings
from fanfold.kit.errors import TooManyRequests
from fanfold.kit.valkey import Valkey
from tests.waiting import eventually

if TYPE_CHECKING:
    from tests.integration.conftest import House
    from tests.integration.gateway.conftest import Rig

pytestmark = pytest.mark.integration


class Gateway:
    """What one gateway knows of a limit of one request in a hundred seconds, bursts of 80."""

    def __init__(self, valkey: Valkey) -> None:
        limits = Limits(GatewaySettings(snapshot_source="file:/x", user_rate=0.01, user_burst=80), GatewayStats())
        self.policy: Policy = limits.policies[0]
        self.reconciler = Reconciler(limits, valkey)

    def take(self, count: int) -> int:
        """How many of so many requests at once are let through."""
        taken = 0
        for _ in range(count):
            try:
                self.policy.take("somebody", monotonic())
            except TooManyRequests:
                break
            taken += 1
        return taken

    async def tell(self) -> None:
        await self.reconciler.tell(self.policy)


@pytest.fixture
async def valkey(house: House) -> AsyncIterator[Valkey]:
    client = Valkey(house.secrets.read("valkey_url"))
    yield client
    await client.close()


async def test_gateways_share_a_limit_though_no_request_waits_for_valkey(valkey: Valkey) -> None:
    one, other = Gateway(valkey), Gateway(valkey)
    assert (one.take(40), other.take(40)) == (40, 40)
    await one.tell()
    await other.tell()
    assert other.take(10) == 0  # all 80 are gone, and it knows
    one.policy.take("somebody", monotonic())
    for _ in range(9):
        one.policy.take("somebody", monotonic())
    await one.tell()
    assert one.take(10) == 0


async def test_what_is_taken_while_valkey_answers_is_not_lost(valkey: Valkey) -> None:
    gateway = Gateway(valkey)
    gateway.take(20)
    telling = asyncio.create_task(gateway.tell())
    await asyncio.sleep(0)
    gateway.take(30)
    await telling
    assert gateway.take(80) == 30
    await gateway.tell()
    assert Gateway(valkey).take(1) == 1  # a new one learns with its first tell
    assert gateway.take(1) == 0


async def test_a_forgotten_script_is_sent_again_and_an_outage_leaves_each_to_itself(
    valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = Gateway(valkey)
    gateway.take(20)
    await valkey.execute("SCRIPT", "FLUSH")
    await gateway.tell()
    assert float(await valkey.execute("HGET", "limit:user:somebody", "tokens")) == pytest.approx(60, abs=0.5)
    assert 0 < int(await valkey.execute("PTTL", "limit:user:somebody")) <= 16_000_000
    gateway.take(20)
    away = Valkey("redis://127.0.0.1:1")
    monkeypatch.setattr(gateway.reconciler, "_valkey", away)
    await gateway.tell()
    assert gateway.take(80) == 40
    monkeypatch.setattr(gateway.reconciler, "_valkey", valkey)
    await gateway.tell()
    assert float(await valkey.execute("HGET", "limit:user:somebody", "tokens")) == pytest.approx(0, abs=0.5)


async def test_a_whole_gateway_tells_valkey_and_its_client(rig: Rig) -> None:
    await rig.start(user_rate=0.1, user_burst=16)
    headers = rig.bearer()
    answers = [await rig.client.get("/v1/feed", headers=headers) for _ in range(24)]
    assert answers[0].headers["ratelimit-policy"] == '"user";q=16;w=160'
    refused = [answer for answer in answers if answer.status_code == 429]
    assert refused
    assert int(refused[0].headers["retry-after"]) >= 1
    assert await rig.metric('fanfold_gateway_limited_total{policy="user"}') == len(refused)

    async def told() -> bool:
        return bool(await rig.redis.keys("limit:user:*"))

    await eventually(told)


async def test_one_user_has_so_many_sockets_and_may_open_another_when_one_closes(rig: Rig) -> None:
    await rig.start(websocket_max_per_user=2)
    sockets = [await rig.socket(), await rig.socket()]
    assert [socket.status for socket in sockets] == [101, 101]
    refused = await rig.socket()
    assert (refused.status, refused.headers["retry-after"]) == (429, "10")
    sockets[0].writer.close()

    async def room() -> bool:
        return (await rig.socket()).status == 101

    await eventually(room)


async def test_a_latency_bucket_names_a_trace_that_fell_into_it(rig: Rig) -> None:
    await rig.start()
    trace = "0af7651916cd43dd8448eb211c80319c"
    parent = {"traceparent": f"00-{trace}-b7ad6b7169203331-01"}
    await rig.client.get("/v1/feed", headers={**rig.bearer(), **parent})
    plain = await rig.admin.get("/metrics")
    assert trace not in plain.text
    answer = await rig.admin.get("/metrics", headers={"accept": "application/openmetrics-text"})
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    buckets = [line for line in answer.text.splitlines() if trace in line]
    assert len(buckets) == 1
    assert buckets[0].startswith("fanfold_gateway_request_duration_seconds_bucket")
