"""Two nodes, and what happens to nodes and pods there: restarts, evictions, and a node that is suddenly gone.

The embedded stores keep their data on the node they were scheduled to (a local volume), so the node that is lost is the
other one: what is proven here is that services, workers and gateways survive, not that one disk does.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from fanfold.contracts.components import COMPONENTS
from tests.e2e import waiting
from tests.e2e.ring import snapshot
from tests.e2e.traffic import Traffic
from tools.local.clusters import Kubectl, Native
from tools.local.up import PLATFORM, install
from tools.progress import StageError, Stages, say

until = partial(waiting.until, seconds=240)

pytestmark = [pytest.mark.e2e, pytest.mark.long, pytest.mark.timeout(900)]

NAME = "fanfold-nodes"
STAYS, GOES = f"{NAME}-1", f"{NAME}-2"
STORES = {"postgresql", "valkey", "objectstore"}
TWICE = ("follow", "post", "feed")
"""Two replicas each, as whoever wants to survive the loss of a node runs it. Not all services, for two cores' sake; the
others are away until they are remade, which fails requests, but may not lose what was acknowledged. No autoscaler: what
is counted here is to be the same on a slow machine."""
FILL = "import os; os.posix_fallocate(os.open('/tmp/full', os.O_CREAT | os.O_WRONLY), 0, 1100 << 20)"
"""More than a pod may keep in its /tmp (1Gi)."""
SERVED = ("profile", "follow", "post", "activity", "feed", "image", "gateway")


def items(answer: Any) -> list[Any]:
    found: list[Any] = answer["items"]
    return found


def pods(kubectl: Kubectl, service: str = "") -> list[Any]:
    """Pods of the platform, or of one of its services, that run or are to run: no Job's, and none that is to go."""
    wanted = f"fanfold.dev/platform={PLATFORM}" + (f",fanfold.dev/service={service}" if service else "")
    found = items(kubectl.get("pods", f"--selector={wanted}"))
    staying = [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]
    return [pod for pod in staying if pod["status"]["phase"] in {"Pending", "Running"}]


def where(kubectl: Kubectl, service: str = "") -> set[str]:
    """Nodes of the pods."""
    return {pod["spec"].get("nodeName", "") for pod in pods(kubectl, service)}


def service_of(pod: Any) -> str:
    return str(pod["metadata"]["labels"]["fanfold.dev/service"])


def ring(kubectl: Kubectl) -> Any:
    return kubectl.get("hashring", PLATFORM)


def whole(kubectl: Kubectl) -> bool:
    """Every service has its replicas, every slot an owner that takes keys, every gateway the newest epoch."""
    services = items(kubectl.get("platformservices"))
    counts = [service.get("status", {}).get("ready", "0/1").split("/") for service in services]
    status = ring(kubectl).get("status", {})
    acked, _, gateways = status.get("acked", "0/1").partition("/")
    slots = [slot for members in snapshot(kubectl).services.values() for slot in members]
    return (
        all(ready == wanted for ready, wanted in counts)
        and acked == gateways == "2"
        and all(slot.state == "active" for slot in slots)
    )


@pytest.fixture(scope="module")
def cluster() -> Iterator[Native]:
    """Two nodes that no other process uses."""
    if os.geteuid() != 0:
        pytest.skip("the native cluster needs root: namespaces, mounts and cgroups")
    running = Native(why="two nodes of the tests' own", name=NAME, nodes="2")
    running.build()
    running.stop(purge=True)
    yield running
    running.stop(purge=True)


@pytest.fixture(scope="module")
def kubectl(cluster: Native) -> Kubectl:
    """A platform whose stores are on the first node and whose services are on both."""
    kubectl, _ = install(cluster, Stages(4))
    kubectl.run("cordon", GOES)
    one, two = ({"replicas": {"min": size, "max": size}} for size in (1, 2))
    names = [component.name for component in COMPONENTS if component.name != "gateway"]
    platform = {
        "apiVersion": "fanfold.dev/v1alpha1",
        "kind": "Platform",
        "metadata": {"name": PLATFORM},
        "spec": {"gateway": two, "services": {name: two if name in TWICE else one for name in names}},
    }
    _apply(kubectl, platform)

    def stores_are_placed() -> bool:
        placed = {
            pod["metadata"]["labels"]["fanfold.dev/service"] for pod in pods(kubectl) if "nodeName" in pod["spec"]
        }
        return placed >= STORES

    until(stores_are_placed, "the stores' pods on the first node")
    kubectl.run("uncordon", GOES)
    kubectl.run("wait", f"platform/{PLATFORM}", "--for=condition=Ready", "--timeout=300s", seconds=320)
    until(lambda: whole(kubectl), "all replicas and slots")
    return kubectl


def _apply(kubectl: Kubectl, *objects: Any) -> None:
    done = subprocess.run(
        ["kubectl", "--namespace", kubectl.namespace, "apply", "--server-side", "--filename", "-"],
        input=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}),
        capture_output=True, text=True, timeout=60, check=False, env=kubectl.environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def url(kubectl: Kubectl) -> str:
    """Of the gateway, at the node that stays."""
    node: Any = kubectl.get("node", STAYS)
    (address,) = [entry["address"] for entry in node["status"]["addresses"] if entry["type"] == "InternalIP"]
    service: Any = kubectl.get("service", f"{PLATFORM}-gateway")
    return f"http://{address}:{service['spec']['ports'][0]['nodePort']}"


def test_redundant_replicas_stand_on_different_nodes(kubectl: Kubectl) -> None:
    for service in (*TWICE, "gateway"):
        assert where(kubectl, service) == {STAYS, GOES}, service


def test_a_rolling_restart_of_every_service_fails_no_request(kubectl: Kubectl, url: str) -> None:
    before = snapshot(kubectl)
    with Traffic(url) as traffic:
        for service in SERVED:
            deployment = f"deployment/{PLATFORM}-{service}"
            kubectl.run("rollout", "restart", deployment)
            kubectl.run("rollout", "status", deployment, "--timeout=300s", seconds=320)
        report = traffic.stop()
    after = snapshot(kubectl)
    say(f"rolling restart: {dict(report.answered)}, {len(report.failed)} failed")
    assert sum(report.answered.values()) > 100
    assert not report.failed, report.failures()
    assert not traffic.lost(30)
    for service, slots in before.services.items():
        if service in SERVED:
            owners = {slot.slot: slot.address for slot in after.services[service] if slot.state == "active"}
            assert set(owners) == {slot.slot for slot in slots}, "every pod inherited a slot"
            assert not {slot.address for slot in slots} & set(owners.values()), "and is another than before"


def _evict(kubectl: Kubectl, pod: str) -> str:
    """Ask for an eviction as `kubectl drain` does; what was answered."""
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": kubectl.namespace}}
    path = f"/api/v1/namespaces/{kubectl.namespace}/pods/{pod}/eviction"
    done = subprocess.run(
        ["kubectl", "create", "--raw", path, "--filename", "-"],
        input=json.dumps(body), capture_output=True, text=True, timeout=60, check=False, env=kubectl.environment,
    )  # fmt: skip
    return done.stdout + done.stderr


def test_an_eviction_takes_one_replica_at_a_time_and_fails_no_request(kubectl: Kubectl, url: str) -> None:
    until(lambda: whole(kubectl), "all replicas and slots")
    one, other = (pod["metadata"]["name"] for pod in pods(kubectl, "feed"))
    with Traffic(url) as traffic:
        assert '"Success"' in _evict(kubectl, one)
        assert "disruption budget" in _evict(kubectl, other), "the budget holds the second one back"
        until(lambda: whole(kubectl), "the evicted replica's successor, in its slot")
        report = traffic.stop()
    assert not report.failed, report.failures()


def test_a_pod_that_its_kubelet_evicts_is_replaced_in_its_slot_and_costs_no_post(kubectl: Kubectl, url: str) -> None:
    """It fills its node's disk beyond its limit; the kubelet leaves it a second, whatever its preStop hook wants."""
    until(lambda: whole(kubectl), "all replicas and slots")
    before = {slot.slot for slot in snapshot(kubectl).services["feed"]}
    name = pods(kubectl, "feed")[0]["metadata"]["name"]
    with Traffic(url) as traffic:
        kubectl.run("exec", name, "--", "python", "-c", FILL)

        def evicted() -> bool:
            status: Any = kubectl.get("pod", name)["status"]
            return bool(status["phase"] == "Failed" and status.get("reason") == "Evicted")

        seconds = until(evicted, "the eviction by the kubelet", seconds=120)
        until(lambda: whole(kubectl) and len(pods(kubectl, "feed")) == 2, "its successor")
        report = traffic.stop()
    say(f"evicted by its kubelet after {seconds:.0f} s: {dict(report.answered)}, {len(report.failed)} failed")
    assert {slot.slot for slot in snapshot(kubectl).services["feed"]} == before
    assert not traffic.lost(60)


def test_the_last_replica_of_a_service_stays_until_its_successor_has_its_slot(kubectl: Kubectl, url: str) -> None:
    """One replica, deleted by hand: it is the preStop hook that keeps it until another has taken over."""
    until(lambda: whole(kubectl), "all replicas and slots")
    (pod,) = pods(kubectl, "profile")
    slots = {slot.slot for slot in snapshot(kubectl).services["profile"]}
    with Traffic(url) as traffic:
        kubectl.run("delete", "pod", pod["metadata"]["name"], "--wait=false")

        def replaced() -> bool:
            found = snapshot(kubectl).services["profile"]
            return {slot.slot for slot in found if slot.state == "active"} == slots and pods(kubectl, "profile") != []

        until(lambda: replaced() and whole(kubectl), "its successor, in its slot")
        time.sleep(3)  # traffic on the successor alone
        report = traffic.stop()
    assert not report.failed, report.failures()


def test_a_deleted_deployment_is_back_in_five_seconds(kubectl: Kubectl) -> None:
    name = f"deployment/{PLATFORM}-notification-worker"
    uid = kubectl.run("get", name, "--output=jsonpath={.metadata.uid}")
    kubectl.run("delete", name, "--wait=false")

    def back() -> bool:
        try:
            return kubectl.run("get", name, "--output=jsonpath={.metadata.uid}") != uid
        except StageError:
            return False

    seconds = until(back, "the Deployment", seconds=30, pause=0.05)
    say(f"drift repair: {seconds:.2f} s")
    assert seconds < 5


def test_a_lost_node_costs_no_acknowledged_post_and_the_platform_heals_by_itself(
    cluster: Native, kubectl: Kubectl, url: str
) -> None:
    until(lambda: whole(kubectl), "all replicas and slots")
    stores = {service_of(pod): pod for pod in pods(kubectl)}
    assert {stores[name]["spec"]["nodeName"] for name in STORES} == {STAYS}
    with Traffic(url) as traffic:
        time.sleep(5)
        acked = len(traffic.report.acked)
        started = time.monotonic()
        cluster.stop_node(GOES)
        answered = sum(traffic.report.answered.values())
        until(lambda: sum(traffic.report.answered.values()) > answered + 20, "gateways go on serving")
        # Kubernetes takes 50 s to give the node up; until then it counts the pods there as well.
        until(lambda: where(kubectl) == {STAYS}, "pods in place of those on the lost node", pause=1)
        until(lambda: whole(kubectl), "all replicas, slots and gateways on the node that is left", pause=1)
        healed = time.monotonic() - started
        time.sleep(5)
        report = traffic.stop()
    late = [failure for failure in report.failed if failure[0] > healed + 6]
    say(
        f"node lost: healed in {healed:.0f} s; {dict(report.answered)}, {len(report.failed)} failed, "
        f"the last {report.failed[-1][0] if report.failed else 0:.0f} s in; {len(report.acked)} posts acknowledged"
    )
    assert not traffic.lost(60)
    assert len(report.acked) > acked, "people went on posting"
    assert not late, "nothing fails once it is healed"


def test_a_node_that_comes_back_is_cleaned_up_and_used_again(cluster: Native, kubectl: Kubectl, url: str) -> None:
    cluster.start_node(GOES)
    wanted = f"--selector=fanfold.dev/platform={PLATFORM}"

    def tidy() -> bool:
        return all("deletionTimestamp" not in pod["metadata"] for pod in items(kubectl.get("pods", wanted)))

    until(lambda: tidy() and whole(kubectl), "no pod of the lost node left over", seconds=180)
    kubectl.run("rollout", "restart", f"deployment/{PLATFORM}-feed")
    kubectl.run("rollout", "status", f"deployment/{PLATFORM}-feed", "--timeout=300s", seconds=320)
    until(lambda: where(kubectl, "feed") == {STAYS, GOES}, "feed on both nodes")
