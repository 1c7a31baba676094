"""The snapshot ConfigMap is the ring's memory too: slots and epoch are read back from it after a restart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgspec

from fanfold.contracts.snapshot import SNAPSHOT_KEY, Slot, Snapshot, SnapshotError, decode, encode
from fanfold_operator.ring.slots import EMPTY, Endpoint, Holder, Slots, assign

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fanfold.contracts.resources import HashRingSpec
    from fanfold_operator.kinds import Manifest

VACANT_KEY: Final = "vacant.json"
"""Numbers kept for replacements, by service: ``{"feed": [2]}``. Gateways do not read it."""


@dataclass(frozen=True, slots=True)
class Memory:
    """What was known before: the last snapshot, if one is readable, and vacant numbers."""

    snapshot: Snapshot | None
    vacant: Mapping[str, frozenset[int]]


@dataclass(frozen=True, slots=True)
class Ring:
    """What is known now; `changed` when the epoch rose."""

    snapshot: Snapshot
    vacant: Mapping[str, frozenset[int]]
    changed: bool

    def data(self) -> dict[str, str]:
        """The ConfigMap's data."""
        vacant = {service: sorted(numbers) for service, numbers in self.vacant.items() if numbers}
        return {
            SNAPSHOT_KEY: encode(self.snapshot).decode(),
            VACANT_KEY: msgspec.json.encode(vacant, order="sorted").decode(),
        }


def recall(config_map: Manifest | None) -> Memory:
    """Read the ConfigMap back. One that somebody damaged is as good as none; the epoch then comes from the status."""
    data = (config_map or {}).get("data") or {}
    try:
        snapshot = decode(data[SNAPSHOT_KEY])
        vacant = msgspec.json.decode(data.get(VACANT_KEY, "{}"), type=dict[str, frozenset[int]])
    except (KeyError, SnapshotError, msgspec.DecodeError):
        return Memory(None, {})
    return Memory(snapshot, vacant)


def advance(  # noqa: PLR0913 - what was, and all that is observed, by keyword
    memory: Memory,
    *,
    platform: str,
    spec: HashRingSpec,
    endpoints: Mapping[str, Sequence[Endpoint]],
    wanted: Mapping[str, int],
    least_epoch: int,
) -> Ring:
    """The ring for the endpoints there are now.

    Args:
        memory: From `recall`.
        platform: ``namespace/name``.
        spec: The HashRing's.
        endpoints: By service.
        wanted: Replicas wanted, by service.
        least_epoch: Epoch already shown elsewhere: never fall below it, even if the memory was lost.
    """
    before = memory.snapshot
    services, vacancies = {}, {}
    for service in sorted(spec.services):
        slots = assign(_slots(memory, service), endpoints.get(service, ()), wanted.get(service, 0))
        services[service] = [
            Slot(f"{service}-{number}", holder.address, holder.state) for number, holder in slots.held.items()
        ]
        vacancies[service] = slots.vacant
    content = Snapshot(platform, 0, services, spec.virtual_nodes, spec.bounded_load)
    if before is not None and msgspec.structs.replace(before, epoch=0, checksum="") == content:
        epoch = max(before.epoch, least_epoch)
    else:
        epoch = max(before.epoch if before else 0, least_epoch) + 1
    snapshot = decode(encode(msgspec.structs.replace(content, epoch=epoch)))
    return Ring(snapshot, vacancies, changed=before is None or epoch != before.epoch)


def _slots(memory: Memory, service: str) -> Slots:
    if memory.snapshot is None:
        return EMPTY
    held = {}
    for slot in memory.snapshot.services.get(service, ()):
        _, _, number = slot.slot.rpartition("-")
        held[int(number)] = Holder(slot.address, slot.state)
    return Slots(held, memory.vacant.get(service, frozenset()))
