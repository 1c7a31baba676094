"""The operator stopped and started again, and with no more rights than its chart gives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from fanfold.contracts.snapshot import SNAPSHOT_KEY, decode
from tests.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400), pytest.mark.usefixtures("kubelet")]

ROOT = Path(__file__).parents[3]
COMMAND = [sys.executable, "-c", "from fanfold_operator.cli import main; main()", "run", "--admin-port", "0"]


def test_a_restart_changes_nothing(start_operator: Any, ready: Any, informed: Any, settle: Any, costs: Any) -> None:
    with start_operator():
        ready()
        informed()

    def live_again() -> None:
        with start_operator():
            settle()

    costs(live_again, lambda calls: set(calls) == {"GET"})


def test_pods_replaced_while_the_operator_was_away_inherit_their_slots(
    start_operator: Any, ready: Any, kube: Any, namespace: str
) -> None:
    def slots() -> dict[str, str]:
        snapshot = decode(kube.get("ConfigMap", namespace, "demo-snapshot")["data"][SNAPSHOT_KEY])
        return {slot.slot: slot.address for slot in snapshot.services["feed"] if slot.state == "active"}

    def feeds() -> list[Any]:
        selector = {"labelSelector": "fanfold.dev/service=feed"}
        pods: list[Any] = kube.call("GET", kube.path("Pod", namespace), **selector)["items"]
        return pods

    with start_operator():
        ready()
        until(lambda: len(slots()) == 2)
    before = slots()
    lost = next(pod for pod in feeds() if f"{pod['status'].get('podIP')}:8000" == before["feed-0"])
    kube.delete("Pod", namespace, lost["metadata"]["name"])

    def replaced() -> bool:
        pods = feeds()
        gone = lost["metadata"]["uid"] not in {pod["metadata"]["uid"] for pod in pods}
        return gone and len(pods) == 2 and all(pod["status"]["phase"] == "Running" for pod in pods)

    until(replaced)
    assert slots() == before
    with start_operator():
        until(lambda: slots().get("feed-0") not in {before["feed-0"], None})
        after = slots()
    assert set(after) == {"feed-0", "feed-1"}
    assert after["feed-1"] == before["feed-1"]


def test_gateways_that_know_a_newer_epoch_are_overtaken(
    start_operator: Any, ready: Any, kube: Any, namespace: str
) -> None:
    """The cluster was restored from a backup, the gateways were not: they would take the ring for old news for ever."""
    with start_operator():
        ready()
    again = start_operator()
    again.ahead = 1000

    def synced() -> bool:
        snapshot = decode(kube.get("ConfigMap", namespace, "demo-snapshot")["data"][SNAPSHOT_KEY])
        status = kube.get("HashRing", namespace, "demo")["status"]
        return snapshot.epoch > again.ahead and (status["epoch"], status["acked"]) == (snapshot.epoch, "2/2")

    with again:
        until(synced)


@pytest.fixture
def chart_identity(kube: Any, namespace: str, tmp_path: Path, kubeconfig: Path) -> Callable[..., Path]:
    """A kubeconfig of the ServiceAccount that the chart makes, with the rights it is given there."""

    def make(*settings: str) -> Path:
        subprocess.run([ROOT / "tools" / "install-helm.sh"], check=True, timeout=900)
        helm = [str(ROOT / ".build" / "bin" / "helm"), "template", f"r-{namespace}", str(ROOT / "charts" / "fanfold")]
        options = [word for setting in settings for word in ("--set", setting)]
        rendered = subprocess.run(
            [*helm, "--namespace", namespace, *options], capture_output=True, text=True, check=True, timeout=60
        )
        documents = [one for one in yaml.safe_load_all(rendered.stdout) if one]
        for one in documents:
            if one["kind"] in {"ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"}:
                kube.apply(one, namespace)
        name = next(one["metadata"]["name"] for one in documents if one["kind"] == "ServiceAccount")
        for group, resource, verb in (
            ("fanfold.dev", "platforms", "list"),
            ("coordination.k8s.io", "leases", "create"),
        ):
            until(partial(may, kube, namespace, name, group, resource, verb))
        token = kube.call("POST", kube.path("ServiceAccount", namespace, name) + "/token", {"spec": {}})
        config = yaml.safe_load(kubeconfig.read_text())
        config["users"][0]["user"] = {"token": token["status"]["token"]}
        path = tmp_path / "kubeconfig"
        path.write_text(yaml.safe_dump(config))
        return path

    return make


def may(kube: Any, namespace: str, account: str, group: str, resource: str, verb: str) -> bool:
    """Whether the API server knows of a right already: it takes up rules a moment after they are written."""
    attributes = {"namespace": namespace, "group": group, "resource": resource, "verb": verb}
    spec = {"user": f"system:serviceaccount:{namespace}:{account}", "resourceAttributes": attributes}
    review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
    answer = kube.call("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", review)
    return bool(answer["status"]["allowed"])


@contextmanager
def running(kubeconfig: Path, log: Path, lease: tuple[str, str], *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    environment = {**os.environ, "KUBECONFIG": str(kubeconfig)}
    environment |= {"FANFOLD_OPERATOR_LEASE_NAMESPACE": lease[0], "FANFOLD_OPERATOR_LEASE_NAME": lease[1]}
    with (
        log.open("wb") as output,
        subprocess.Popen([*COMMAND, *arguments], env=environment, stdout=output, stderr=output) as process,
    ):
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0


@pytest.mark.parametrize("mode", [[], ["--namespace"]], ids=["cluster", "namespace"])
def test_the_charts_rights_suffice(
    mode: list[str],
    chart_identity: Callable[..., Path],
    make_platform: Any,
    kube: Any,
    kubelet: Any,
    namespace: str,
    condition: Any,
    tmp_path: Path,
) -> None:
    kubeconfig = chart_identity(*(["namespaced=true"] if mode else []))
    log = tmp_path / "operator.log"
    lease = (namespace, f"r-{namespace}-operator")
    with running(kubeconfig, log, lease, *mode, *([namespace] if mode else ["--all-namespaces"])):
        make_platform()
        until(lambda: condition("ServicesReady").get("status") == "True", seconds=180)
        until(lambda: "url" in kube.get("Platform", namespace, "demo")["status"])
        kube.delete("Deployment", namespace, "demo-post")
        until(lambda: kube.get("Deployment", namespace, "demo-post"))
        kube.patch("Platform", namespace, "demo", {"spec": {"services": {"post": {"replicas": {"min": 1, "max": 1}}}}})
        until(lambda: kube.get("HorizontalPodAutoscaler", namespace, "demo-post") is None)
        spec = {"url": "http://feed.test", "report": {"summaryOnly": True}, "ttlSecondsAfterFinished": 0}
        kubelet.end(namespace, "run", 0, '{"verdict": "passed"}')
        head = {"apiVersion": "fanfold.dev/v1alpha1", "kind": "LoadTest", "metadata": {"name": "run"}}
        kube.apply({**head, "spec": {**spec, "scenario": {"name": "browse"}}}, namespace)
        until(lambda: kube.get("LoadTest", namespace, "run") is None)
    text = log.read_text()
    assert "forbidden: user" not in text.lower(), "what a namespace that ends forbids is no lack of rights"
    password = kube.get("Secret", namespace, "demo-credentials")["data"]["database_password"]
    assert password not in text


def test_without_rights_it_says_so_and_ends(kube: Any, kubeconfig: Path, namespace: str, tmp_path: Path) -> None:
    kube.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "nobody"}}, namespace)
    token = kube.call("POST", kube.path("ServiceAccount", namespace, "nobody") + "/token", {"spec": {}})
    config = yaml.safe_load(kubeconfig.read_text())
    config["users"][0]["user"] = {"token": token["status"]["token"]}
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    environment = {**os.environ, "KUBECONFIG": str(path)}
    answer = subprocess.run(COMMAND, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert answer.returncode == 1
    assert "the API server refused: platforms.fanfold.dev is forbidden" in answer.stderr
