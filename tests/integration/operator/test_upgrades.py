"""From one version to the next, and back, against a real API server and real controllers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fanfold_operator.metrics import upgrade_since
from fanfold_operator.planning.upgrade import ORDER
from tests.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400), pytest.mark.usefixtures("operator", "kubelet")]

Condition = Callable[..., dict[str, Any]]
SECONDS = 180  # some seconds on a quiet machine
HASTY = {"soakSeconds": 0}
DEADLINE = 10
"""The least that progressDeadlineSeconds may be. By default it is 5 min: a busy machine fails no rollout here."""
NAMES = [one.name for one in ORDER]


@pytest.fixture
def want(kube: Any, namespace: str) -> Callable[[str], None]:
    def patch(version: str) -> None:
        kube.patch("Platform", namespace, "demo", {"spec": {"version": version}})

    return patch


@pytest.fixture
def bound(kube: Any, namespace: str) -> Callable[[int | None], None]:
    """Set the seconds after which a rollout without progress has failed; None: the default."""

    def patch(seconds: int | None) -> None:
        kube.patch("Platform", namespace, "demo", {"spec": {"upgrade": {"progressDeadlineSeconds": seconds}}})

    return patch


@pytest.fixture
def versions(kube: Any, namespace: str) -> Callable[[], dict[str, str]]:
    """What the Deployments' pods are made from, by component."""

    def read() -> dict[str, str]:
        found = {}
        for name in NAMES:
            template = kube.get("Deployment", namespace, f"demo-{name}")["spec"]["template"]
            found[name] = template["spec"]["containers"][0]["image"].rpartition(":")[2]
        return found

    return read


@pytest.fixture
def reason(condition: Condition) -> Callable[[], str]:
    return lambda: str(condition("UpToDate").get("reason"))


@pytest.fixture
def answered(operator: Any) -> Iterator[dict[str, int]]:
    """How many requests each of the two gateways says to have answered, by status."""
    operator.answered.update({"200": 1000, "503": 0})
    yield operator.answered
    operator.answered.clear()


@pytest.fixture
def moves(recorded: list[tuple[str, str]], namespace: str) -> Callable[[], list[str]]:
    """Components whose PlatformService was written since the test began, in that order."""
    begun = len(recorded)

    def read() -> list[str]:
        prefix = f"/namespaces/{namespace}/platformservices/demo-"
        paths = [path for verb, path in recorded[begun:] if verb == "PATCH" and prefix in path]
        return [path.partition(prefix)[2] for path in paths if not path.endswith("/status")]

    return read


@pytest.fixture
def alarmed(namespace: str) -> Callable[[], list[str]]:
    """Phase of the platform's newest upgrade, as alerts see it."""

    def read() -> list[str]:
        samples = [sample for family in upgrade_since.collect() for sample in family.samples]
        return [sample.labels["phase"] for sample in samples if sample.labels["namespace"] == namespace]

    return read


def test_services_follow_one_after_another_when_the_migrations_are_done(
    kube: Any, namespace: str, ready: Any, want: Any, versions: Any, reason: Any, moves: Any
) -> None:
    ready(upgrade=HASTY)
    until(lambda: reason() == "Current")
    before = len(moves())
    want("0.2.0")
    until(lambda: reason() not in {"Current", "Waiting"})
    until(lambda: reason() == "Current", seconds=SECONDS)
    assert moves()[before:] == NAMES
    assert set(versions().values()) == {"0.2.0"}
    status = kube.get("Platform", namespace, "demo")["status"]
    block = {name: status["upgrade"][name] for name in ("phase", "from", "to")}
    assert block == {"phase": "Completed", "from": "0.1.0", "to": "0.2.0"}
    assert status["version"] == "0.2.0"
    (job,) = until(lambda: [one for one in kube.list("Job", namespace) if "deletionTimestamp" not in one])
    assert job["metadata"]["labels"]["app.kubernetes.io/version"] == "0.2.0"


def test_a_version_that_does_not_become_ready_is_taken_back_once(
    kube: Any, kubelet: Any, namespace: str, ready: Any, want: Any, bound: Any, versions: Any, reason: Any,
    condition: Condition, nudge: Any, settle: Any, moves: Any, alarmed: Any,
) -> None:  # fmt: skip
    ready(upgrade=HASTY)
    until(lambda: reason() == "Current")
    until(lambda: alarmed() == ["Completed"])
    kubelet.hold(namespace, "follow")
    want("0.2.0")
    until(lambda: versions()["follow"] == "0.2.0", seconds=SECONDS)
    bound(DEADLINE)  # from now on, so that it is follow that is late
    until(lambda: reason() == "RolledBack", seconds=SECONDS)
    bound(None)
    assert set(versions().values()) == {"0.1.0"}
    assert condition("Ready")["status"] == "True", "the old version went on serving"
    degraded = condition("Degraded")
    assert (degraded["status"], degraded["reason"]) == ("True", "RolledBack")
    assert "follow did not become ready" in degraded["message"]
    until(lambda: alarmed() == ["RolledBack"])

    def told() -> bool:
        events = [one for one in kube.list("Event", namespace) if one["reason"] == "RolledBack"]
        return any(one["type"] == "Warning" and "0.2.0 was taken back" in one["message"] for one in events)

    until(told)
    kubelet.release(namespace, "follow")
    settle()
    before = len(moves())
    nudge("Platform", "demo")
    settle()
    assert moves()[before:] == [], "it is not tried again"
    want("0.3.0")
    until(lambda: set(versions().values()) == {"0.3.0"} and reason() == "Current", seconds=SECONDS)
    assert condition("Degraded")["status"] == "False"


def test_requests_that_fail_take_a_version_back(
    ready: Any, want: Any, versions: Any, reason: Any, condition: Condition, answered: Any
) -> None:
    ready(upgrade={"soakSeconds": 600})  # one service runs it then, whenever this test comes to see that
    until(lambda: reason() == "Current")
    want("0.2.0")
    until(lambda: "0.2.0" in versions().values(), seconds=SECONDS)
    answered["503"] += 50
    until(lambda: reason() == "RolledBack", seconds=SECONDS)
    assert set(versions().values()) == {"0.1.0"}
    assert "100 of 100 requests failed while 1 of 11 services ran it" in condition("Degraded")["message"]


def test_a_version_that_refuses_the_schema_is_not_rolled_out(
    kube: Any, kubelet: Any, namespace: str, ready: Any, want: Any, versions: Any, reason: Any, condition: Condition,
    moves: Any,
) -> None:  # fmt: skip
    ready(upgrade=HASTY)
    until(lambda: reason() == "Current")
    before = len(moves())
    kubelet.refuse(namespace, "migrations")
    want("0.0.9")
    until(lambda: reason() == "UpgradeRefused", seconds=SECONDS)
    assert moves()[before:] == []
    assert set(versions().values()) == {"0.1.0"}
    assert condition("Ready")["status"] == "True"
    assert condition("Degraded")["reason"] == "UpgradeRefused"
    (job,) = [one for one in kube.list("Job", namespace) if one["metadata"]["name"] in condition("Degraded")["message"]]
    assert job["metadata"]["labels"]["app.kubernetes.io/version"] == "0.0.9"


@pytest.mark.parametrize("passes", [True, False], ids=["passed", "failed"])
def test_a_gate_decides_whether_a_version_stays(
    kube: Any, kubelet: Any, namespace: str, ready: Any, want: Any, versions: Any, reason: Any, condition: Condition,
    passes: bool,
) -> None:  # fmt: skip
    template = {"suspend": True, "platformRef": {"name": "demo"}, "scenario": {"name": "browse"}}
    head = {"apiVersion": "fanfold.dev/v1alpha1", "kind": "LoadTest", "metadata": {"name": "gate"}}
    kube.apply({**head, "spec": template}, namespace)
    ready(upgrade={**HASTY, "gate": {"loadTest": "gate"}})
    until(lambda: reason() == "Current")
    want("0.2.0")
    until(lambda: reason() == "Gating", seconds=SECONDS)
    assert set(versions().values()) == {"0.2.0"}
    name = kube.get("Platform", namespace, "demo")["status"]["upgrade"]["gate"]
    until(
        lambda: (kube.get("LoadTest", namespace, name) or {}).get("status", {}).get("phase") == "Seeding",
        seconds=SECONDS,
    )
    assert kube.get("LoadTest", namespace, "gate")["status"]["phase"] == "Suspended"
    words = {"verdict": "passed"} if passes else {"verdict": "failed", "reasons": ["p99 of feed: 300 ms"]}
    kubelet.end(namespace, name, 0 if passes else 1, json.dumps(words))
    until(lambda: reason() == ("Current" if passes else "RolledBack"), seconds=SECONDS)
    assert set(versions().values()) == {"0.2.0" if passes else "0.1.0"}
    degraded = condition("Degraded")
    assert degraded["status"] == ("False" if passes else "True")
    assert passes or f"LoadTest {name}: failed: p99 of feed: 300 ms" in degraded["message"]
    assert kube.get("LoadTest", namespace, name)["status"]["verdict"] == words["verdict"]
