"""The snapshot of service locations: written by the operator (or ``fanfold dev``), watched by every gateway.

One JSON document, carried by one ConfigMap under the key ``snapshot.json``::

    {"bounded_load":1.25,"epoch":7,"format":1,"platform":"default/demo",
     "services":{"feed":[{"slot":"feed-0","address":"10.244.1.7:8000"},
                         {"slot":"feed-1","address":"10.244.1.8:8000","state":"draining"}]},
     "virtual_nodes":160,"checksum":"9c5e0f3b1d2a4c68"}

(without white space). What most slots have in common, active and weight 1, is left out: a slot is some 50 bytes, so
that 5,000 take a quarter of the 1 MiB that a ConfigMap may hold.

The checksum is the xxh3_64 of the bytes before it, with a closing brace. It is of the bytes as written, not of what a
reader understood: a reader skips fields that a newer writer added, and still knows that nothing is damaged.

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


class Slot(msgspec.Struct, frozen=True, omit_defaults=True):
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


class _Body(msgspec.Struct, frozen=True):
    platform: str
    epoch: int
    services: dict[str, list[Slot]]
    virtual_nodes: int = 160
    bounded_load: float = 1.25
    format: int = FORMAT


class Snapshot(_Body, frozen=True):
    """Service locations at one epoch. Epochs never go backwards within a platform."""

    checksum: str = ""


_FIELDS: Final = _Body.__struct_fields__
_MARK: Final = b',"checksum":"'
_END: Final = b'"}'


def encode(snapshot: Snapshot) -> bytes:
    """Canonical JSON with the checksum filled in; equal snapshots give equal bytes."""
    body = msgspec.json.encode(_Body(*(getattr(snapshot, name) for name in _FIELDS)), order="sorted")
    return body[:-1] + _MARK + xxhash.xxh3_64_hexdigest(body).encode() + _END


def decode(data: bytes | str) -> Snapshot:
    """Parse and verify. Fields that this version does not know are skipped.

    Raises:
        SnapshotError: Malformed JSON, an unknown format, a wrong checksum, or two slots of one name.
    """
    data = data.encode() if isinstance(data, str) else data
    try:
        snapshot = msgspec.json.decode(data, type=Snapshot)
    except msgspec.DecodeError as error:
        raise SnapshotError(f"not a snapshot: {error}") from error
    if snapshot.format != FORMAT:
        raise SnapshotError(f"snapshot format {snapshot.format} is not supported; this version reads format {FORMAT}")
    body, _, checksum = data.rstrip().rpartition(_MARK)
    if checksum != xxhash.xxh3_64_hexdigest(body + b"}").encode() + _END:
        raise SnapshotError(f"snapshot of epoch {snapshot.epoch} has a wrong checksum")
    for service, slots in snapshot.services.items():
        if len({slot.slot for slot in slots}) != len(slots):
            raise SnapshotError(f"snapshot names a slot of {service} twice")
    return snapshot
