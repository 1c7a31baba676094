"""A HashRing: its snapshot ConfigMap, and what its status says of members and of gateways that follow."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from fanfold.contracts.resources import HashRingSpec, PlatformServiceSpec, parse
from fanfold_operator.conditions import Condition, is_true, merge, timestamp
from fanfold_operator.kinds import CONFIG_MAP
from fanfold_operator.planning.service import wanted
from fanfold_operator.resources import meta
from fanfold_operator.ring.endpoints import admin_ports, by_service
from fanfold_operator.ring.snapshot import Memory, Ring, advance, recall

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from fanfold_operator.kinds import Manifest

GATEWAY: Final = "gateway"
PROPAGATION_SECONDS: Final = 10.0
"""A change that not every gateway used after so long is a fault; before that it is on its way."""


@dataclass(frozen=True, slots=True)
class RingView:
    """What is known when a ring is planned.

    `platform` is whose ring it is, if that is there; `used` the newest epoch that a gateway said it uses.
    """

    resource: Manifest
    config_map: Manifest | None
    slices: Sequence[Manifest]
    services: Sequence[Manifest]
    now: datetime
    platform: Manifest | None = None
    used: int = 0


@dataclass(frozen=True, slots=True)
class Acks:
    """Which gateways use an epoch.

    Attributes:
        epoch: The epoch.
        gateways: How many gateways there are.
        acked: How many use it.
        waiting: Seconds since the epoch or the gateways changed.
        seconds: From its write until all used it, once they did.
        asked: Whether each gateway has been asked once.
        least: The oldest epoch that any gateway, also one that is leaving, may still use.
    """

    epoch: int = 0
    gateways: int = 0
    acked: int = 0
    waiting: float = 0.0
    seconds: float | None = None
    asked: bool = True
    least: int = 0


def advance_ring(view: RingView) -> Ring:
    """The ring for what is known now."""
    spec = parse(HashRingSpec, view.resource)
    namespace = view.resource["metadata"]["namespace"]
    memory = recall(view.config_map)
    return advance(
        memory,
        platform=f"{namespace}/{spec.platform}",
        spec=spec,
        endpoints=by_service(view.slices),
        wanted=_wanted(view),
        least_epoch=_least_epoch(view, memory),
    )


def _least_epoch(view: RingView, memory: Memory) -> int:
    """No ring may fall behind what is known outside of its ConfigMap, or gateways would take it for old news.

    A ring made anew has no status, but its Platform remembers the epoch. After the cluster was restored from a backup
    only gateways know a newer one; with the content of another past, so it has to be exceeded.
    """
    own: int = view.resource.get("status", {}).get("epoch", 0)
    platforms: int = (view.platform or {}).get("status", {}).get("ring", {}).get("epoch", 0)
    known = max(own, platforms, memory.snapshot.epoch if memory.snapshot else 0)
    return view.used + 1 if view.used > known else known


def config_map(view: RingView, ring: Ring) -> Manifest:
    """The object gateways watch."""
    spec = parse(HashRingSpec, view.resource)
    return meta.manifest(
        CONFIG_MAP,
        view.resource,
        meta.snapshot_name(spec.platform),
        platform=spec.platform,
        component="ring",
        data=ring.data(),
    )


def gateways(view: RingView) -> list[str]:
    """``host:port`` of the ready gateways' admin ports, in order."""
    return admin_ports(one for one in by_service(view.slices).get(GATEWAY, ()) if one.usable)


def parting_gateways(view: RingView) -> list[str]:
    """Those that are leaving or not ready: they may still forward for clients that keep their connections."""
    return admin_ports(one for one in by_service(view.slices).get(GATEWAY, ()) if not one.usable)


def leaving(view: RingView, ring: Ring) -> list[str]:
    """Admin ports of terminating pods that need not stay: their keys are with others, or nobody wants the service.

    The last pod of a service is not among them, whether its successor is on its way or not: while all slots drain,
    gateways go on sending to them.
    """
    spec = parse(HashRingSpec, view.resource)
    endpoints, sizes = by_service(view.slices), _wanted(view)
    served = {
        name
        for name, slots in ring.snapshot.services.items()
        if not sizes.get(name) or any(slot.state == "active" for slot in slots)
    }
    return admin_ports(
        one for name in spec.services if name in served for one in endpoints.get(name, ()) if one.leaving
    )


def _wanted(view: RingView) -> dict[str, int]:
    """Replicas wanted, by component."""
    services = [parse(PlatformServiceSpec, service) for service in view.services]
    return {service.component: wanted(service) for service in services}


def status(view: RingView, ring: Ring, acks: Acks) -> dict[str, Any]:
    """The status as it should read now."""
    before = view.resource.get("status", {})
    generation = view.resource["metadata"]["generation"]
    snapshot = ring.snapshot
    members = {name: sum(slot.state == "active" for slot in slots) for name, slots in snapshot.services.items()}
    draining = sum(slot.state == "draining" for slots in snapshot.services.values() for slot in slots)
    new = {
        "observedGeneration": generation,
        "epoch": snapshot.epoch,
        "checksum": snapshot.checksum,
        "members": sum(members.values()),
        "draining": draining,
        "services": members,
        "slots": _slots(ring),
        "gateways": acks.gateways,
        "acked": f"{acks.acked}/{acks.gateways}",
        "conditions": merge(
            before.get("conditions", ()),
            [_ready(members), _synced(snapshot.epoch, acks, was_synced=is_true(view.resource, "Synced"))],
            generation,
            view.now,
        ),
    }
    same = before.get("epoch") == snapshot.epoch
    new["lastChangeTime"] = before["lastChangeTime"] if same and "lastChangeTime" in before else timestamp(view.now)
    if acks.seconds is not None and acks.epoch == snapshot.epoch:
        new["propagation"] = f"{acks.seconds * 1000:.0f} ms"
    elif same and "propagation" in before:
        new["propagation"] = before["propagation"]
    return new


def _slots(ring: Ring) -> dict[str, dict[str, int]]:
    """How many slots of each service own keys, drain, or wait for a successor."""
    counts = {}
    for name, slots in ring.snapshot.services.items():
        states = Counter(slot.state for slot in slots)
        vacant = len(ring.vacant.get(name, ()))
        counts[name] = {"active": states["active"], "draining": states["draining"], "vacant": vacant}
    return counts


def _ready(members: dict[str, int]) -> Condition:
    empty = sorted(name for name, count in members.items() if not count)
    if empty:
        return Condition("Ready", status=False, reason="NoMembers", message=f"no ready endpoint of {', '.join(empty)}")
    return Condition("Ready", status=True, reason="Complete", message="every routed service has members")


def _synced(epoch: int, acks: Acks, *, was_synced: bool) -> Condition:
    if acks.epoch == epoch and acks.gateways and acks.acked == acks.gateways:
        return Condition("Synced", status=True, reason="AllAcked", message=f"every gateway uses epoch {epoch}")
    if not acks.gateways:
        return Condition("Synced", status=False, reason="NoGateway", message="no gateway is ready yet")
    message = f"{acks.acked} of {acks.gateways} gateways use epoch {epoch}"
    if was_synced and acks.waiting < PROPAGATION_SECONDS:
        return Condition("Synced", status=True, reason="Propagating", message=message)
    return Condition("Synced", status=False, reason="Waiting", message=message)
