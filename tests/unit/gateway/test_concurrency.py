from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from fanfold.gateway.concurrency import FLOOR, MIN_SAMPLES, adapt, next_limit
from fanfold.gateway.settings import GatewaySettings
from fanfold.gateway.upstream import Endpoint
from tests.waiting import eventually

if TYPE_CHECKING:
    from tests.unit.gateway.conftest import Received, Rig, Service


@pytest.mark.parametrize(
    ("limit", "mean", "in_flight", "expected"),
    [
        (100, 0.1, 100, 111),  # quick: more
        (1000, 0.1, 3, 1024),  # never more than the most
        (100, 0.5, 100, 50),  # slow: cut
        (1024, 0.3, 60, 50),  # from what was under way, not from what might have been
        (100, 9.0, 100, 50),  # never by more than half at once
        (20, 9.0, 20, FLOOR),
        (1024, 9.0, 0, FLOOR),
    ],
)
def test_the_limit_follows_the_time_of_answers(limit: int, mean: float, in_flight: int, expected: int) -> None:
    assert next_limit(limit, mean, in_flight, 0.25, 1024) == expected


def test_a_handful_of_slow_answers_changes_nothing() -> None:
    endpoint = Endpoint("feed-0", "10.0.0.1:8000", GatewaySettings(snapshot_source="file:/nowhere"))
    endpoint.samples, endpoint.sampled_seconds = MIN_SAMPLES - 1, 100.0
    adapt(endpoint, 0.25, 1024)
    assert endpoint.limit == 1024
    endpoint.samples += 1
    adapt(endpoint, 0.25, 1024)
    assert (endpoint.limit, endpoint.samples, endpoint.sampled_seconds) == (FLOOR, 0, 0.0)


class Queue:
    """A service of fixed capacity: requests wait for one worker, as in a process that is busy.

    Attributes:
        met: When each came (monotonic seconds), and how many it found there.
    """

    def __init__(self, per_second: float) -> None:
        self._seconds = 1 / per_second
        self._free_at = 0.0
        self._there = 0
        self.met: list[tuple[float, int]] = []

    async def __call__(self, _: Service, __: Received, writer: asyncio.StreamWriter) -> None:
        now = time.monotonic()
        self.met.append((now, self._there))
        self._there += 1
        self._free_at = max(self._free_at, now) + self._seconds
        await asyncio.sleep(self._free_at - now)
        self._there -= 1
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")


async def test_past_capacity_the_surplus_is_refused_and_the_rest_is_answered_soon(rig: Rig) -> None:
    """Soon is told by the queue that a request finds: how long it takes is the machine's affair too."""
    seconds, settling = 7.0, 3.0
    queue = rig.service.script = Queue(per_second=100)
    await rig.start({"feed": [rig.service]})
    answers: list[tuple[int, float]] = []
    began = time.monotonic()

    async def client() -> None:
        wire = await rig.wire()
        request = rig.request()
        while time.monotonic() - began < seconds:
            asked = time.monotonic()
            wire.send(request)
            got = await wire.answer()
            answers.append((got.status, asked - began))
            if got.status == 503:
                assert got.headers["retry-after"] == "1"
                await asyncio.sleep(0.2)

    async with asyncio.timeout(90), asyncio.TaskGroup() as group:
        for _ in range(150):
            group.create_task(client())
    assert {status for status, asked in answers if asked > settling} == {200, 503}
    found = sorted(there for at, there in queue.met if at - began > settling)
    assert found[int(len(found) * 0.2)] > 0, "it has always something to do"
    assert found[int(len(found) * 0.95)] < 75, "of 150 who ask"
    assert rig.stats.shed["feed"] > 0


async def test_long_polls_count_neither_as_load_nor_as_slowness(rig: Rig) -> None:
    release = asyncio.Event()

    async def script(_: Service, __: Received, writer: asyncio.StreamWriter) -> None:
        await release.wait()
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")

    rig.service.script = script
    await rig.start(max_in_flight_per_slot=2)
    wires = [await rig.send(rig.request(b"GET /v1/notifications")) for _ in range(30)]
    await eventually(lambda: len(rig.service.received) == 30)
    await asyncio.sleep(0.3)
    release.set()
    assert {(await wire.answer()).status for wire in wires} == {204}
    assert all(endpoint.samples == 0 for _, endpoint in rig.balancer.endpoints())
