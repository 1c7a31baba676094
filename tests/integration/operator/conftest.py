"""A real kube-apiserver with a real controller manager, and an operator that runs against it.

There is no node: `kubelet` plays one and reports every pod as running, with an address, and Jobs' pods as done. So
Deployments, EndpointSlices and garbage collection are Kubernetes' own.
"""

from __future__ import annotations

import os
import secrets
import select
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

import pytest
import yaml

from fanfold.contracts.components import COMPONENTS
from fanfold.contracts.resources import PLATFORM_LABEL
from fanfold.contracts.snapshot import SNAPSHOT_KEY, decode
from fanfold_operator import error_rate, load_runs, reconcile, reconcile_loadtest
from fanfold_operator.api import Api
from fanfold_operator.autoscale import backlog, scaler
from fanfold_operator.error_rate import REQUESTS
from fanfold_operator.kinds import CONFIG_MAP, ENDPOINT_SLICE, Key
from fanfold_operator.operator import Operator, Options
from fanfold_operator.planning.actions import Images
from fanfold_operator.planning.acts import Act, Wish
from fanfold_operator.scrape import Sample, Scrape
from tests.integration.operator.kube import Kube, Manifest, made_namespace
from tests.integration.operator.kubelet import Kubelet
from tests.integration.operator.loops import complete
from tests.waiting import until

ROOT = Path(__file__).parents[3]
BINARY = ROOT / ".build" / "bin" / "fanfold-cluster"
START_SECONDS = 120
WAIT_SECONDS = 60
"""Most that something takes which is done in a moment, or in a few seconds, on a quiet machine."""
REST_SECONDS = 120


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
def kube(kubeconfig: Path) -> Iterator[Kube]:
    """The API server, with the custom resource definitions established."""
    kube = Kube(kubeconfig)

    def served(path: str) -> bool:
        return kube.client.get(path).status_code == 200

    for file in sorted((ROOT / "crds").glob("*.yaml")):
        definition = yaml.safe_load(file.read_text())
        kube.apply(definition)
        path = f"/apis/fanfold.dev/v1alpha1/{definition['spec']['names']['plural']}"
        until(partial(served, path))
    yield kube
    kube.client.close()


@pytest.fixture
def namespace(kube: Kube) -> Iterator[str]:
    """One of the test's own."""
    with made_namespace(kube) as name:
        yield name


@pytest.fixture(scope="session")
def kubelet(kubeconfig: Path, kube: Kube) -> Iterator[Kubelet]:
    own = Kube(kubeconfig)
    kubelet = Kubelet(own)
    thread = threading.Thread(target=kubelet.run, name="kubelet")
    thread.start()
    yield kubelet
    kubelet.stop()
    thread.join(WAIT_SECONDS)
    own.client.close()


@pytest.fixture(scope="session", autouse=True)
def quick() -> Iterator[None]:
    """What operators of this process look at by the clock they look at more often than in the field.

    Seconds in place of 2 to 15. Who waits for such a look waits less; how long they are is no affair of these tests.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reconcile, "UNREADY_SECONDS", 2.0)
        patch.setattr(reconcile, "UPGRADE_SECONDS", 0.5)
        patch.setattr(reconcile_loadtest, "LOOK_SECONDS", 0.4)
        patch.setattr(load_runs, "LOOK_SECONDS", 0.5)
        patch.setattr(error_rate, "LOOK_SECONDS", 0.5)
        patch.setattr(scaler, "SYNC_SECONDS", 1.0)
        yield


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
        self._thread = threading.Thread(target=lambda: complete(self.operator.run()), name="operator")

    def __enter__(self) -> Self:
        self._thread.start()
        assert self.operator.ready.wait(WAIT_SECONDS), "the operator did not start"
        return self

    def __exit__(self, *_: object) -> None:
        self.operator.stop()
        self._thread.join(WAIT_SECONDS)
        assert not self._thread.is_alive(), "the operator did not stop"

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
def start_operator(kubeconfig: Path, recorded: Calls) -> Callable[..., Running]:
    """For tests that stop and start it; the others use `operator`."""
    return Running


@pytest.fixture(scope="module")
def operator(kube: Kube, recorded: Calls) -> Iterator[Running]:
    with Running() as running:
        yield running


class Calls(list[tuple[str, str]]):
    """Verb and path of every call that operators in this process have made; `under_way`: those without an answer."""

    def __init__(self) -> None:
        super().__init__()
        self.under_way: list[str] = []


@pytest.fixture(scope="session")
def recorded() -> Iterator[Calls]:
    """As operators of this process make them."""
    calls = Calls()
    call = Api._call

    async def record(self: Api, method: str, path: str, *rest: Any, **named: Any) -> Manifest:
        calls.append((method, path))
        calls.under_way.append(path)
        try:
            return await call(self, method, path, *rest, **named)
        finally:
            calls.under_way.remove(path)

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
def settle(recorded: Calls, namespace: str) -> Callable[[], Counter[str]]:
    """Wait until the operator has had no call under way in this namespace for 1.5 s; those so far, by verb."""

    def here(path: str) -> bool:
        return f"/namespaces/{namespace}/" in path

    def count() -> Counter[str]:
        return Counter(verb for verb, path in recorded if here(path))

    def busy() -> bool:
        return any(here(path) for path in list(recorded.under_way))

    def wait() -> Counter[str]:
        before, since = count(), time.monotonic()
        deadline = since + REST_SECONDS
        while time.monotonic() - since < 1.5:
            assert time.monotonic() < deadline, "the operator does not come to rest"
            time.sleep(0.1)
            now = count()
            if now != before or busy():
                before, since = now, time.monotonic()
        return before

    return wait


@pytest.fixture
def costs(settle: Callable[[], Counter[str]]) -> Callable[..., None]:
    """Do something, and see by the operator's calls what it costs. Up to three times, until `wanted` says yes.

    What it causes it causes each time; what a busy machine brings late falls into one of them.
    """

    def check(act: Callable[[], object], wanted: Callable[[Counter[str]], bool]) -> None:
        spent = []
        for _ in range(3):
            before = settle()
            act()
            spent.append(settle() - before)
            if wanted(spent[-1]):
                return
        pytest.fail(f"it costs each time: {spent}")

    return check


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
def ready(kube: Kube, namespace: str, make_platform: Any, condition: Any) -> Callable[..., None]:
    """Apply the Platform `demo` and wait until it is Ready."""

    def wait(**spec: Any) -> None:
        make_platform(**spec)
        try:
            until(lambda: condition("Ready").get("status") == "True", seconds=180)
        except AssertionError as error:
            pytest.fail(f"not Ready: {(kube.get('Platform', namespace, 'demo') or {}).get('status')}; {error}")

    return wait


@pytest.fixture
def informed(condition: Callable[..., Manifest]) -> Callable[[], bool]:
    """Wait until all autoscalers of the Platform `demo` have told what they know, each some time after its service."""

    def told() -> bool:
        names = [f"demo-{component.name}" for component in COMPONENTS]
        reasons = [condition("AutoscalingActive", name, "PlatformService").get("reason") for name in names]
        return not {None, "Waiting"} & set(reasons)

    return lambda: until(told, seconds=90)
