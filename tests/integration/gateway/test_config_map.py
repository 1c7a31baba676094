"""The snapshot's way through a real API server, with the least rights that do."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from pathlib import Path

import pytest

from fanfold.contracts.snapshot import Snapshot
from fanfold.gateway.metrics import GatewayStats
from fanfold.gateway.snapshots import SnapshotKeeper
from fanfold.gateway.sources import ConfigMapSource
from tests.integration.gateway.control_plane import BINARY, NAME, ControlPlane, as_gateway, control_plane  # noqa: F401

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not BINARY.exists(), reason="the control plane is not built: run cluster/build.sh"),
]


async def test_a_change_arrives_by_watch_and_an_outage_changes_nothing(
    control_plane: ControlPlane,  # noqa: F811
    as_gateway: Path,  # noqa: F811
) -> None:
    applied: list[int] = []

    async def apply(snapshot: Snapshot) -> None:
        applied.append(snapshot.epoch)

    async def until(epoch: int, seconds: float) -> float:
        began = time.monotonic()
        async with asyncio.timeout(seconds):
            while epoch not in applied:
                await asyncio.sleep(0.01)
        return time.monotonic() - began

    keeper = SnapshotKeeper(apply, GatewayStats(), None, 10)
    source = asyncio.create_task(ConfigMapSource("default", NAME, poll_seconds=60).run(keeper.offer))
    await asyncio.sleep(1)
    assert not source.done()  # the ConfigMap is not there yet: that is waited for
    await asyncio.to_thread(control_plane.publish, 1)
    await until(1, 50)
    for epoch in (2, 3):
        await asyncio.to_thread(control_plane.publish, epoch)
        await until(epoch, 50)
        assert keeper.source == "watch"
    control_plane.process.terminate()
    await asyncio.to_thread(control_plane.process.wait, 60)
    await asyncio.sleep(1)
    assert not source.done()
    assert applied == [1, 2, 3]
    source.cancel()
    with suppress(asyncio.CancelledError):
        await source


async def test_what_the_watch_misses_the_poll_brings(
    control_plane: ControlPlane,  # noqa: F811
    as_gateway: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def silent(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(ConfigMapSource, "_watch", silent)
    delivered: list[str] = []

    async def deliver(data: bytes | str, source: str) -> None:
        assert isinstance(data, str)
        delivered.append(source)

    await asyncio.to_thread(control_plane.publish, 1)
    source = asyncio.create_task(ConfigMapSource("default", NAME, poll_seconds=0.3).run(deliver))
    async with asyncio.timeout(60):
        while len(delivered) < 3:
            await asyncio.sleep(0.05)
    assert set(delivered) == {"poll"}
    source.cancel()
    with suppress(asyncio.CancelledError):
        await source
