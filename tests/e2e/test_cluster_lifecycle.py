"""The native cluster: it runs what any Kubernetes runs, survives what machines do to it, and leaves no trace."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import subprocess
import tarfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.waiting import until

ROOT = Path(__file__).parents[2]
BINARY = ROOT / ".build" / "bin" / "fanfold-cluster"
NAME = "lifecycle-test"
IMAGE = "localhost/fanfold-probe:test"
NOBODY = 65534
# An image build beside the test mounts what it likes; that is not the cluster's.
FOREIGN_MOUNTS = "/var/lib/containers/"

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(600),
    pytest.mark.skipif(os.geteuid() != 0, reason="the native cluster needs root: namespaces, mounts and cgroups"),
]


def run(*words: str | Path, seconds: float = 60, check: bool = True) -> subprocess.CompletedProcess[str]:
    """A command's result; a failure shows what it printed."""
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=seconds, check=False)
    if check:
        assert done.returncode == 0, f"{words} exited {done.returncode}:\n{done.stdout}{done.stderr}"
    return done


@dataclass
class Cluster:
    """The cluster of these tests; nobody else's commands touch it."""

    state: Path

    def call(self, verb: str, *arguments: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        return run(BINARY, verb, "--name", NAME, *arguments, seconds=300, check=check)

    def up(self) -> None:
        self.call("up", "--state", self.state)

    def kubectl(self, *arguments: str | Path, seconds: float = 60, check: bool = True) -> str:
        config = self.call("kubeconfig").stdout.strip()
        return run(BINARY, "kubectl", "--kubeconfig", config, *arguments, seconds=seconds, check=check).stdout

    def apply(self, *objects: dict[str, object]) -> None:
        manifest = self.state / "manifest.json"
        manifest.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))
        self.kubectl("apply", "-f", manifest)

    def processes(self) -> dict[int, str]:
        """Command by pid of every process that carries the cluster's mark."""
        mark = f"FANFOLD_CLUSTER_OWNER=cluster:{NAME}".encode()
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if mark in (folder / "environ").read_bytes().split(b"\0"):
                    found[int(folder.name)] = (folder / "comm").read_text().strip()
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue  # it ended meanwhile, or it is the machine's own
        return found


def traces() -> set[str]:
    """What a cluster could leave behind on this machine, outside its state folder."""
    found = {f"interface {path.name}" for path in Path("/sys/class/net").iterdir()}
    found |= {f"route {line}" for line in Path("/proc/net/route").read_text().splitlines()}
    for table in ("iptables-save", "iptables-legacy-save"):
        rules = run(table).stdout.splitlines()
        found |= {f"{table} {line.partition('[')[0]}" for line in rules if not line.startswith("#")}
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    found |= {f"mount {path}" for path in mounts if not path.startswith(FOREIGN_MOUNTS)}
    found |= {f"cgroup {path}" for path in Path("/sys/fs/cgroup").glob("*/") if path.is_dir()}
    found |= {f"cgroup {path}" for path in Path("/sys/fs/cgroup").glob("*/*/") if path.is_dir()}
    for folder in (
        "/run",
        "/run/netns",
        "/run/fanfold-cluster",
        "/var/lib",
        "/var/lib/cni",
        "/var/log",
        "/opt",
        "/etc",
    ):
        found |= {f"file {path}" for path in Path(folder).glob("*")}
    return found


def assert_no_new_traces(cluster: Cluster, before: set[str]) -> None:
    assert cluster.processes() == {}
    assert traces() - before == set()


def probe_archive(folder: Path) -> Path:
    """A docker archive of the probe, alone in its image."""
    program = folder / "probe"
    environment = {**os.environ, "CGO_ENABLED": "0"}
    words = ["go", "build", "-buildvcs=false", "-trimpath", "-o", str(program), "./cmd/fanfold-probe"]
    subprocess.run(words, cwd=ROOT / "cluster", env=environment, check=True, timeout=300)

    def pack(files: dict[str, bytes]) -> bytes:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            for name, data in files.items():
                entry = tarfile.TarInfo(name)
                entry.size, entry.mode = len(data), 0o755
                archive.addfile(entry, io.BytesIO(data))
        return buffer.getvalue()

    layer = pack({"probe": program.read_bytes()})
    config = {
        "architecture": "amd64" if os.uname().machine == "x86_64" else "arm64",
        "os": "linux",
        "config": {"Entrypoint": ["/probe"], "User": str(NOBODY)},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [IMAGE], "Layers": ["layer.tar"]}]
    files = {"manifest.json": json.dumps(manifest).encode(), "config.json": json.dumps(config).encode()}
    path = folder / "probe.tar"
    path.write_bytes(pack({**files, "layer.tar": layer}))
    return path


@pytest.fixture(scope="module")
def before() -> set[str]:
    """The machine as it was before these tests."""
    run(ROOT / "cluster" / "build.sh", seconds=1800)
    run(BINARY, "down", "--name", NAME, "--purge", seconds=120)
    return traces()


@pytest.fixture(scope="module")
def cluster(before: set[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The cluster, running, with the probe's image loaded."""
    del before  # only to come first
    folder = tmp_path_factory.mktemp("cluster")
    cluster = Cluster(folder / "state")
    cluster.up()
    try:
        cluster.call("load", probe_archive(folder))
        yield cluster
    finally:
        cluster.call("down", "--purge")


def pod(*command: str, volumes: dict[str, str] | None = None) -> dict[str, object]:
    """A pod's spec that runs the probe as an unprivileged user; ``volumes`` are claims by mount path."""
    claims = {f"volume-{i}": (path, claim) for i, (path, claim) in enumerate((volumes or {}).items())}
    return {
        "securityContext": {"runAsNonRoot": True, "runAsUser": NOBODY},
        "terminationGracePeriodSeconds": 1,
        "volumes": [{"name": n, "persistentVolumeClaim": {"claimName": claim}} for n, (_, claim) in claims.items()],
        "containers": [
            {
                "name": "probe",
                "image": IMAGE,
                "imagePullPolicy": "Never",
                "args": list(command),
                "volumeMounts": [{"name": n, "mountPath": path} for n, (path, _) in claims.items()],
            }
        ],
    }


@pytest.fixture(scope="module")
def web(cluster: Cluster) -> Cluster:
    """Two pods that serve, behind a Service with a node port, and a claim that both pods write to."""
    labels = {"app": "web"}
    spec = pod("serve", ":8000", volumes={"/data": "data"})
    cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "data"},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}},
        },
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "web"},
            "spec": {
                "replicas": 2,
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": spec},
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "web"},
            "spec": {"type": "NodePort", "selector": labels, "ports": [{"port": 80, "targetPort": 8000}]},
        },
    )
    cluster.kubectl("rollout", "status", "deployment/web", "--timeout=60s", seconds=90)
    return cluster


def execute(cluster: Cluster, *command: str) -> str:
    return cluster.kubectl("exec", "deployment/web", "--", "/probe", *command)


def test_pods_reach_a_service_by_its_name(web: Cluster) -> None:
    answered = {execute(web, "get", "http://web.default.svc.cluster.local/").split()[0] for _ in range(20)}
    names = web.kubectl("get", "pods", "-l", "app=web", "-o", "jsonpath={.items[*].metadata.name}").split()
    assert answered == set(names)


def test_pods_find_the_api_server_and_are_told_at_once_what_does_not_exist(web: Cluster) -> None:
    assert execute(web, "resolve", "kubernetes.default").split() == ["10.96.0.1"]
    started = time.monotonic()
    missing = web.kubectl("exec", "deployment/web", "--", "/probe", "resolve", "example.com", check=False)
    assert missing == ""
    assert time.monotonic() - started < 9, "no answer would be waited for twice, 5 s each"


def test_a_node_port_answers_on_this_machine(web: Cluster) -> None:
    port = web.kubectl("get", "service", "web", "-o", "jsonpath={.spec.ports[0].nodePort}")
    node = web.kubectl("get", "nodes", "-o", "jsonpath={.items[0].status.addresses[?(@.type=='InternalIP')].address}")
    assert node in web.call("status").stdout
    with urllib.request.urlopen(f"http://{node}:{port}/", timeout=10) as answer:
        assert answer.read().startswith(b"web-")


def test_pods_are_reached_from_this_machine_and_see_its_true_address(web: Cluster) -> None:
    address = web.kubectl("get", "pods", "-l", "app=web", "-o", "jsonpath={.items[0].status.podIP}")
    host = web.kubectl("get", "endpoints", "kubernetes", "-o", "jsonpath={.subsets[0].addresses[0].ip}")
    with urllib.request.urlopen(f"http://{address}:8000/", timeout=10) as answer:
        assert answer.read().decode().split()[1] == host


def test_a_claim_is_bound_and_written_by_a_user_without_rights(web: Cluster) -> None:
    execute(web, "write", "/data/note", "kept")
    assert execute(web, "read", "/data/note") == "kept"
    assert web.kubectl("get", "pvc", "data", "-o", "jsonpath={.status.phase} {.spec.storageClassName}") == (
        "Bound local-path"
    )


def test_resource_use_is_measured(web: Cluster) -> None:
    until(lambda: "web-" in web.kubectl("top", "pods", "--no-headers", check=False), "a measure of its pods")


def test_a_deleted_claim_takes_its_data_along(web: Cluster) -> None:
    web.apply(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "brief"},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}},
        },
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "brief"},
            "spec": {**pod("write", "/data/x", "y", volumes={"/data": "brief"}), "restartPolicy": "Never"},
        },
    )
    web.kubectl("wait", "pod/brief", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=60s", seconds=90)
    volume = web.kubectl("get", "pvc", "brief", "-o", "jsonpath={.spec.volumeName}")
    folder = next(web.state.glob(f"nodes/*/var/lib/fanfold-volumes/{volume}"))
    assert (folder / "x").read_text() == "y"
    web.kubectl("delete", "pod/brief", "pvc/brief", "--timeout=60s", seconds=90)
    until(lambda: not folder.exists(), "the end of the volume's folder")


def test_starting_a_running_cluster_changes_nothing(web: Cluster) -> None:
    running = web.processes()
    web.up()
    assert {pid: web.processes().get(pid) for pid in running} == running


def test_a_second_state_folder_for_a_running_cluster_is_refused(web: Cluster, tmp_path: Path) -> None:
    refused = web.call("up", "--state", tmp_path, check=False)
    assert refused.returncode == 1
    assert str(web.state) in refused.stderr


def test_a_program_that_dies_is_started_again(web: Cluster) -> None:
    scheduler = next(pid for pid, command in web.processes().items() if command == "kube-scheduler")
    os.kill(scheduler, signal.SIGKILL)
    until(lambda: "kube-scheduler" in web.processes().values(), "another scheduler")
    until(lambda: web.call("status", check=False).returncode == 0, "a sound cluster")


def test_a_stopped_cluster_leaves_no_trace_and_starts_again_with_its_data(web: Cluster, before: set[str]) -> None:
    execute(web, "write", "/data/note", "outlives a stop")
    web.call("down")
    assert_no_new_traces(web, before)
    assert web.call("status", "--state", web.state, check=False).returncode == 3
    web.up()
    web.kubectl("rollout", "status", "deployment/web", "--timeout=60s", seconds=90)
    until(lambda: web.call("status", check=False).returncode == 0, "a sound cluster")
    until(lambda: execute(web, "read", "/data/note") == "outlives a stop", "the data of before")


def kill_everything(cluster: Cluster) -> None:
    for pid in cluster.processes():
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue  # it died with its parent
    until(lambda: not cluster.processes(), "the end of its processes")


def test_a_killed_cluster_starts_again(web: Cluster) -> None:
    kill_everything(web)
    web.up()
    until(lambda: execute(web, "read", "/data/note") == "outlives a stop", "the data of before")


def test_a_killed_cluster_can_be_removed_without_a_trace(web: Cluster, before: set[str]) -> None:
    kill_everything(web)
    web.call("down", "--purge")
    assert_no_new_traces(web, before)
    assert not web.state.exists()


def test_a_start_that_was_cut_short_can_be_cleaned_up(cluster: Cluster, before: set[str]) -> None:
    with subprocess.Popen(
        [BINARY, "up", "--name", NAME, "--state", cluster.state], stdout=subprocess.PIPE, text=True
    ) as starting:
        assert starting.stdout
        assert any("kube-apiserver" in line for line in starting.stdout)
        starting.kill()
    cluster.call("down", "--purge")
    assert_no_new_traces(cluster, before)


def test_bad_names_are_refused_with_the_rule(tmp_path: Path) -> None:
    refused = run(BINARY, "up", "--name", "No_Such-", "--state", tmp_path, check=False)
    assert refused.returncode == 1
    assert "lower-case letters" in refused.stderr


def test_a_folder_that_is_no_clusters_state_is_never_removed(tmp_path: Path) -> None:
    (tmp_path / "precious").touch()
    refused = run(BINARY, "down", "--name", "never-was", "--state", tmp_path, "--purge", check=False)
    assert refused.returncode == 1
    assert (tmp_path / "precious").exists()
