"""What `status` shows: platforms, their services, their pods, and what waits for what. Pure."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from fanfold.contracts.components import COMPONENTS
from fanfold.contracts.resources import PAUSED_ANNOTATION, PLATFORM_LABEL
from fanfold_operator.companion import pods
from fanfold_operator.companion.pods import Pod
from fanfold_operator.conditions import find, is_true

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fanfold_operator.kinds import Manifest

_ALARMS: Final = ("Degraded", "Conflict")
"""Endings of condition types that are bad when True. Others are bad when not True, but for `_NEUTRAL`."""
_NEUTRAL: Final = frozenset({"Progressing", "Paused"})
"""Conditions that are neither good nor bad."""
_INTENDED: Final = frozenset({("AutoscalingActive", "Off"), ("AutoscalingActive", "FixedSize")})
"""Types and reasons of what somebody wanted so."""
_ORDER: Final = {component.name: place for place, component in enumerate(COMPONENTS)}


@dataclass(frozen=True, slots=True)
class Trouble:
    """A condition that is not as it should be."""

    type: str
    reason: str
    message: str
    since: str


@dataclass(frozen=True, slots=True)
class Service:
    """One component; `kind` is ``service``, or ``store`` and ``job`` for what is beside them.

    Attributes:
        ready: Ready replicas of those wanted, like ``2/2``.
        bounds: Least and most replicas of its autoscaler; None if it has none.
        scaling: What its status says of autoscaling: who scales it (``by``), to what (``desired``), and ``why``.
    """

    name: str
    kind: str
    well: bool
    ready: str
    version: str | None
    bounds: tuple[int, int] | None
    scaling: dict[str, Any] | None
    troubles: tuple[Trouble, ...]
    pods: tuple[Pod, ...]


@dataclass(frozen=True, slots=True)
class Platform:
    """One platform with all that belongs to it.

    Attributes:
        well: Ready, not degraded, every service well, and the status is of the newest spec.
        stale: The operator has not looked at the newest spec yet.
        progress: Reason and message of what is under way; None when it is settled.
        upgrade: State of an upgrade or a rollback, if one is under way or was the last thing to happen.
    """

    namespace: str
    name: str
    well: bool
    stale: bool
    paused: bool
    ready: str
    version: str | None
    wanted_version: str | None
    url: str | None
    epoch: int | None
    acked: str | None
    draining: int
    propagation: str | None
    progress: str | None
    upgrade: dict[str, Any] | None
    troubles: tuple[Trouble, ...]
    services: tuple[Service, ...]
    created: str


@dataclass(frozen=True, slots=True)
class Observed:
    """Listings of one namespace or of all."""

    platforms: list[Manifest]
    services: list[Manifest]
    rings: list[Manifest]
    pods: list[Manifest]


def grow(observed: Observed) -> tuple[Platform, ...]:
    """The trees, in order of namespaces and names."""
    services, pods_of, rings = defaultdict(list), defaultdict(list), {}
    for service in observed.services:
        services[_home(service, service["spec"]["platform"])].append(service)
    for ring in observed.rings:
        rings[_home(ring, ring["spec"]["platform"])] = ring
    for pod in observed.pods:
        if not pods.finished(pod):
            pods_of[_home(pod, pod["metadata"].get("labels", {}).get(PLATFORM_LABEL, ""))].append(pods.read(pod))
    keyed = {_home(one, one["metadata"]["name"]): one for one in observed.platforms}
    return tuple(
        _platform(resource, services[key], rings.get(key), pods_of[key]) for key, resource in sorted(keyed.items())
    )


def troubles(resource: Manifest) -> tuple[Trouble, ...]:
    """Conditions that are not as they should be, what says most (not `Ready`, which sums up) first."""
    found = [
        Trouble(one["type"], one["reason"], one["message"], one["lastTransitionTime"])
        for one in resource.get("status", {}).get("conditions", ())
        if one["type"] not in _NEUTRAL
        and (one["type"], one["reason"]) not in _INTENDED
        and (one["status"] == "True") == one["type"].endswith(_ALARMS)
    ]
    return tuple(sorted(found, key=lambda one: (one.type == "Ready", one.type)))


def _platform(resource: Manifest, services: list[Manifest], ring: Manifest | None, pods_there: list[Pod]) -> Platform:
    metadata, status = resource["metadata"], resource.get("status", {})
    by_service: defaultdict[str, list[Pod]] = defaultdict(list)
    for pod in pods_there:
        by_service[pod.service].append(pod)
    nodes = [_service(service, by_service.pop(service["spec"]["component"], [])) for service in services]
    nodes.sort(key=lambda one: _ORDER.get(one.name, len(_ORDER)))
    nodes += [_beside(name, members) for name, members in sorted(by_service.items())]
    stale = status.get("observedGeneration", 0) < metadata.get("generation", 0)
    shown_ring = (ring or {}).get("status", {})
    upgrade = status.get("upgrade")
    return Platform(
        namespace=metadata["namespace"],
        name=metadata["name"],
        well=is_true(resource, "Ready")
        and not is_true(resource, "Degraded")
        and not stale
        and all(one.well for one in nodes if one.kind == "service"),
        stale=stale,
        paused=metadata.get("annotations", {}).get(PAUSED_ANNOTATION) == "true",
        ready=status.get("ready", f"0/{len(COMPONENTS)}"),
        version=status.get("version"),
        wanted_version=resource.get("spec", {}).get("version"),
        url=status.get("url"),
        epoch=shown_ring.get("epoch"),
        acked=shown_ring.get("acked"),
        draining=shown_ring.get("draining", 0),
        propagation=shown_ring.get("propagation"),
        progress=_progress(resource),
        upgrade=upgrade if isinstance(upgrade, dict) else None,
        troubles=troubles(resource),
        services=tuple(nodes),
        created=metadata.get("creationTimestamp", ""),
    )


def _service(resource: Manifest, members: list[Pod]) -> Service:
    spec, status = resource["spec"], resource.get("status", {})
    scaling = spec.get("scaling", {})
    least, most = scaling.get("min", 1), scaling.get("max", 1)
    shown = status.get("autoscaling")
    return Service(
        name=spec["component"],
        kind="service",
        well=is_true(resource, "Ready") and not is_true(resource, "Degraded"),
        ready=status.get("ready", f"0/{spec.get('replicas', 1)}"),
        version=status.get("version"),
        bounds=(least, most) if least < most else None,
        scaling=shown if isinstance(shown, dict) else None,
        troubles=troubles(resource),
        pods=_sorted(members),
    )


def _beside(name: str, members: list[Pod]) -> Service:
    """Embedded stores and Jobs: known by their pods alone."""
    ready = sum(pod.ready for pod in members)
    kind = "job" if name == "migrations" else "store"
    return Service(name, kind, ready == len(members), f"{ready}/{len(members)}", None, None, None, (), _sorted(members))


def _progress(resource: Manifest) -> str | None:
    condition = find(resource, "Progressing")
    if condition is None or condition["status"] != "True":
        return None
    return f"{condition['reason']}: {condition['message']}"


def _sorted(members: Iterable[Pod]) -> tuple[Pod, ...]:
    return tuple(sorted(members, key=lambda pod: (pod.created, pod.name)))


def _home(resource: Manifest, platform: str) -> tuple[str, str]:
    return resource["metadata"]["namespace"], platform
