"""A real kube-apiserver with a real controller manager, and an operator that runs against it.

There is no node: `kubelet` plays one and reports every pod as running, with an address, and Jobs' pods as done. So
Deployments, EndpointSlices and garbage collection are Kubernetes' own.
"""

from __future__ import annotations

import asyncio
import base64
import os
import secrets
import select
import ssl
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import httpx
import pytest
import yaml

from fanfold.contracts.components import COMPONENTS, MIGRATION_REFUSED
from fanfold.contracts.resources import LOADTEST_LABEL, PLATFORM_LABEL, SERVICE_LABEL
from fanfold.contracts.snapshot import SNAPSHOT_KEY, decode
from fanfold_operator.api import Api
from fanfold_operator.autoscale import backlog
from fanfold_operator.error_rate import REQUESTS
from fanfold_operator.kinds import CONFIG_MAP, ENDPOINT_SLICE, Key
from fanfold_operator.operator import Operator, Options
from fanfold_operator.planning.actions import Images
from fanfold_operator.planning.acts import Act, Wish
from fanfold_operator.scrape import Sample, Scrape

ROOT = Path(__file__).parents[3]
BINARY = ROOT / ".build" / "bin" / "fanfold-cluster"
START_SECONDS = 60
Manifest = dict[str, Any]
PLURALS = {
    "Namespace": ("api/v1", "namespaces"),
    "Secret": ("api/v1", "secrets"),
    "Service": ("api/v1", "services"),
    "ConfigMap": ("api/v1", "configmaps"),
    "Pod": ("api/v1", "pods"),
    "Event": ("api/v1", "events"),
    "ServiceAccount": ("api/v1", "serviceaccounts"),
    "PersistentVolumeClaim": ("api/v1", "persistentvolumeclaims"),
    "Deployment": ("apis/apps/v1", "deployments"),
    "StatefulSet": ("apis/apps/v1", "statefulsets"),
    "Job": ("apis/batch/v1", "jobs"),
    "HorizontalPodAutoscaler": ("apis/autoscaling/v2", "horizontalpodautoscalers"),
    "PodDisruptionBudget": ("apis/policy/v1", "poddisruptionbudgets"),
    "NetworkPolicy": ("apis/networking.k8s.io/v1", "networkpolicies"),
    "EndpointSlice": ("apis/discovery.k8s.io/v1", "endpointslices"),
    "Role": ("apis/rbac.authorization.k8s.io/v1", "roles"),
    "RoleBinding": ("apis/rbac.authorization.k8s.io/v1", "rolebindings"),
    "ClusterRole": ("apis/rbac.authorization.k8s.io/v1", "clusterroles"),
    "ClusterRoleBinding": ("apis/rbac.authorization.k8s.io/v1", "clusterrolebindings"),
    "CustomResourceDefinition": ("apis/apiextensions.k8s.io/v1", "customresourcedefinitions"),
    "Platform": ("apis/fanfold.dev/v1alpha1", "platforms"),
    "PlatformService": ("apis/fanfold.dev/v1alpha1", "platformservices"),
    "HashRing": ("apis/fanfold.dev/v1alpha1", "hashrings"),
    "LoadTest": ("apis/fanfold.dev/v1alpha1", "loadtests"),
    "ScaledObject": ("apis/keda.sh/v1alpha1", "scaledobjects"),
    "HTTPRoute": ("apis/gateway.networking.k8s.io/v1", "httproutes"),
}
CLUSTER_WIDE = {"Namespace", "CustomResourceDefinition", "ClusterRole", "ClusterRoleBinding"}


class Kube:
    """A client of its own for the tests, so that the operator's is not tested by itself."""

    def __init__(self, kubeconfig: Path) -> None:
        loaded = yaml.safe_load(kubeconfig.read_text())
        cluster, user = loaded["clusters"][0]["cluster"], loaded["users"][0]["user"]
        with tempfile.NamedTemporaryFile() as file:
            for name in ("client-certificate-data", "client-key-data"):
                file.write(base64.b64decode(user[name]))
            file.flush()
            authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
            context = ssl.create_default_context(cadata=authority)
            context.load_cert_chain(file.name)
        self.client = httpx.Client(base_url=cluster["server"], verify=context, timeout=15, trust_env=False)

    def call(self, method: str, path: str, body: Any = None, content: str = "application/json", **query: str) -> Any:
        answer = self.client.request(method, path, json=body, params=query, headers={"Content-Type": content})
        assert answer.status_code < 300, answer.json()["message"]
        return answer.json()

    def path(self, kind: str, namespace: str, name: str = "") -> str:
        prefix, plural = PLURALS[kind]
        middle = "" if kind in CLUSTER_WIDE else f"/namespaces/{namespace}"
        return f"/{prefix}{middle}/{plural}" + (f"/{name}" if name else "")

    def get(self, kind: str, namespace: str, name: str) -> Manifest | None:
        answer = self.client.get(self.path(kind, namespace, name))
        return None if answer.status_code == 404 else answer.raise_for_status().json()

    def list(self, kind: str, namespace: str) -> list[Manifest]:
        items: list[Manifest] = self.call("GET", self.path(kind, namespace))["items"]
        return items

    def apply(self, manifest: Manifest, namespace: str = "", manager: str = "tests", **query: str) -> Manifest:
        name = manifest["metadata"]["name"]
        path = self.path(manifest["kind"], namespace, name)
        content = "application/apply-patch+yaml"
        answer: Manifest = self.call("PATCH", path, manifest, content, fieldManager=manager, **query)
        return answer

    def patch(self, kind: str, namespace: str, name: str, body: Any, subresource: str = "", **query: str) -> Manifest:
        path = self.path(kind, namespace, name) + subresource
        answer: Manifest = self.call("PATCH", path, body, "application/merge-patch+json", **query)
        return answer

    def delete(self, kind: str, namespace: str, name: str) -> None:
        self.call("DELETE", self.path(kind, namespace, name), {"propagationPolicy": "Background"})


def _await_ready(process: subprocess.Popen[str], log: Path) -> str:
    assert process.stdout is not None
    if select.select([process.stdout], [], [], START_SECONDS)[0]:
        line = process.stdout.readline().strip()
        if line.startswith("READY kubeconfig="):
            return line.partition("=")[2]
    pytest.fail(f"no control plane after {START_SECONDS} s: {log.read_text()[-2000:]}")


@pytest.fixture(scope="session")
def kubeconfig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    assert BINARY.exists(), f"{BINARY} is missing: run cluster/build.sh"
    folder = tmp_path_factory.mktemp("control-plane")
    log = folder / "run.log"
    arguments = [str(BINARY), "control-plane", "run", "--controller-manager", "--state", str(folder / "state")]
    with (
        log.open("w") as errors,
        subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        before = os.environ.get("KUBECONFIG")
        try:
            os.environ["KUBECONFIG"] = _await_ready(process, log)
            yield Path(os.environ["KUBECONFIG"])
        finally:
            os.environ.pop("KUBECONFIG")
            if before is not None:
                os.environ["KUBECONFIG"] = before
            process.terminate()
            process.wait(30)


@pytest.fixture(scope="session")
def kube(kubeconfig: Path, eventually: Callable[..., Any]) -> Iterator[Kube]:
    """The API server, with the custom resource definitions established."""
    kube = Kube(kubeconfig)
    for file in sorted((ROOT / "crds").glob("*.yaml")):
        definition = yaml.safe_load(file.read_text())
        kube.apply(definition)
        path = f"/apis/fanfold.dev/v1alpha1/{definition['spec']['names']['plural']}"
        eventually(lambda path=path: kube.client.get(path).status_code == 200)
    yield kube
    kube.client.close()


@pytest.fixture(scope="session")
def eventually() -> Callable[..., Any]:
    """Call until the answer is true, and give it."""

    def wait(check: Callable[[], Any], seconds: float = 20) -> Any:
        deadline = time.monotonic() + seconds
        while not (answer := check()):
            assert time.monotonic() < deadline, f"waited {seconds} s in vain"
            time.sleep(0.05)
        return answer

    return wait


@pytest.fixture
def namespace(kube: Kube) -> Iterator[str]:
    name = f"test-{secrets.token_hex(4)}"
    kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    yield name
    kube.delete("Namespace", "", name)


class Kubelet:
    """Plays the node: binds pods, reports them as ready, or a Job's as done, and removes them a second after deletion.

    `hold` leaves pods of a component pending, `refuse` ends them with the exit code of migrations that refuse. Pods of
    load tests run until `end`.
    """

    NODE = "test-node"
    ADDRESS = "192.0.2.7"

    def __init__(self, kube: Kube) -> None:
        self._kube = kube
        self._addresses = (f"10.{a}.{b}.{c}" for a in range(64, 128) for b in range(256) for c in range(1, 255))
        self._held: set[tuple[str, str | None]] = set()
        self._refusing: set[tuple[str, str]] = set()
        self._ends: dict[tuple[str, str], tuple[int, str]] = {}
        self._stop = threading.Event()
        self._renewed = 0.0

    def end(self, namespace: str, load_test: str, code: int, words: str) -> None:
        """End the pods of this load test, once they run, with this exit code and termination message."""
        self._ends[namespace, load_test] = code, words

    def hold(self, namespace: str, component: str | None) -> None:
        self._held.add((namespace, component))

    def release(self, namespace: str, component: str) -> None:
        self._held.discard((namespace, component))

    def refuse(self, namespace: str, component: str) -> None:
        self._refusing.add((namespace, component))

    def run(self) -> None:
        conditions = [{"type": "Ready", "status": "True"}]
        node = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": self.NODE},
            "status": {"conditions": conditions},
        }
        self._kube.call("POST", "/api/v1/nodes", node)
        while not self._stop.wait(0.1):
            if time.monotonic() - self._renewed > 5:
                self._heartbeat()
            for pod in self._kube.call("GET", "/api/v1/pods")["items"]:
                self._attend(pod)

    def stop(self) -> None:
        self._stop.set()

    def _heartbeat(self) -> None:
        """The node lifecycle controller evicts the pods of a node that does not renew its Lease."""
        now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        lease = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self.NODE},
            "spec": {"holderIdentity": self.NODE, "leaseDurationSeconds": 40, "renewTime": now},
        }
        path = f"/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{self.NODE}"
        self._kube.call("PATCH", path, lease, "application/apply-patch+yaml", fieldManager="kubelet")
        self._renewed = time.monotonic()

    def _attend(self, pod: Manifest) -> None:
        metadata, labels = pod["metadata"], pod["metadata"].get("labels", {})
        path = self._kube.path("Pod", metadata["namespace"], metadata["name"])
        if "deletionTimestamp" in metadata:
            due = datetime.fromisoformat(metadata["deletionTimestamp"])
            begun = due - timedelta(seconds=metadata.get("deletionGracePeriodSeconds", 0))
            if datetime.now(UTC) - begun > timedelta(seconds=1):
                self._send("DELETE", path, {"gracePeriodSeconds": 0})
        elif (
            pod["status"]["phase"] == "Pending" and (metadata["namespace"], labels.get(SERVICE_LABEL)) not in self._held
        ):
            target = {"apiVersion": "v1", "kind": "Node", "name": self.NODE}
            self._send("POST", path + "/binding", {"metadata": {"name": metadata["name"]}, "target": target})
            if LOADTEST_LABEL in labels:
                self._report(path, done=False, state={"running": {}})
            elif (metadata["namespace"], labels.get(SERVICE_LABEL)) in self._refusing:
                ended = {"name": "migrate", "state": {"terminated": {"exitCode": MIGRATION_REFUSED}}}
                self._send("PATCH", path + "/status", {"status": {"phase": "Failed", "containerStatuses": [ended]}})
            else:
                self._report(path, done="batch.kubernetes.io/job-name" in labels)
        elif pod["status"]["phase"] == "Running" and (
            end := self._ends.get((metadata["namespace"], labels.get(LOADTEST_LABEL)))
        ):
            ended = {"name": "loadtest", "state": {"terminated": {"exitCode": end[0], "message": end[1]}}}
            phase = "Failed" if end[0] else "Succeeded"
            self._send("PATCH", path + "/status", {"status": {"phase": phase, "containerStatuses": [ended]}})

    def _report(self, path: str, *, done: bool, state: Manifest | None = None) -> None:
        ready = [{"type": "Ready", "status": "True"}]
        status: dict[str, Any] = {"phase": "Succeeded"} if done else {"phase": "Running", "conditions": ready}
        if state:
            status["containerStatuses"] = [{"name": "loadtest", "state": state}]
        address = next(self._addresses)
        hosts = {"hostIP": self.ADDRESS, "hostIPs": [{"ip": self.ADDRESS}]}
        self._send(
            "PATCH", path + "/status", {"status": status | hosts | {"podIP": address, "podIPs": [{"ip": address}]}}
        )

    def _send(self, method: str, path: str, body: Any) -> None:
        """A pod may be gone or changed by now, its namespace about to go: then the next round sees."""
        headers = {"Content-Type": "application/merge-patch+json" if method == "PATCH" else "application/json"}
        answer = self._kube.client.request(method, path, json=body, headers=headers)
        overtaken = answer.status_code in {404, 409} or '"NamespaceTerminating"' in answer.text
        assert answer.status_code < 300 or overtaken, answer.text


@pytest.fixture(scope="session")
def kubelet(kubeconfig: Path, kube: Kube) -> Iterator[Kubelet]:
    own = Kube(kubeconfig)
    kubelet = Kubelet(own)
    thread = threading.Thread(target=kubelet.run, name="kubelet")
    thread.start()
    yield kubelet
    kubelet.stop()
    thread.join(10)
    own.client.close()


class Masters:
    """Those of load tests: what their runs ask for, and what they were last told of it."""

    def __init__(self) -> None:
        self.wishes: list[Wish] = []
        self.told: list[Act] = []

    async def cancel(self, _: str) -> bool:
        return True

    async def acts(self, _: str, done: Sequence[Act]) -> list[Wish]:
        self.told = list(done)
        return list(self.wishes)


class Running:
    """An operator in a thread of its own. Gateways acknowledge whatever snapshot is newest.

    `figures` are what the masters of load tests tell of their run.
    `waiting` says how many messages wait for a group of workers, and how many seconds: nothing, unless set. Of a group
    for which it is None no pod answers. `answered` says how many requests each gateway answered, by status. `ahead` is
    an epoch that gateways use already. `namespace` is the only one it serves.
    """

    def __init__(self, namespace: str | None = None) -> None:
        self.waiting: dict[str, tuple[int, float] | None] = {}
        self.answered: dict[str, int] = {}
        self.figures: list[Sample] = []
        self.ahead = -1
        images = Images("registry.test/fanfold", "0.1.0")
        options = Options(images=images, namespace=namespace, admin_port=0, admin_service="operator.test.svc")
        self.masters = Masters()
        self.operator = Operator(options, self._ask, self._measure, self.masters)
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="operator")

    def __enter__(self) -> Self:
        self._thread.start()
        assert self.operator.ready.wait(30), "the operator did not start"
        return self

    def __exit__(self, *_: object) -> None:
        self.operator.stop()
        self._thread.join(20)
        assert not self._thread.is_alive(), "the operator did not stop"

    async def _run(self) -> None:
        await self.operator.run()
        # Cancelled watches leave TLS connections that say goodbye for up to 30 s: the command just ends, a loop warns.
        for transport in list(asyncio.get_running_loop()._transports.values()):  # type: ignore[attr-defined]
            transport.abort()
        await asyncio.sleep(0)  # the round in which they are closed

    async def _measure(self, targets: Iterable[str], _: Collection[str]) -> list[Scrape]:
        samples = [Sample(REQUESTS, {"status": status}, count) for status, count in self.answered.items()]
        samples += self.figures
        for component in COMPONENTS:
            if told := self.waiting.get(component.name, (0, 0.0)):
                label = {"group": component.name}
                samples += [Sample(backlog.MESSAGES, label, told[0]), Sample(backlog.OLDEST, label, told[1])]
        return [Scrape(target, tuple(samples)) for target in targets]

    async def _ask(self, gateway: str) -> int:
        store, (host, _, _) = self.operator.store, gateway.rpartition(":")
        for key in store.keys(ENDPOINT_SLICE):
            part = store.get(key) or {}
            if any(host in one["addresses"] for one in part.get("endpoints") or ()):
                name = f"{part['metadata']['labels'][PLATFORM_LABEL]}-snapshot"
                snapshot = store.get(Key(CONFIG_MAP.kind, key.namespace, name)) or {}
                epoch = decode(snapshot["data"][SNAPSHOT_KEY]).epoch if "data" in snapshot else -1
                return max(epoch, self.ahead)
        return -1


@pytest.fixture
def start_operator(kubeconfig: Path, recorded: list[tuple[str, str]]) -> Callable[..., Running]:
    """For tests that stop and start it; the others use `operator`."""
    return Running


@pytest.fixture(scope="module")
def operator(kube: Kube, recorded: list[tuple[str, str]]) -> Iterator[Running]:
    with Running() as running:
        yield running


@pytest.fixture(scope="session")
def recorded() -> Iterator[list[tuple[str, str]]]:
    """Verb and path of every call that operators in this process make."""
    calls: list[tuple[str, str]] = []
    call = Api._call

    async def record(self: Api, method: str, path: str, *rest: Any, **named: Any) -> Manifest:
        calls.append((method, path))
        return await call(self, method, path, *rest, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Api, "_call", record)
        yield calls


@pytest.fixture
def nudge(kube: Kube, namespace: str) -> Callable[[str, str], None]:
    """Change a custom resource so that it is reconciled, and nothing else of it."""

    def annotate(kind: str, name: str) -> None:
        kube.patch(kind, namespace, name, {"metadata": {"annotations": {"nudge": secrets.token_hex(4)}}})

    return annotate


@pytest.fixture
def settle(recorded: list[tuple[str, str]], namespace: str) -> Callable[[], Counter[str]]:
    """Wait until the operator has made no call in this namespace for 1.5 s; its calls there so far, by verb."""

    def count() -> Counter[str]:
        return Counter(verb for verb, path in recorded if f"/namespaces/{namespace}/" in path)

    def wait() -> Counter[str]:
        before, since = count(), time.monotonic()
        deadline = since + 60
        while time.monotonic() - since < 1.5:
            assert time.monotonic() < deadline, "the operator does not come to rest"
            time.sleep(0.1)
            now = count()
            if now != before:
                before, since = now, time.monotonic()
        return before

    return wait


@pytest.fixture
def make_platform(kube: Kube, namespace: str) -> Callable[..., Manifest]:
    """Apply a Platform of this name, or of other spec."""

    def make(name: str = "demo", **spec: Any) -> Manifest:
        body = {"apiVersion": "fanfold.dev/v1alpha1", "kind": "Platform", "metadata": {"name": name}, "spec": spec}
        return kube.apply(body, namespace)

    return make


@pytest.fixture
def condition(kube: Kube, namespace: str) -> Callable[..., Manifest]:
    """A condition of a custom resource as it is now; empty if it has none."""

    def read(kind: str, name: str = "demo", resource: str = "Platform") -> Manifest:
        conditions = (kube.get(resource, namespace, name) or {}).get("status", {}).get("conditions", [])
        return next((one for one in conditions if one["type"] == kind), {})

    return read


@pytest.fixture
def ready(kube: Kube, namespace: str, make_platform: Any, condition: Any, eventually: Any) -> Callable[..., None]:
    """Apply the Platform `demo` and wait until it is Ready."""

    def wait(**spec: Any) -> None:
        make_platform(**spec)
        try:
            eventually(lambda: condition("Ready").get("status") == "True", 180)
        except AssertionError as error:
            pytest.fail(f"not Ready: {(kube.get('Platform', namespace, 'demo') or {}).get('status')}; {error}")

    return wait
