"""What load scenarios do to the platform meanwhile, with the real operator that carries it out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fanfold_loadtest import cluster as acted_on
from fanfold_loadtest.cluster import RESTARTED, Cluster, ClusterError, Target, acting
from fanfold_loadtest.scenario import ClusterEvent, RestartPod, Scale, Upgrade
from fanfold_operator.planning.upgrade import ORDER
from tests.waiting import eventually, until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400), pytest.mark.usefixtures("operator", "kubelet")]

NAMES = [one.name for one in ORDER]


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was asked for is looked at ten times a second, not once."""
    monkeypatch.setattr(acted_on, "LOOK_SECONDS", 0.1)


class Notes:
    """Steps as they are told."""

    def __init__(self) -> None:
        self.what: list[str] = []

    def __call__(self, what: str, at: float | None = None) -> None:
        assert at is None, "now"
        self.what.append(what)


@pytest.fixture
def target(namespace: str, kubeconfig: Path) -> Callable[[str], Target]:
    def make(version: str) -> Target:
        return Target(f"{namespace}/demo", str(kubeconfig), version)

    return make


async def test_a_service_grows_loses_a_pod_and_has_at_the_end_what_it_had(
    kube: Any, namespace: str, target: Any, ready: Any
) -> None:
    ready(services={"feed": {"replicas": {"min": 1, "max": 4}}})
    before = {pod["metadata"]["uid"] for pod in kube.list("Pod", namespace)}
    async with Cluster(target("")) as cluster:
        events: list[tuple[float, ClusterEvent]] = [
            (0.0, Scale(at=0, service="feed", by=1)),
            (0.0, RestartPod(at=0, service="profile")),
        ]
        async with acting(cluster, events, time.time()) as acts:
            await eventually(lambda: len(acts.marks) == 3 or acts.mishaps, "three marks", seconds=400)
        assert acts.mishaps == []
        assert {mark.what for mark in acts.marks} == {"feed to 2 replicas", "feed has 2", "a pod of profile goes"}

        def two_are_ready() -> bool:
            status = kube.get("PlatformService", namespace, "demo-feed")["status"]
            return bool((status["replicas"], status["ready"]) == (2, "2/2"))

        # Where two are asked for they must spread over nodes: a change of the pods, which rolls out a moment later.
        until(two_are_ready)
        until(lambda: before - {pod["metadata"]["uid"] for pod in kube.list("Pod", namespace)})
    replicas = kube.get("Platform", namespace, "demo")["spec"]["services"]["feed"]["replicas"]
    assert replicas == {"min": 1, "max": 4}


async def test_without_a_version_all_services_restart_one_after_the_other_the_gateway_last(
    kube: Any, namespace: str, target: Any, ready: Any
) -> None:
    ready()
    told = Notes()
    async with Cluster(target("")) as cluster:
        await cluster.act(Upgrade(at=0), told)
    assert sorted(told.what) == sorted([*(f"{name} restarts" for name in NAMES), "all are restarted"])
    assert told.what[-2:] == ["gateway restarts", "all are restarted"]
    for name in NAMES:
        template = kube.get("Deployment", namespace, f"demo-{name}")["spec"]["template"]
        assert RESTARTED in template["metadata"]["annotations"]


async def test_an_upgrade_is_followed_to_its_end(
    kube: Any, namespace: str, target: Any, ready: Any, operator: Any
) -> None:
    operator.answered.update({"200": 1000, "503": 0})
    ready(upgrade={"soakSeconds": 0})
    told = Notes()
    async with Cluster(target("0.2.0")) as cluster:
        await cluster.act(Upgrade(at=0), told)
        with pytest.raises(ClusterError, match=r"is at version 0\.2\.0 already"):
            await cluster.act(Upgrade(at=0), told)
    operator.answered.clear()
    assert told.what[0] == "upgrade to 0.2.0"
    assert told.what[-1] == "upgrade: Completed"
    assert kube.get("Platform", namespace, "demo")["status"]["version"] == "0.2.0"


async def test_what_cannot_be_done_is_told_and_ends_nothing(
    namespace: str, kubeconfig: Path, target: Any, ready: Any
) -> None:
    with pytest.raises(ClusterError, match=r"refused \(404\): .*platforms.* \"demo\" not found"):
        await Cluster(target("")).__aenter__()
    with pytest.raises(ClusterError, match=r"no access to Kubernetes by /nowhere: .*give --kubeconfig"):
        await Cluster(Target("x", "/nowhere")).__aenter__()
    ready()
    async with Cluster(target("")) as cluster:
        async with acting(cluster, [(0.0, Scale(at=0, service="dream", by=1))], time.time()) as acts:
            await eventually(lambda: acts.mishaps, "a mishap", seconds=400)
        assert acts.mishaps[0].startswith("scale dream: the API server refused (404)")
        async with acting(cluster, [(60.0, Upgrade(at=0))], time.time()) as late:
            await asyncio.sleep(0)  # the task has begun
        assert late.mishaps == ["upgrade: not done when the load had ended"]
