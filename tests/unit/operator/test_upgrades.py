"""An upgrade from its first look to its end: a played cluster around the real plan and the real status.

What the played operator knows beyond a look is what stands in the cluster: a look that dies after any of its writes is
followed by another one, and the end has to be the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from fanfold.contracts.components import BY_NAME, COMPONENTS
from fanfold_operator.conditions import Condition, find, merge
from fanfold_operator.kinds import Key, Manifest, key_of
from fanfold_operator.planning import platform, summary
from fanfold_operator.planning.actions import Images, View
from fanfold_operator.planning.platform import Stages
from fanfold_operator.planning.upgrade import ORDER, ErrorRate
from tests.unit.operator.conftest import NOW

NAMES = [one.name for one in ORDER]
STEPS = 200
QUIET = ErrorRate(requests=100)


class World:
    """A Platform, what it controls, and time.

    `bad` releases do not become ready, `failing` ones answer with errors, `refused` ones do not migrate, and those that
    are `absent` have no image. Gates' LoadTests are made from `template`; `verdict` is theirs, None: they go on.
    """

    def __init__(self, resource: Manifest, images: Images) -> None:
        self.resource = resource
        self.images = images
        self.children: dict[Key, Manifest] = {}
        self.now: datetime = NOW
        self.errors: ErrorRate | None = QUIET
        self.bad: set[str] = set()
        self.failing: set[str] = set()
        self.refused: set[str] = set()
        self.absent: set[str] = set()
        self.paused = False
        self.verdict: bool | None = True
        self.template: Manifest | None = None
        self.moves: list[tuple[str, str]] = []
        self.migrated: list[str] = []

    def view(self) -> View:
        return View(
            self.resource,
            dict(self.children),
            self.now,
            paused=self.paused,
            errors=self.errors,
            gate_template=self.template,
        )

    def look(self, writes: int | None = None) -> None:
        """One reconcile, which dies after so many writes."""
        actions = platform.plan(Stages(self.view(), self.images))
        for manifest in actions.apply:
            if self._differs(manifest):
                if writes == 0:
                    return
                self._apply(manifest)
                writes = None if writes is None else writes - 1
        for manifest in actions.delete:
            if writes == 0:
                return
            del self.children[key_of(manifest)]
            writes = None if writes is None else writes - 1
        if writes != 0:
            self.resource = {**self.resource, "status": summary.status(Stages(self.view(), self.images), None)}

    def _differs(self, manifest: Manifest) -> bool:
        known = self.children.get(key_of(manifest))
        return known is None or known["spec"] != manifest["spec"]

    def _apply(self, manifest: Manifest) -> None:
        known = self.children.get(key_of(manifest), {})
        generation = known.get("metadata", {}).get("generation", 0) + 1
        metadata = manifest["metadata"] | {"generation": generation}
        if manifest["kind"] == "PlatformService":
            self.moves.append((manifest["spec"]["component"], manifest["spec"]["version"]))
        self.children[key_of(manifest)] = {**manifest, "metadata": metadata, "status": known.get("status", {})}

    def turn(self, seconds: float = 1) -> None:
        """Time passes, and Kubernetes does its part."""
        self.now += timedelta(seconds=seconds)
        for key, child in self.children.items():
            self.children[key] = {**child, "status": self._status(child)}

    def _status(self, child: Manifest) -> dict[str, Any]:
        before = child["status"]
        if child["kind"] == "StatefulSet":
            return {"readyReplicas": 1}
        if child["kind"] == "HashRing":
            return {"conditions": [{"type": "Synced", "status": "True", "reason": "AllAcked", "message": ""}]}
        if child["kind"] == "Job":
            version = child["metadata"]["labels"]["app.kubernetes.io/version"]
            if version in self.absent:
                return before or {"active": 1, "startTime": self.now.isoformat()}
            if version in self.refused:
                end = {"type": "Failed", "status": "True", "reason": "PodFailurePolicy", "message": "exit code 3"}
            else:
                end = {"type": "Complete", "status": "True"}
                if not before:
                    self.migrated.append(version)
            return before or {"conditions": [end | {"lastTransitionTime": self.now.isoformat()}]}
        if child["kind"] != "PlatformService":
            return before or _ended(self.verdict) if child["kind"] == "LoadTest" else {}
        version, generation = child["spec"]["version"], child["metadata"]["generation"]
        stuck = version in self.bad
        told = [
            Condition("Ready", status=True, reason="Available", message=""),
            Condition("Progressing", status=False, reason="RollingOut" if stuck else "RolledOut", message=""),
            Condition("Degraded", status=stuck, reason="RolloutStalled" if stuck else "AsExpected", message="no image"),
        ]
        conditions = merge(before.get("conditions", ()), told, generation, self.now)
        if before.get("version") != version and not stuck:
            for one in conditions:
                one["lastTransitionTime"] = self.now.strftime("%Y-%m-%dT%H:%M:%SZ")
        return {"conditions": conditions, "ready": "1/1", "version": before.get("version") if stuck else version}

    def settle(self, died: Iterable[int | None] = ()) -> None:
        """Looks and turns until nothing changes; the first looks die after so many writes."""
        deaths = list(died)
        for _ in range(STEPS):
            before = (self.resource.get("status"), dict(self.children))
            self.look(deaths.pop(0) if deaths else None)
            self.turn(11)
            for child in self.children.values():
                if child["kind"] == "PlatformService" and child["spec"]["version"] in self.failing:
                    self.errors = ErrorRate(requests=100, errors=20)
            waits = self.resource.get("status", {}).get("upgrade", {}).get("phase") == "Migrating"
            if not deaths and not waits and before == (self.resource.get("status"), dict(self.children)):
                return
        pytest.fail("it does not come to rest")

    def want(self, version: str) -> None:
        self.resource = {**self.resource, "spec": {**self.resource["spec"], "version": version}}

    @property
    def upgrade(self) -> dict[str, Any]:
        block: dict[str, Any] = self.resource["status"]["upgrade"]
        return block

    def told(self, kind: str) -> tuple[str, str]:
        condition = find(self.resource, kind)
        assert condition is not None
        return condition["status"], condition["reason"]

    def versions(self) -> dict[str, str]:
        services = [one for one in self.children.values() if one["kind"] == "PlatformService"]
        return {one["spec"]["component"]: one["spec"]["version"] for one in services}

    def jobs(self) -> list[str]:
        jobs = [one for one in self.children.values() if one["kind"] == "Job"]
        return [one["metadata"]["labels"]["app.kubernetes.io/version"] for one in jobs]


def _ended(verdict: bool | None) -> dict[str, Any]:
    if verdict is None:
        return {"phase": "Running"}
    passed = {"type": "Passed", "status": str(verdict), "reason": "x", "message": ""}
    said = {"verdict": "passed"} if verdict else {"verdict": "failed", "message": "p99 of feed: 300 ms"}
    return {"phase": "Finished", "conditions": [passed], **said}


@pytest.fixture
def begun(resource: Callable[..., Manifest], images: Images) -> Callable[[], World]:
    """An installed platform of version 0.1.0."""

    def begin() -> World:
        world = World(resource("Platform"), images)
        world.settle()
        assert world.told("UpToDate") == ("True", "Current")
        assert world.upgrade["phase"] == "Completed"
        world.moves.clear()
        return world

    return begin


def until(world: World, reached: Callable[[World], bool]) -> None:
    for _ in range(STEPS):
        if reached(world):
            return
        world.look()
        world.turn(11)
    pytest.fail("it does not come to that")


def at(count: int, version: str = "0.2.0") -> Callable[[World], bool]:
    return lambda world: list(world.versions().values()).count(version) == count


def test_workers_come_first_and_the_gateway_last() -> None:
    assert [BY_NAME[name].serves for name in NAMES] == [False] * 3 + [True] * 8
    assert NAMES[-1] == "gateway"
    assert sorted(NAMES) == sorted(BY_NAME)


def test_an_upgrade_migrates_and_then_moves_one_service_after_another(begun: Callable[[], World]) -> None:
    world = begun()
    world.want("0.2.0")
    world.look()
    assert world.upgrade["phase"] == "Migrating"
    assert (world.upgrade["from"], world.upgrade["to"]) == ("0.1.0", "0.2.0")
    world.look()
    assert world.jobs() == ["0.2.0"], "what is not to run any more must not migrate"
    assert world.moves == []
    assert world.told("Ready") == ("True", "Ready"), "the old version serves"
    assert world.told("Progressing") == ("True", "Migrating")
    assert world.told("Degraded") == ("False", "AsExpected")
    world.settle()
    assert world.moves == [(name, "0.2.0") for name in NAMES]
    assert world.upgrade["phase"] == "Completed"
    assert world.told("UpToDate") == ("True", "Current")
    assert world.told("Progressing") == ("False", "Settled")
    assert world.resource["status"]["version"] == "0.2.0"


def test_the_next_service_waits_for_rollout_and_soak(begun: Callable[[], World]) -> None:
    world = begun()
    world.want("0.2.0")
    until(world, at(1))
    for _ in range(9):
        world.look()
        world.turn(1)
    assert at(1)(world)
    for _ in range(3):
        world.look()
        world.turn(1)
    assert at(2)(world)
    assert world.told("UpToDate") == ("False", "RollingOut")


def test_it_waits_while_nobody_tells_how_requests_fare(begun: Callable[[], World]) -> None:
    world = begun()
    world.want("0.2.0")
    until(world, at(2))
    world.errors = ErrorRate(known=False)
    world.settle()
    assert at(2)(world)
    assert "no gateway tells" in (find(world.resource, "UpToDate") or {})["message"]
    world.errors = QUIET
    world.settle()
    assert at(len(COMPONENTS))(world)


@pytest.mark.parametrize("count", [1, 5, len(NAMES)])
def test_a_version_that_does_not_become_ready_is_taken_back_and_not_tried_again(
    begun: Callable[[], World], count: int
) -> None:
    world = begun()
    world.want("0.2.0")
    until(world, at(count))
    world.bad = {"0.2.0"}
    world.turn()
    world.settle()
    assert at(0)(world)
    assert (world.upgrade["phase"], world.upgrade["reason"]) == ("RolledBack", "NotReady")
    assert world.told("Degraded") == ("True", "RolledBack")
    assert world.told("Ready") == ("True", "Ready")
    assert world.jobs() == ["0.1.0"], "what runs again told the schema so"
    back = [name for name, version in world.moves if version == "0.1.0"]
    assert back == list(reversed(NAMES[:count]))
    moves = len(world.moves)
    world.resource = {**world.resource, "spec": {**world.resource["spec"], "logLevel": "DEBUG"}}
    world.settle()
    assert {version for _, version in world.moves[moves:]} == {"0.1.0"}, "another change is no reason to try again"


def test_after_a_roll_back_another_version_or_the_same_asked_for_anew_is_tried(begun: Callable[[], World]) -> None:
    world = begun()
    world.bad = {"0.2.0"}
    world.want("0.2.0")
    world.settle()
    assert world.upgrade["phase"] == "RolledBack"
    world.want("0.1.0")
    world.settle()
    assert world.told("Degraded") == ("False", "AsExpected")
    assert world.told("UpToDate") == ("True", "Current")
    world.want("0.2.0")
    world.settle()
    assert world.upgrade["phase"] == "RolledBack"
    world.want("0.3.0")
    world.settle()
    assert at(len(NAMES), "0.3.0")(world)
    assert world.told("Degraded") == ("False", "AsExpected")


def test_requests_that_fail_take_a_version_back(begun: Callable[[], World]) -> None:
    world = begun()
    world.failing = {"0.2.0"}
    world.want("0.2.0")
    world.settle()
    assert (world.upgrade["phase"], world.upgrade["reason"]) == ("RolledBack", "ErrorRate")
    assert "20 of 100 requests failed while 1 of 11 services ran it" in world.upgrade["message"]
    assert at(0)(world)


@pytest.mark.parametrize(
    ("rate", "exceeds"),
    [
        (ErrorRate(100, 5), False),
        (ErrorRate(100, 6), True),
        (ErrorRate(4, 4), False),
        (ErrorRate(5, 5), True),
        (ErrorRate(), False),
    ],
)
def test_few_errors_tell_nothing(rate: ErrorRate, *, exceeds: bool) -> None:
    assert rate.exceeds(5) == exceeds
    assert not rate.exceeds(100)


def test_a_version_that_cannot_work_with_the_schema_is_refused(begun: Callable[[], World]) -> None:
    world = begun()
    world.refused = {"0.0.9"}
    world.want("0.0.9")
    world.settle()
    assert world.moves == []
    assert (world.upgrade["phase"], world.upgrade["reason"]) == ("Refused", "SchemaRefused")
    assert world.told("Degraded") == ("True", "UpgradeRefused")
    assert world.told("Ready") == ("True", "Ready")
    assert "kubectl logs job/demo-migrate-" in world.upgrade["message"]
    assert world.jobs() == ["0.0.9"], "it is there to be looked at"
    world.now += timedelta(hours=1)
    world.settle()
    assert world.jobs() == ["0.0.9"], "and not made again"
    world.want("0.1.0")
    world.settle()
    assert world.told("UpToDate") == ("True", "Current")
    assert world.jobs() == ["0.1.0"]


def test_a_version_without_an_image_is_given_up_when_its_migrations_do_not_start(begun: Callable[[], World]) -> None:
    world = begun()
    world.absent = {"0.2.0"}
    world.want("0.2.0")
    until(world, lambda one: one.upgrade["phase"] == "Migrating")
    begin = world.now
    world.settle()
    assert world.now - begin > timedelta(seconds=300)
    assert world.moves == []
    assert (world.upgrade["phase"], world.upgrade["reason"]) == ("RolledBack", "NotReady")
    assert "did not start within 300 s" in world.upgrade["message"]
    assert world.jobs() == ["0.1.0"]


@pytest.mark.parametrize("third", ["0.1.0", "0.3.0"])
@pytest.mark.parametrize("count", [0, 1, 6])
def test_who_changes_the_mind_midway_gets_the_old_version_back_first(
    begun: Callable[[], World], third: str, count: int
) -> None:
    world = begun()
    world.want("0.2.0")
    until(world, at(count) if count else lambda one: one.upgrade["phase"] == "Migrating")
    world.want(third)
    for _ in range(STEPS):
        world.look()
        assert len(set(world.versions().values())) <= 2, "never three side by side"
        assert world.told("Degraded") == ("False", "AsExpected"), "nothing is wrong"
        world.turn(11)
        if world.told("UpToDate") == ("True", "Current"):
            break
    assert at(len(NAMES), third)(world)
    assert world.migrated[-2 if third == "0.3.0" else -1] == "0.1.0"


def test_a_paused_upgrade_stands_still(begun: Callable[[], World]) -> None:
    world = begun()
    world.want("0.2.0")
    until(world, at(3))
    before = world.upgrade
    world.paused = True
    world.bad = {"0.2.0"}
    world.turn()
    world.settle()
    assert at(3)(world)
    assert world.upgrade == before
    world.paused = False
    world.settle()
    assert world.upgrade["phase"] == "RolledBack"


def test_an_edited_service_is_put_right_and_no_upgrade(begun: Callable[[], World]) -> None:
    world = begun()
    key = Key("PlatformService", "prod", "demo-feed")
    child = world.children[key]
    world.children[key] = {**child, "spec": {**child["spec"], "version": "6.6.6"}}
    world.settle()
    assert set(world.versions().values()) == {"0.1.0"}
    assert world.upgrade["phase"] == "Completed"


def test_a_platform_that_never_served_goes_to_another_version_at_once(
    resource: Callable[..., Manifest], images: Images
) -> None:
    world = World(resource("Platform"), images)
    world.bad = {"0.1.0"}
    world.settle()
    assert "upgrade" not in world.resource["status"]
    world.want("0.2.0")
    world.settle()
    assert world.told("UpToDate") == ("True", "Current")
    assert "from" not in world.upgrade


def test_an_operator_of_another_version_upgrades_what_an_older_one_left_without_a_record(
    begun: Callable[[], World],
) -> None:
    world = begun()
    status = {name: value for name, value in world.resource["status"].items() if name != "upgrade"}
    world.resource = {**world.resource, "status": status}
    world.images = replace(world.images, version="0.2.0")
    world.look()
    assert world.moves == []
    assert (world.upgrade["phase"], world.upgrade["from"]) == ("Migrating", "0.1.0")
    world.settle()
    assert world.moves == [(name, "0.2.0") for name in NAMES]


@pytest.fixture
def gated(begun: Callable[[], World], resource: Callable[..., Manifest]) -> Callable[[], World]:
    """An installed platform whose upgrades have a gate."""

    def begin() -> World:
        world = begun()
        spec = {"suspend": True, "cancel": False, "ttlSecondsAfterFinished": 5, "seed": 7}
        world.template = resource("LoadTest", "gate", spec | {"platformRef": {"name": "other"}})
        world.resource = {**world.resource, "spec": {"upgrade": {"gate": {"loadTest": "gate"}}}}
        return world

    return begin


def gates(world: World) -> list[Manifest]:
    return [one for one in world.children.values() if one["kind"] == "LoadTest"]


def gating(world: World) -> bool:
    return world.upgrade["phase"] == "Gating" and bool(gates(world))


def test_a_gate_decides_when_every_service_runs_the_new_version(gated: Callable[[], World]) -> None:
    world = gated()
    world.verdict = None
    world.want("0.2.0")
    until(world, at(5))
    assert gates(world) == []
    until(world, gating)
    assert at(len(NAMES))(world)
    (test,) = gates(world)
    assert test["spec"] == {"seed": 7, "platformRef": {"name": "demo"}}, "it begins, and nobody but us removes it"
    assert test["metadata"]["name"] == world.upgrade["gate"]
    assert len(test["metadata"]["name"]) <= 52
    assert world.told("UpToDate") == ("False", "Gating")
    assert world.told("Ready") == ("True", "Ready")
    assert world.template is not None
    world.template = {**world.template, "spec": {"seed": 8}}
    world.settle()
    assert gates(world)[0]["spec"]["seed"] == 7, "one that has begun is left as it is"
    world.verdict = True
    world.children[key_of(test)] = {**test, "status": {}}
    world.settle()
    assert world.upgrade["phase"] == "Completed"
    assert world.told("UpToDate") == ("True", "Current")
    assert len(gates(world)) == 1, "it stays to be looked at"
    world.want("0.3.0")
    until(world, at(1, "0.3.0"))
    assert gates(world) == [], "until the next upgrade"


def test_a_gate_that_is_not_passed_takes_the_version_back(gated: Callable[[], World]) -> None:
    world = gated()
    world.verdict = False
    world.want("0.2.0")
    world.settle()
    assert at(0)(world)
    assert (world.upgrade["phase"], world.upgrade["reason"]) == ("RolledBack", "GateFailed")
    assert world.upgrade["message"].endswith(": failed: p99 of feed: 300 ms")
    assert world.told("Degraded") == ("True", "RolledBack")
    assert [one["metadata"]["name"] for one in gates(world)] == [world.upgrade["gate"]], "it says why"


def test_without_its_load_test_a_gate_is_not_passed(gated: Callable[[], World]) -> None:
    world = gated()
    world.template = None
    world.want("0.2.0")
    world.settle()
    assert at(0)(world)
    assert world.upgrade["message"] == "LoadTest gate, the gate of upgrades, does not exist"


def test_a_gate_is_given_up_with_what_it_is_about(gated: Callable[[], World]) -> None:
    for why in ("mind", "bad", "errors", "no gate"):
        world = gated()
        world.verdict = None
        world.want("0.2.0")
        until(world, gating)
        if why == "mind":
            world.want("0.1.0")
        elif why == "bad":
            world.bad = {"0.2.0"}
            world.turn()
        elif why == "errors":
            world.errors = ErrorRate(100, 20)
        else:
            world.resource = {**world.resource, "spec": {"version": "0.2.0"}}
        world.settle()
        assert at(len(NAMES) if why == "no gate" else 0)(world), why
        assert gates(world) == [], why


@pytest.mark.parametrize("fate", ["good", "bad", "failing", "refused", "gated", "not passed"])
@pytest.mark.parametrize("writes", [0, 1, 2])
def test_an_operator_that_dies_in_every_look_comes_to_the_same_end(
    begun: Callable[[], World], gated: Callable[[], World], fate: str, writes: int
) -> None:
    ends = []
    for deaths in ([], [writes, None] * 15):
        world = gated() if fate in {"gated", "not passed"} else begun()
        if fate in {"gated", "not passed"}:
            world.verdict = fate == "gated"
        elif fate != "good":
            setattr(world, fate, {"0.2.0"})
        world.want("0.2.0")
        world.settle(deaths)
        name = world.upgrade.get("gate", "none")
        told = {one: value.replace(name, "") for one, value in world.upgrade.items() if one != "since"}
        ends.append((world.versions(), world.jobs(), told, world.told("Degraded")))
        order = [name for name, version in world.moves if version == "0.2.0"]
        assert order == NAMES[: len(order)]
    assert ends[0] == ends[1]
