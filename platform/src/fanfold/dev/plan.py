"""What runs where on a development machine: pure decisions, no process and no port is touched here."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fanfold.contracts.components import BY_NAME, COMPONENTS
from fanfold.contracts.snapshot import Slot, Snapshot, encode

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

HOST: Final = "127.0.0.1"
GATEWAY: Final = "gateway"
PLATFORM: Final = "local/dev"


class PlanError(ValueError):
    """The components asked for cannot run: the message says which and what there is."""


@dataclass(frozen=True, slots=True)
class Launch:
    """One component of this run, its ports on the loopback interface."""

    name: str
    traffic_port: int
    admin_port: int


def choose(names: Sequence[str]) -> list[str]:
    """The components asked for in the order of their table, all of them when none is named.

    Raises:
        PlanError: A name is no component.
    """
    unknown = sorted(set(names) - BY_NAME.keys())
    if unknown:
        raise PlanError(f"no component {', '.join(unknown)}; there are: {', '.join(BY_NAME)}")
    return [component.name for component in COMPONENTS if not names or component.name in names]


def assign(names: Sequence[str], ports: Sequence[int], gateway_port: int) -> list[Launch]:
    """Two ports for each component, the gateway's traffic port as asked. Takes two of ``ports`` per name."""
    launches = []
    for index, name in enumerate(names):
        traffic = gateway_port if name == GATEWAY else ports[2 * index]
        launches.append(Launch(name, traffic, ports[2 * index + 1]))
    return launches


def snapshot(launches: Sequence[Launch], epoch: int) -> bytes:
    """Locations of the routed services: one slot each."""
    services = {
        launch.name: [Slot(f"{launch.name}-0", f"{HOST}:{launch.traffic_port}")]
        for launch in launches
        if BY_NAME[launch.name].routed
    }
    return encode(Snapshot(platform=PLATFORM, epoch=epoch, services=services))


def environment(launch: Launch, launches: Sequence[Launch], folder: Path, s3_endpoint: str) -> dict[str, str]:
    """``FANFOLD_*`` of one component. ``folder`` holds ``secrets/`` and ``snapshot.json``."""
    peers = {
        other.name: f"http://{HOST}:{other.traffic_port}"
        for other in launches
        if BY_NAME[other.name].serves and other.name != GATEWAY
    }
    values = {
        "service": launch.name,
        "instance": f"{launch.name}-0",
        "log_format": "console",
        "traffic_host": HOST,
        "traffic_port": str(launch.traffic_port),
        "admin_host": HOST,
        "admin_port": str(launch.admin_port),
        "secrets_dir": str(folder / "secrets"),
        "peers": json.dumps(peers),
        "s3_endpoint": s3_endpoint,
        "snapshot_source": f"file:{folder / 'snapshot.json'}",
        "drain_seconds": "0",
        "grace_seconds": "5",
    }
    return {f"FANFOLD_{name.upper()}": value for name, value in values.items()}
