"""The snapshot's way through a real API server, with the least rights that do."""

from __future__ import annotations

import asyncio
import json
import select
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from fanfold.contracts.snapshot import Slot, Snapshot, encode
from fanfold.gateway.metrics import GatewayStats
from fanfold.gateway.snapshots import SnapshotKeeper
from fanfold.gateway.sources import ConfigMapSource

BINARY = Path(__file__).parents[3] / ".build" / "bin" / "fanfold-cluster"
START_SECONDS = 90
NAME = "demo-snapshot"

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not BINARY.exists(), reason="the control plane is not built: run cluster/build.sh"),
]


class ControlPlane:
    def __init__(self, process: subprocess.Popen[str], kubeconfig: str) -> None:
        self.process = process
        self.kubeconfig = kubeconfig

    def kubectl(self, *words: str, stdin: str | None = None) -> str:
        command = [str(BINARY), "kubectl", "--kubeconfig", self.kubeconfig, *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, input=stdin)
        return done.stdout

    def apply(self, *manifests: dict[str, object]) -> None:
        for manifest in manifests:
            self.kubectl("apply", "-f", "-", stdin=json.dumps(manifest))

    def publish(self, epoch: int) -> None:
        data = encode(Snapshot("default/demo", epoch, {"feed": [Slot("feed-0", "10.0.0.1:8000")]})).decode()
        self.apply(
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": NAME}, "data": {"snapshot.json": data}}
        )


@pytest.fixture
def control_plane(tmp_path: Path) -> Iterator[ControlPlane]:
    command = [str(BINARY), "control-plane", "run", "--state", str(tmp_path / "state")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert select.select([process.stdout], [], [], START_SECONDS)[0], "no control plane in time"
        yield ControlPlane(process, process.stdout.readline().strip().partition("=")[2])
        process.terminate()
        process.wait(60)


@pytest.fixture
def as_gateway(control_plane: ControlPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """KUBECONFIG of an account that may get and watch that one ConfigMap, and nothing else."""
    rule = {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": [NAME], "verbs": ["get", "watch"]}
    group = "rbac.authorization.k8s.io"
    control_plane.apply(
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "gateway"}},
        {"apiVersion": f"{group}/v1", "kind": "Role", "metadata": {"name": "gateway"}, "rules": [rule]},
        {
            "apiVersion": f"{group}/v1",
            "kind": "RoleBinding",
            "metadata": {"name": "gateway"},
            "roleRef": {"apiGroup": group, "kind": "Role", "name": "gateway"},
            "subjects": [{"kind": "ServiceAccount", "name": "gateway", "namespace": "default"}],
        },
    )
    token = control_plane.kubectl("create", "token", "gateway").strip()
    config = json.loads(control_plane.kubectl("config", "view", "--raw", "--output", "json"))
    config["users"][0]["user"] = {"token": token}
    path = tmp_path / "gateway.kubeconfig"
    path.write_text(json.dumps(config))
    monkeypatch.setenv("KUBECONFIG", str(path))


async def test_a_change_arrives_by_watch_and_an_outage_changes_nothing(
    control_plane: ControlPlane, as_gateway: None
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
    await until(1, 15)
    for epoch in (2, 3):
        await asyncio.to_thread(control_plane.publish, epoch)
        await until(epoch, 5)
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
    control_plane: ControlPlane, as_gateway: None, monkeypatch: pytest.MonkeyPatch
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
