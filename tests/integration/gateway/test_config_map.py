"""The snapshot's way through a real API server, with the least rights that do."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

import pytest

from fanfold.contracts.snapshot import Snapshot
from fanfold.gateway.metrics import GatewayStats
from fanfold.gateway.snapshots import SnapshotKeeper
from fanfold.gateway.sources import ConfigMapSource
from tests.integration.gateway.control_plane import BINARY, NAME, ControlPlane, as_gateway, control_plane  # noqa: F401
from tests.waiting import eventually

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

    async def arrives(epoch: int) -> None:
        """Sooner than by the poll."""
        await eventually(lambda: epoch in applied, f"snapshot {epoch}", seconds=50)

    keeper = SnapshotKeeper(apply, GatewayStats(), None, 10)
    source = asyncio.create_task(ConfigMapSource("default", NAME, poll_seconds=60).run(keeper.offer))
    await asyncio.sleep(1)
    assert not source.done()  # the ConfigMap is not there yet: that is waited for
    await asyncio.to_thread(control_plane.publish, 1)
    await arrives(1)
    for epoch in (2, 3):
        await asyncio.to_thread(control_plane.publish, epoch)
        await arrives(epoch)
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
    await eventually(lambda: len(delivered) >= 3, "three polls")
    assert set(delivered) == {"poll"}
    source.cancel()
    with suppress(asyncio.CancelledError):
        await source
