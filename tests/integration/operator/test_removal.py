"""Who removes what: Platforms without an operator, the chart's hook, operators of one namespace each."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from fanfold.contracts.resources import PLATFORM_LABEL
from fanfold.contracts.snapshot import SNAPSHOT_KEY, decode
from tests.integration.operator.kube import made_namespace
from tests.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400), pytest.mark.usefixtures("kubelet")]

ROOT = Path(__file__).parents[3]
COMMAND = [sys.executable, "-c", "from fanfold_operator.cli import main; main()", "delete-platforms"]
GONE_SECONDS = 120
CHILDREN = (
    "PlatformService", "HashRing", "StatefulSet", "Job", "Deployment", "Service", "ConfigMap", "NetworkPolicy",
    "ServiceAccount", "PodDisruptionBudget", "HorizontalPodAutoscaler", "Role", "RoleBinding", "Pod",
)  # fmt: skip


def left(kube: Any, namespace: str, *more: str) -> list[str]:
    """What is there of a Platform, of these kinds too."""
    return [
        f"{kind}/{one['metadata']['name']}"
        for kind in (*CHILDREN, *more)
        for one in kube.call("GET", kube.path(kind, namespace), labelSelector=PLATFORM_LABEL)["items"]
    ]


@pytest.fixture
def namespaces(kube: Any) -> Iterator[list[str]]:
    with made_namespace(kube) as one, made_namespace(kube) as two, made_namespace(kube) as three:
        yield [one, two, three]


def test_nothing_hangs_though_stores_secret_and_operator_are_gone(
    start_operator: Any, ready: Any, kube: Any, namespace: str, settle: Any
) -> None:
    with start_operator():
        ready(deletionPolicy="Delete")
        owned = [one for kind in CHILDREN for one in kube.list(kind, namespace)] + kube.list("Platform", namespace)
        foreign = {name for one in owned for name in one["metadata"].get("finalizers", ())}
        assert not {name for name in foreign if "kubernetes.io" not in name}, "none of ours that somebody has to remove"
    for store in ("postgresql", "valkey", "objectstore"):
        kube.delete("StatefulSet", namespace, f"demo-{store}")
    kube.delete("Secret", namespace, "demo-credentials")
    kube.delete("Platform", namespace, "demo")
    until(lambda: not left(kube, namespace, "Platform", "PersistentVolumeClaim"), seconds=GONE_SECONDS)
    before = settle()
    with start_operator():
        assert set(settle() - before) <= {"GET"}, "and nothing comes back"


@pytest.fixture
def uninstall(kube: Any, namespace: str, tmp_path: Path, kubeconfig: Path) -> Callable[..., Any]:
    """Run the command of the chart's hook with exactly the rights it has there."""
    subprocess.run([ROOT / "tools" / "install-helm.sh"], check=True, timeout=900)
    helm = [str(ROOT / ".build" / "bin" / "helm"), "template", "r", str(ROOT / "charts" / "fanfold")]
    options = ["--namespace", namespace, "--set", "namespaced=true,uninstall.platforms=Delete"]
    shown = ["--show-only", "templates/uninstall.yaml"]
    answer = subprocess.run([*helm, *options, *shown], capture_output=True, text=True, check=True, timeout=60)
    manifests = {one["kind"]: one for one in yaml.safe_load_all(answer.stdout)}
    for kind in ("ServiceAccount", "Role", "RoleBinding"):
        kube.apply(manifests[kind], namespace)
    name = manifests["Job"]["spec"]["template"]["spec"]["serviceAccountName"]
    token = kube.call("POST", kube.path("ServiceAccount", namespace, name) + "/token", {"spec": {}})
    config = yaml.safe_load(kubeconfig.read_text())
    config["users"][0]["user"] = {"token": token["status"]["token"]}
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    (container,) = manifests["Job"]["spec"]["template"]["spec"]["containers"]
    assert container["args"][0] == COMMAND[-1]

    def run(*arguments: str) -> Any:
        words = [*COMMAND, *container["args"][1:], *arguments]
        environment = {**os.environ, "KUBECONFIG": str(path)}
        return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=300, check=False)

    return run


def test_the_charts_hook_waits_until_platforms_are_gone_and_keeps_their_data(
    start_operator: Any, ready: Any, make_platform: Any, kube: Any, namespace: str, uninstall: Any
) -> None:
    with start_operator():
        ready()
        make_platform("other", database={"external": {"secretRef": {"name": "pg", "key": "url"}}})
        answer = uninstall()
    assert (answer.returncode, answer.stdout.splitlines()[-1]) == (0, "2 Platforms are gone"), answer.stderr
    assert left(kube, namespace, "Platform") == [], "at the moment it ended"
    assert len(kube.list("PersistentVolumeClaim", namespace)) >= 3
    assert kube.get("Secret", namespace, "demo-credentials")


def test_the_hook_names_what_somebody_else_holds_on_to(
    make_platform: Any, kube: Any, namespace: str, uninstall: Any
) -> None:
    make_platform()
    kube.patch("Platform", namespace, "demo", {"metadata": {"finalizers": ["backup.test/wait"]}})
    answer = uninstall("--seconds=3")
    assert answer.returncode == 1
    assert f"{namespace}/demo (waits for finalizers that are not ours: backup.test/wait)" in answer.stderr
    kube.patch("Platform", namespace, "demo", {"metadata": {"finalizers": None}})
    assert uninstall().stdout.splitlines()[-1].endswith("Platforms are gone")


def test_operators_of_one_namespace_each_and_platforms_of_one_name_do_not_touch_each_other(
    start_operator: Any, kube: Any, namespaces: list[str], recorded: list[tuple[str, str]]
) -> None:
    one, two, nobodys = namespaces
    body = {"apiVersion": "fanfold.dev/v1alpha1", "kind": "Platform", "metadata": {"name": "demo"}, "spec": {}}
    for name in namespaces:
        kube.apply(body, name)

    def is_ready(name: str) -> bool:
        conditions = kube.get("Platform", name, "demo").get("status", {}).get("conditions", [])
        return any(found["type"] == "Ready" and found["status"] == "True" for found in conditions)

    def addresses(name: str) -> set[str]:
        snapshot = decode(kube.get("ConfigMap", name, "demo-snapshot")["data"][SNAPSHOT_KEY])
        return {slot.address for slots in snapshot.services.values() for slot in slots}

    def generations(name: str) -> dict[str, tuple[str, int]]:
        kinds = ("PlatformService", "Deployment", "StatefulSet", "NetworkPolicy", "PodDisruptionBudget")
        found = [(kind, one["metadata"]) for kind in kinds for one in kube.list(kind, name)]
        return {f"{kind}/{one['name']}": (one["uid"], one["generation"]) for kind, one in found}

    begun = len(recorded)
    with start_operator(namespace=one), start_operator(namespace=two):
        until(lambda: is_ready(one) and is_ready(two), seconds=180)
        assert not addresses(one) & addresses(two)
        before = generations(two)
        kube.delete("Platform", one, "demo")
        until(lambda: not left(kube, one), seconds=GONE_SECONDS)
        assert generations(two) == before
        assert is_ready(two)
    elsewhere = [
        path
        for _, path in recorded[begun:]
        if not any(f"/namespaces/{mine}" in path for mine in (one, two)) and len(path.strip("/").split("/")) > 3
    ]
    assert elsewhere == [], "it asks for nothing outside of its namespace but which APIs there are"
    assert "status" not in kube.get("Platform", nobodys, "demo")
    assert left(kube, nobodys) == []
    with start_operator():
        until(lambda: is_ready(nobodys), seconds=180)
        assert generations(two) == before, "one for all namespaces finds it as it is wanted"
