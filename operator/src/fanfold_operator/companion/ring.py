"""What `ring` shows: who owns how much of the key space, and where one user lands and why. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from uuid import UUID

from fanfold.contracts.ring import SPACE, Ring, key_of
from fanfold.contracts.snapshot import SNAPSHOT_KEY, SnapshotError, decode

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from fanfold.contracts.snapshot import Slot, Snapshot
    from fanfold_operator.companion.pods import Pod
    from fanfold_operator.kinds import Manifest

NEXT_SHOWN: Final = 3
"""Slots named after a user's own, in the order in which requests pass on when one is full."""


class RingError(ValueError):
    """There is no ring to show, or no such service or user: the message says what to do."""


@dataclass(frozen=True, slots=True)
class SlotRow:
    """One slot and who holds it.

    Attributes:
        share: Exact fraction of all keys, 0 to 1; 0 for a slot that is draining.
        positions: Virtual nodes on the circle.
        pod: Name of the pod at `address`; None if none of the platform has it.
    """

    slot: str
    state: str
    address: str
    share: float
    positions: int
    pod: str | None
    node: str | None


@dataclass(frozen=True, slots=True)
class ServiceRing:
    """The ring of one service; `imbalance` is its largest share over the fair one, 1 being perfect."""

    service: str
    slots: tuple[SlotRow, ...]
    imbalance: float


@dataclass(frozen=True, slots=True)
class Landing:
    """Where a user's requests to one service go.

    Attributes:
        virtual_node: ``feed-1#87``: the slot's position number 87, the next one clockwise from the key.
        position: Of that virtual node, 16 hex digits, as `Explanation.key`.
        home: The slot that owns the key.
        then: The slots that follow when it is full, in order.
    """

    service: str
    virtual_node: str
    position: str
    home: SlotRow
    then: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """All of `ring`."""

    platform: str
    epoch: int
    checksum: str
    virtual_nodes: int
    bounded_load: float
    services: tuple[ServiceRing, ...]
    user: str | None = None
    key: str | None = None
    """Position of the user, 16 hex digits: XXH3 (64 bits) of the id's 16 bytes."""
    landings: tuple[Landing, ...] = ()


def snapshot_of(config_map: Manifest | None, name: str) -> Snapshot:
    """The snapshot gateways use, its checksum verified.

    Raises:
        RingError: There is none, or it is damaged.
    """
    text = ((config_map or {}).get("data") or {}).get(SNAPSHOT_KEY)
    if text is None:
        raise RingError(f"ConfigMap {name} with the snapshot is not there yet: is the platform's operator running?")
    try:
        return decode(text)
    except SnapshotError as error:
        raise RingError(f"ConfigMap {name} is damaged ({error}): delete it, the operator writes it anew") from error


def explain(
    snapshot: Snapshot, pods: Iterable[Pod], service: str | None = None, user: str | None = None
) -> Explanation:
    """The rings of all services or of one, and where a user lands on them.

    Raises:
        RingError: No such service on the ring, or `user` is no id.
    """
    if service is not None and service not in snapshot.services:
        raise RingError(f"no service {service!r} on the ring; there are: {', '.join(sorted(snapshot.services))}")
    identifier = None if user is None else _user_id(user)
    by_address = {pod.address: pod for pod in pods if pod.address is not None}
    chosen = {service: snapshot.services[service]} if service else dict(sorted(snapshot.services.items()))
    services, landings = [], []
    for name, slots in chosen.items():
        ring = Ring(slots, snapshot.virtual_nodes, snapshot.bounded_load)
        rows = _rows(ring, slots, snapshot.virtual_nodes, by_address)
        fair = 1 / len(ring.names) if ring.names else 1.0
        services.append(ServiceRing(name, rows, max((row.share for row in rows), default=0.0) / fair))
        if identifier is not None and ring.names:
            landings.append(_landing(name, ring, rows, key_of(identifier.bytes)))
    return Explanation(
        platform=snapshot.platform,
        epoch=snapshot.epoch,
        checksum=snapshot.checksum,
        virtual_nodes=snapshot.virtual_nodes,
        bounded_load=snapshot.bounded_load,
        services=tuple(services),
        user=str(identifier) if identifier else None,
        key=f"{key_of(identifier.bytes):016x}" if identifier else None,
        landings=tuple(landings),
    )


def _rows(ring: Ring, slots: list[Slot], virtual_nodes: int, pods: Mapping[str, Pod]) -> tuple[SlotRow, ...]:
    shares = dict(zip(ring.names, (span / SPACE for span in ring.spans()), strict=True))
    rows = []
    for slot in slots:
        pod = pods.get(slot.address.rpartition(":")[0].strip("[]"))
        rows.append(
            SlotRow(
                slot=slot.slot,
                state=slot.state,
                address=slot.address,
                share=shares.get(slot.slot, 0.0),
                positions=virtual_nodes * slot.weight if slot.slot in shares else 0,
                pod=pod.name if pod else None,
                node=pod.node if pod else None,
            )
        )
    return tuple(sorted(rows, key=lambda row: (len(row.slot), row.slot)))


def _landing(service: str, ring: Ring, rows: tuple[SlotRow, ...], key: int) -> Landing:
    by_slot = {row.slot: row for row in rows}
    order = [ring.names[index] for index in ring.walk(key)]
    position, number = ring.virtual_node(key)
    home = by_slot[order[0]]
    return Landing(service, f"{home.slot}#{number}", f"{position:016x}", home, tuple(order[1 : 1 + NEXT_SHOWN]))


def _user_id(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise RingError(f"{text!r} is no user id: those are UUIDs, see the field id of GET /v1/users/me") from None
