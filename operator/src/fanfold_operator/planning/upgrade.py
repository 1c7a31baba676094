"""From one version to the next: how far an upgrade is, what it does now and what follows. Pure.

The record stands in the Platform's ``status.upgrade``. A phase is acted on only when it stands there: an operator that
dies at any write leaves its successor where to go on, and where back to. At most two releases run side by side: who
wants a third one while the second is rolled out first gets the first back.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from fanfold.contracts.components import COMPONENTS, Component
from fanfold_operator.conditions import find, timestamp

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from fanfold.contracts.resources import UpgradeSpec
    from fanfold_operator.kinds import Manifest

ORDER: Final[tuple[Component, ...]] = tuple(sorted(COMPONENTS, key=lambda one: (one.serves, not one.routed)))
"""Workers, services, gateway: who consumes knows the new form before anybody produces it. Back goes the reverse."""
LEAST_ERRORS: Final = 5
"""Fewer failed requests within the window tell nothing, however few requests there were."""
SUPERSEDED: Final = "Superseded"
"""Reason of a roll-back that somebody asked for: nothing is wrong with the release."""


class Phase(StrEnum):
    """Of an upgrade. The last three are ends: they last until another release is wanted."""

    MIGRATING = "Migrating"
    ROLLING = "Rolling"
    GATING = "Gating"
    ROLLING_BACK = "RollingBack"
    COMPLETED = "Completed"
    ROLLED_BACK = "RolledBack"
    REFUSED = "Refused"


UNDER_WAY: Final = frozenset({Phase.MIGRATING, Phase.ROLLING, Phase.GATING, Phase.ROLLING_BACK})
WATCHED: Final = frozenset({Phase.ROLLING, Phase.GATING})
"""While it is seen how requests fare."""


@dataclass(frozen=True, slots=True)
class Release:
    """What a service runs."""

    version: str
    image: str


@dataclass(frozen=True, slots=True)
class Upgrade:
    """The record.

    Attributes:
        phase: How far it is; `since` when, RFC 3339.
        target: Where to.
        source: Where back to; None: nothing was there before.
        reason: Why it went back or was refused, in one word, and `message` in a sentence.
        gate: Name of the LoadTest that decides, or decided; empty: there is none.
    """

    phase: Phase
    target: Release
    since: str
    source: Release | None = None
    reason: str = ""
    message: str = ""
    gate: str = ""

    @property
    def runs(self) -> Release:
        """The release that the schemas must serve: that of the migrations to run."""
        back = self.source is not None and self.phase in {Phase.ROLLING_BACK, Phase.ROLLED_BACK}
        return self.source if back and self.source else self.target

    @property
    def failed(self) -> bool:
        """Whether what was asked for could not be done."""
        undone = self.phase in {Phase.ROLLING_BACK, Phase.ROLLED_BACK} and self.reason != SUPERSEDED
        return undone or self.phase is Phase.REFUSED

    def block(self) -> dict[str, str]:
        """As it stands in the status."""
        fields = {"phase": self.phase.value, "to": self.target.version, "toImage": self.target.image}
        if self.source:
            fields |= {"from": self.source.version, "fromImage": self.source.image}
        if self.reason:
            fields |= {"reason": self.reason, "message": self.message}
        if self.gate:
            fields["gate"] = self.gate
        return fields | {"since": self.since}


def recorded(status: Mapping[str, Any]) -> Upgrade | None:
    """The record of a Platform's status, if it has one."""
    block = status.get("upgrade")
    if not block:
        return None
    source = Release(block["from"], block["fromImage"]) if "from" in block else None
    return Upgrade(
        Phase(block["phase"]),
        Release(block["to"], block["toImage"]),
        block["since"],
        source,
        block.get("reason", ""),
        block.get("message", ""),
        block.get("gate", ""),
    )


@dataclass(frozen=True, slots=True)
class Service:
    """One component as it is.

    Attributes:
        release: What it is to run; None: it is not made yet.
        settled: Since when all its replicas run that; None: they do not.
        stalled: Why its rollout makes no progress; empty: it does.
    """

    release: Release | None = None
    settled: datetime | None = None
    stalled: str = ""


def observed(service: Manifest | None) -> Service:
    """What a PlatformService tells; what it told of an earlier spec does not count."""
    if service is None:
        return Service()
    spec, generation = service["spec"], service["metadata"].get("generation")
    release = Release(spec["version"], spec["image"])
    progressing, degraded = find(service, "Progressing"), find(service, "Degraded")
    if progressing is None or degraded is None or progressing.get("observedGeneration") != generation:
        return Service(release)
    stalled = degraded["message"] if degraded["reason"] == "RolloutStalled" else ""
    done = progressing["reason"] == "RolledOut" and service["status"].get("version") == release.version
    settled = datetime.fromisoformat(progressing["lastTransitionTime"]) if done else None
    return Service(release, settled, stalled)


@dataclass(frozen=True, slots=True)
class ErrorRate:
    """What the gateways answered lately; `known` is False when none of them tells."""

    requests: float = 0
    errors: float = 0
    known: bool = True

    def exceeds(self, percent: float) -> bool:
        """Whether more than so many percent failed."""
        return self.errors >= LEAST_ERRORS and self.errors * 100 > percent * self.requests


@dataclass(frozen=True, slots=True)
class Gate:
    """What a gate's LoadTest came to; `passed` None: it goes on. `message` says how far it is, or why it did not."""

    passed: bool | None = None
    message: str = ""


@dataclass(frozen=True, slots=True)
class Situation:
    """What an upgrade depends on.

    Attributes:
        wanted: The release the spec asks for.
        services: Every component by name.
        rules: The spec's bounds.
        now: The time.
        migrated: Whether the schemas serve `Upgrade.runs`, and what else services need is there.
        refused: Why they never will; empty: they may.
        stuck: Why the migrations do not begin; empty: they did, or may yet.
        errors: None: not measured yet.
        next_gate: Name for the LoadTest of a gate that begins now.
        gate: What that of the gate that has begun came to.
    """

    wanted: Release
    services: Mapping[str, Service]
    rules: UpgradeSpec
    now: datetime
    migrated: bool = False
    refused: str = ""
    stuck: str = ""
    errors: ErrorRate | None = field(default=None)
    next_gate: str = ""
    gate: Gate = Gate()

    def settled(self, name: str, release: Release, soak: float = 0) -> bool:
        """Whether a component has run a release for so many seconds."""
        service = self.services[name]
        if service.release != release or service.settled is None:
            return False
        return self.now - service.settled >= timedelta(seconds=soak)


def adopted(version: str | None, services: Iterable[Service], now: datetime) -> Upgrade | None:
    """The record of a Platform that has none, once all its components are known to have run one release."""
    releases = {service.release for service in services}
    release = releases.pop() if len(releases) == 1 else None
    if release is None or release.version != version:
        return None
    return Upgrade(Phase.COMPLETED, release, timestamp(now))


def releases(upgrade: Upgrade, situation: Situation) -> dict[str, Release]:
    """What each component is to run now."""
    source = upgrade.source or upgrade.target
    if upgrade.phase is Phase.ROLLING:
        return _some(_forward(upgrade, situation), upgrade.target, source)
    if upgrade.phase is Phase.ROLLING_BACK:
        return _some(_back(source, situation), source, upgrade.target)
    promoted = upgrade.phase in {Phase.GATING, Phase.COMPLETED}
    return _some(situation.services, upgrade.target if promoted else source, source)


def _some(names: Iterable[str], release: Release, others: Release) -> dict[str, Release]:
    chosen = frozenset(names)
    return {one.name: release if one.name in chosen else others for one in COMPONENTS}


def _forward(upgrade: Upgrade, situation: Situation) -> set[str]:
    """Those that run the target, and the next one once these have proved themselves."""
    target = upgrade.target
    moved = {name for name, service in situation.services.items() if service.release == target}
    if situation.errors is None or not situation.errors.known or advance(upgrade, situation) is not upgrade:
        return moved
    soak = situation.rules.soak_seconds
    waits = [one.name for one in ORDER if not situation.settled(one.name, target, soak)]
    return moved | set(waits[:1])


def _back(source: Release, situation: Situation) -> set[str]:
    """Those that run the source again, and the next one; one that cannot is no reason to leave the others."""
    moved = {name for name, service in situation.services.items() if service.release == source}
    waits = [one.name for one in reversed(ORDER) if not _is_back(one.name, source, situation)]
    return moved | set(waits[:1])


def _is_back(name: str, source: Release, situation: Situation) -> bool:
    service = situation.services[name]
    return service.release == source and (service.settled is not None or bool(service.stalled))


def advance(upgrade: Upgrade, situation: Situation) -> Upgrade:
    """The record as it should read now; itself if nothing follows yet."""
    wanted = situation.wanted
    steps = {
        Phase.MIGRATING: _after_migrating,
        Phase.ROLLING: _after_rolling,
        Phase.GATING: _after_gating,
        Phase.ROLLING_BACK: _after_rolling_back,
    }
    if step := steps.get(upgrade.phase):
        return step(upgrade, situation)
    if wanted == upgrade.target:
        return upgrade
    runs = upgrade.target if upgrade.phase is Phase.COMPLETED else upgrade.source or upgrade.target
    now = timestamp(situation.now)
    if wanted == runs:
        return Upgrade(Phase.COMPLETED, runs, now)
    return Upgrade(Phase.MIGRATING, wanted, now, runs)


def _after_migrating(upgrade: Upgrade, situation: Situation) -> Upgrade:
    if situation.wanted != upgrade.target:
        return _superseded(upgrade, situation)
    if situation.refused:
        return _turned(upgrade, situation, Phase.REFUSED, "SchemaRefused", situation.refused)
    if situation.stuck:
        return _turned(upgrade, situation, Phase.ROLLING_BACK, "NotReady", situation.stuck)
    return _turned(upgrade, situation, Phase.ROLLING) if situation.migrated else upgrade


def _after_rolling(upgrade: Upgrade, situation: Situation) -> Upgrade:
    if (back := _taken_back(upgrade, situation)) is not upgrade:
        return back
    soak, rate = situation.rules.soak_seconds, situation.errors
    known = rate is not None and rate.known
    if not known or not all(situation.settled(one.name, upgrade.target, soak) for one in ORDER):
        return upgrade
    if situation.rules.gate:
        return replace(_turned(upgrade, situation, Phase.GATING), gate=situation.next_gate)
    return _turned(upgrade, situation, Phase.COMPLETED)


def _after_gating(upgrade: Upgrade, situation: Situation) -> Upgrade:
    """All run the target; the gate decides, unless something goes wrong meanwhile or it is not wanted any more."""
    if (back := _taken_back(upgrade, situation)) is not upgrade:
        return back
    if situation.gate.passed or situation.rules.gate is None:
        return _turned(upgrade, situation, Phase.COMPLETED)
    if situation.gate.passed is None:
        return upgrade
    return _turned(upgrade, situation, Phase.ROLLING_BACK, "GateFailed", situation.gate.message)


def _taken_back(upgrade: Upgrade, situation: Situation) -> Upgrade:
    """Itself while nothing speaks against the target."""
    target = upgrade.target
    if situation.wanted != target:
        return _superseded(upgrade, situation)
    for one in ORDER:
        service = situation.services[one.name]
        if service.release == target and service.stalled:
            message = f"{one.name} did not become ready: {service.stalled}"
            return _turned(upgrade, situation, Phase.ROLLING_BACK, "NotReady", message)
    rate, bound = situation.errors, situation.rules.max_error_percent
    if rate and rate.exceeds(bound):
        part = sum(service.release == target for service in situation.services.values())
        message = (
            f"{rate.errors:.0f} of {rate.requests:.0f} requests failed while {part} of {len(ORDER)} services ran it, "
            f"more than {bound} % (spec.upgrade.maxErrorPercent)"
        )
        return _turned(upgrade, situation, Phase.ROLLING_BACK, "ErrorRate", message)
    return upgrade


def _after_rolling_back(upgrade: Upgrade, situation: Situation) -> Upgrade:
    source = upgrade.source or upgrade.target
    is_back = all(_is_back(one.name, source, situation) for one in ORDER)
    if not is_back or not (situation.migrated or situation.refused):
        return upgrade
    if upgrade.reason == SUPERSEDED:
        return Upgrade(Phase.COMPLETED, source, timestamp(situation.now))
    return _turned(upgrade, situation, Phase.ROLLED_BACK, upgrade.reason, upgrade.message)


def _superseded(upgrade: Upgrade, situation: Situation) -> Upgrade:
    message = f"version {situation.wanted.version} is wanted now"
    return _turned(upgrade, situation, Phase.ROLLING_BACK, SUPERSEDED, message)


def _turned(upgrade: Upgrade, situation: Situation, phase: Phase, reason: str = "", message: str = "") -> Upgrade:
    return replace(upgrade, phase=phase, since=timestamp(situation.now), reason=reason, message=message)
