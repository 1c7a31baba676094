"""`kubectl fanfold` against a real API server, an operator that runs, and pods that are played."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from fanfold.contracts.components import BY_NAME
from fanfold.contracts.snapshot import SNAPSHOT_KEY, decode
from tests.integration.operator.kube import made_namespace
from tests.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400), pytest.mark.usefixtures("operator", "kubelet")]

ROOT = Path(__file__).parents[3]
USER = "0197b2c0-0000-7000-8000-000000000001"
DEMO = {"apiVersion": "fanfold.dev/v1alpha1", "kind": "Platform", "metadata": {"name": "demo"}, "spec": {}}
ROUNDS = 4
Result = subprocess.CompletedProcess[str]
Fanfold = Callable[..., Result]


@pytest.fixture(scope="module")
def namespace(kube: Any) -> Iterator[str]:
    """One for all tests here that look at a Platform which is Ready; the others have one of their own."""
    with made_namespace(kube) as name:
        yield name


@pytest.fixture
def alone(kube: Any) -> Iterator[str]:
    with made_namespace(kube) as name:
        yield name


@pytest.fixture(scope="module")
def platform(kube: Any, namespace: str, operator: Any, kubelet: Any) -> None:
    kube.apply(DEMO, namespace)


@pytest.fixture
def well(platform: None, condition: Any, informed: Any) -> None:
    """The Platform `demo`, ready and not paused."""
    until(
        lambda: (condition("Ready").get("status"), condition("Paused").get("status")) == ("True", "False"), seconds=180
    )
    informed()


@pytest.fixture
def fanfold(kubeconfig: Path, namespace: str) -> Fanfold:
    """The command in the namespace of all, unless it names another."""

    def call(*words: str, program: str = "kubectl-fanfold", config: Path = kubeconfig) -> Result:
        path = shutil.which(program)
        assert path, f"{program} is not installed: uv sync"
        environment = {**os.environ, "KUBECONFIG": str(config)}
        place = [] if {"-A", "-n"} & set(words) else ["-n", namespace]
        arguments = [path, *words, *place] if program == "kubectl-fanfold" else [path, *words]
        return subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=60, check=False)

    return call


@pytest.fixture
def restricted(kube: Any, kubeconfig: Path, namespace: str, tmp_path: Path) -> Callable[[list[dict[str, Any]]], Path]:
    """A kubeconfig of somebody with these rights in the namespace and no others."""

    def make(rules: list[dict[str, Any]]) -> Path:
        api = "rbac.authorization.k8s.io"
        kube.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "viewer"}}, namespace)
        head = {"apiVersion": f"{api}/v1", "metadata": {"name": "viewer"}}
        kube.apply({**head, "kind": "Role", "rules": rules}, namespace)
        subject = {"kind": "ServiceAccount", "name": "viewer", "namespace": namespace}
        reference = {"apiGroup": api, "kind": "Role", "name": "viewer"}
        kube.apply({**head, "kind": "RoleBinding", "roleRef": reference, "subjects": [subject]}, namespace)
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": []}}
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/viewer/token"
        token = kube.call("POST", path, request)["status"]["token"]
        loaded = yaml.safe_load(kubeconfig.read_text())
        loaded["users"][0]["user"] = {"token": token}
        file = tmp_path / "viewer.kubeconfig"
        file.write_text(yaml.safe_dump(loaded))
        return file

    return make


def sample_rules(subcommand: str) -> list[dict[str, Any]]:
    """The rules that docs/cli.md gives for a subcommand."""
    documents = (ROOT / "docs" / "cli.md").read_text().split("```yaml\n")[1:]
    loaded = [yaml.safe_load(text.partition("```")[0]) for text in documents]
    roles = {one["metadata"]["name"]: one["rules"] for one in loaded if one.get("kind") == "Role"}
    rules: list[dict[str, Any]] = roles[f"fanfold-{subcommand}"]
    return rules


@pytest.mark.usefixtures("well")
def test_status_shows_the_tree_and_that_it_is_well(fanfold: Fanfold, namespace: str) -> None:
    text = until(lambda: (answer := fanfold("status", "demo")).returncode == 0 and answer.stdout)
    assert text.startswith(f"● {namespace}/demo  11/11 ready")
    assert "acked 2/2" in text
    assert text.count("✓") == 14, "eleven services and three stores"
    assert "migrations" not in text
    tree = json.loads(fanfold("status", "demo", "-o", "json").stdout)["platforms"][0]
    assert {one["name"] for one in tree["services"] if one["kind"] == "service"} == set(BY_NAME)
    assert all(pod["state"] == "Ready" for one in tree["services"] for pod in one["pods"])


def test_status_says_what_waits_and_that_it_is_not_well(kube: Any, kubelet: Any, fanfold: Fanfold, alone: str) -> None:
    def status() -> dict[str, str]:
        conditions = kube.get("Platform", alone, "demo").get("status", {}).get("conditions", [])
        return {one["type"]: one["status"] for one in conditions}

    kubelet.hold(alone, "postgresql")
    kube.apply(DEMO, alone)
    until(lambda: status().get("CacheReady") == "True" and kube.get("Pod", alone, "demo-postgresql-0"))
    answer = fanfold("status", "-n", alone)
    kubelet.release(alone, "postgresql")
    assert answer.returncode == 1
    assert answer.stdout.startswith(f"▲ {alone}/demo  0/11 ready  no version serves yet")
    assert "✗ DatabaseReady PodNotReady" in answer.stdout
    assert "✗ MigrationsComplete Waiting" in answer.stdout
    assert "demo-postgresql-0  Starting" in answer.stdout


@pytest.mark.usefixtures("well")
def test_reading_writes_nothing(kube: Any, fanfold: Fanfold, namespace: str, settle: Any) -> None:
    settle()

    def versions() -> set[tuple[str, str, str]]:
        kinds = ("Platform", "PlatformService", "HashRing", "ConfigMap", "Pod", "Deployment", "Secret")
        listed = [(kind, one["metadata"]) for kind in kinds for one in kube.list(kind, namespace)]
        return {(kind, head["name"], head["resourceVersion"]) for kind, head in listed}

    def read_all() -> None:
        for words in (
            ["status"],
            ["status", "-o", "json"],
            ["ring", "--user", USER],
            ["logs"],
            ["top", "--interval", "0.5"],
        ):
            fanfold(*words)

    # The operator may still write something late on a busy machine: what reads cause, they cause every time.
    for _ in range(ROUNDS):
        before = versions()
        read_all()
        if (after := versions()) == before:
            return
    assert after == before


@pytest.mark.usefixtures("well")
def test_ring_shows_the_gateways_own_snapshot_and_where_a_user_lands(
    kube: Any, fanfold: Fanfold, namespace: str
) -> None:
    answer = fanfold("ring", "demo", "--user", USER, "-o", "json")
    assert answer.returncode == 0, answer.stderr
    shown = json.loads(answer.stdout)
    snapshot = decode(kube.get("ConfigMap", namespace, "demo-snapshot")["data"][SNAPSHOT_KEY])
    assert (shown["epoch"], shown["checksum"]) == (snapshot.epoch, snapshot.checksum)
    feed = next(one for one in shown["services"] if one["service"] == "feed")
    assert sum(slot["share"] for slot in feed["slots"]) == pytest.approx(1)
    pods = {pod["status"]["podIP"]: pod["metadata"]["name"] for pod in kube.list("Pod", namespace)}
    assert {slot["pod"] for slot in feed["slots"]} == {
        pods[slot.address.rpartition(":")[0]] for slot in snapshot.services["feed"]
    }
    assert {landing["service"] for landing in shown["landings"]} == set(snapshot.services)
    assert "verified" in fanfold("ring").stdout
    assert "no service 'fed'" in fanfold("ring", "-s", "fed").stderr


@pytest.mark.usefixtures("well")
def test_pause_is_acknowledged_by_the_operator_and_taken_back_by_resume(
    kube: Any, fanfold: Fanfold, namespace: str, condition: Any
) -> None:
    answer = fanfold("pause", "demo")
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout == f"platform {namespace}/demo paused: nothing but its ring is changed\n"
    assert condition("Paused")["status"] == "True"
    annotated = kube.get("Platform", namespace, "demo")["metadata"]
    owners = {one["manager"] for one in annotated["managedFields"] if "fanfold.dev/paused" in json.dumps(one)}
    assert owners == {"kubectl-fanfold"}
    assert "already" in fanfold("pause").stdout
    assert "paused: nothing but the ring" in fanfold("status").stdout
    assert fanfold("resume").stdout == f"platform {namespace}/demo resumed: the operator works on it again\n"
    assert condition("Paused")["status"] == "False"
    assert "annotations" not in kube.get("Platform", namespace, "demo")["metadata"]


def test_what_is_not_there_is_refused_with_names_that_are(kube: Any, fanfold: Fanfold, alone: str) -> None:
    place = ("-n", alone)
    answer = fanfold("status", *place)
    assert (answer.returncode, answer.stdout) == (2, "")
    assert f"there is no Platform in namespace {alone}" in answer.stderr
    kube.apply(DEMO, alone)
    answer = fanfold("ring", "dmo", *place)
    assert answer.returncode == 2
    assert f"there is no Platform 'dmo' in namespace {alone}: did you mean demo?" in answer.stderr
    kube.apply({**DEMO, "metadata": {"name": "other"}}, alone)
    answer = fanfold("pause", *place)
    assert answer.returncode == 2
    assert f"there are several Platforms ({alone}/demo, {alone}/other)" in answer.stderr


@pytest.mark.usefixtures("well")
def test_pods_that_have_no_logs_or_metrics_to_give_say_so(fanfold: Fanfold) -> None:
    """The played node answers no call: what the API server says of that is passed on, and nothing fails by it."""
    answer = fanfold("top", "--interval", "0.5", "-o", "json")
    assert answer.returncode == 0, answer.stderr
    loads = json.loads(answer.stdout)["services"]
    assert [one["name"] for one in loads] == list(BY_NAME)
    assert all(one["problem"] and one["rate"] is None for one in loads)
    assert "there are no pods of service fed of platform demo" in fanfold("logs", "-s", "fed").stderr


@pytest.fixture
def called_with(fanfold: Fanfold, restricted: Any) -> Callable[..., Result]:
    """Call with these rights until it ends so: the API server takes up rules a moment after they are written."""

    def call(rules: list[dict[str, Any]], code: int, said: str, *words: str) -> Result:
        answers: list[Result] = []

        def ended() -> bool:
            answers.append(fanfold(*words, config=config))
            return answers[-1].returncode == code and said in answers[-1].stderr

        config = restricted(rules)
        try:
            until(ended)
        except AssertionError as error:
            pytest.fail(f"{error}: {answers[-1]}")
        return answers[-1]

    return call


@pytest.mark.usefixtures("well")
@pytest.mark.parametrize("subcommand", ["status", "ring"])
def test_the_role_in_the_docs_is_enough_and_each_of_its_rules_is_needed(called_with: Any, subcommand: str) -> None:
    rules = sample_rules(subcommand)
    called_with(rules, 0, "", subcommand, "demo")
    for left_out in rules:
        told = f'resource "{left_out["resources"][0]}"'
        answer = called_with([rule for rule in rules if rule is not left_out], 2, told, subcommand, "demo")
        assert answer.stderr.count("\n") == 1


@pytest.mark.usefixtures("well")
def test_the_role_for_pausing_is_enough(fanfold: Fanfold, called_with: Any) -> None:
    called_with(sample_rules("pause"), 0, "", "pause", "demo")
    try:
        called_with(sample_rules("ring"), 2, 'cannot patch resource "platforms"', "resume", "demo")
    finally:
        fanfold("resume", "demo")


def test_kubectl_completes_names_of_platforms(kube: Any, fanfold: Fanfold, alone: str) -> None:
    kube.apply(DEMO, alone)
    kube.apply({**DEMO, "metadata": {"name": "other"}}, alone)

    def completions() -> list[str]:
        """It asks the cluster for two seconds at most: on a busy machine that may be too short once."""
        words = ["status", "-n", alone, ""]
        return fanfold(*words, program="kubectl_complete-fanfold").stdout.split()

    until(lambda: completions() == ["demo", "other", ":4"], seconds=60)
