"""A real API server that holds one ConfigMap, and an account that may read that one alone."""

from __future__ import annotations

import json
import select
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from fanfold.contracts.snapshot import SNAPSHOT_KEY, Slot, Snapshot, encode

BINARY = Path(__file__).parents[3] / ".build" / "bin" / "fanfold-cluster"
START_SECONDS = 90
NAME = "demo-snapshot"


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
        self.write(encode(Snapshot("default/demo", epoch, {"feed": [Slot("feed-0", "10.0.0.1:8000")]})))

    def write(self, snapshot: bytes) -> None:
        data = {SNAPSHOT_KEY: snapshot.decode()}
        self.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": NAME}, "data": data})


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
def as_gateway(control_plane: ControlPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """KUBECONFIG, and its path, of an account that may get and watch that one ConfigMap, and nothing else."""
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
    return path
