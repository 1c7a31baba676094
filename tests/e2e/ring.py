"""What gateways are told: the snapshot that the operator keeps."""

from __future__ import annotations

from typing import Any

from fanfold.contracts.snapshot import SNAPSHOT_KEY, Snapshot, decode
from tools.local.clusters import Kubectl
from tools.local.up import PLATFORM


def snapshot(kubectl: Kubectl) -> Snapshot:
    """The newest; `SnapshotError` while it is damaged."""
    config: Any = kubectl.get("configmap", f"{PLATFORM}-snapshot")
    return decode(config["data"][SNAPSHOT_KEY])


def active(kubectl: Kubectl, service: str) -> dict[str, str]:
    """Addresses by slot: of those that take keys."""
    return {slot.slot: slot.address for slot in snapshot(kubectl).services[service] if slot.state == "active"}
