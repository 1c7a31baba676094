"""The snapshot of service locations: written by the operator (or ``fanfold dev``), watched by every gateway.

One JSON document, carried by one ConfigMap under the key ``snapshot.json``::

    {"format": 1, "platform": "default/demo", "epoch": 7, "virtual_nodes": 160, "bounded_load": 1.25,
     "services": {"feed": [{"slot": "feed-0", "address": "10.244.1.7:8000", "state": "active", "weight": 1}]},
     "checksum": "9c5e…"}

The ring is built from slot names, never from addresses: a pod that replaces another inherits its slot, no key moves.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec
import xxhash

SNAPSHOT_KEY: Final = "snapshot.json"
FORMAT: Final = 1

SlotState = Literal["active", "draining"]


class SnapshotError(ValueError):
    """The bytes are no snapshot this version can use: the message says why."""


class Slot(msgspec.Struct, frozen=True):
    """One place on the ring and the endpoint that holds it now.

    Attributes:
        slot: Stable name, ``<service>-<n>``; what the ring hashes.
        address: ``host:port`` of the traffic port.
        state: ``draining`` slots finish what they have and get no new keys.
        weight: Share of virtual nodes, 1 or more.
    """

    slot: str
    address: str
    state: SlotState = "active"
    weight: int = 1


class Snapshot(msgspec.Struct, frozen=True):
    """Service locations at one epoch. Epochs never go backwards within a platform."""

    platform: str
    epoch: int
    services: dict[str, list[Slot]]
    virtual_nodes: int = 160
    bounded_load: float = 1.25
    format: int = FORMAT
    checksum: str = ""


def _checksum(snapshot: Snapshot) -> str:
    body = msgspec.json.encode(msgspec.structs.replace(snapshot, checksum=""), order="sorted")
    return xxhash.xxh3_64_hexdigest(body)


def encode(snapshot: Snapshot) -> bytes:
    """Canonical JSON with the checksum filled in; equal snapshots give equal bytes."""
    return msgspec.json.encode(msgspec.structs.replace(snapshot, checksum=_checksum(snapshot)), order="sorted")


def decode(data: bytes | str) -> Snapshot:
    """Parse and verify.

    Raises:
        SnapshotError: Malformed JSON, an unknown format, a wrong checksum, or two slots of one name.
    """
    try:
        snapshot = msgspec.json.decode(data, type=Snapshot)
    except msgspec.DecodeError as error:
        raise SnapshotError(f"not a snapshot: {error}") from error
    if snapshot.format != FORMAT:
        raise SnapshotError(f"snapshot format {snapshot.format} is not supported; this version reads format {FORMAT}")
    if snapshot.checksum != _checksum(snapshot):
        raise SnapshotError(f"snapshot of epoch {snapshot.epoch} has a wrong checksum")
    for service, slots in snapshot.services.items():
        if len({slot.slot for slot in slots}) != len(slots):
            raise SnapshotError(f"snapshot names a slot of {service} twice")
    return snapshot
