"""Where the platform can run: the native cluster, kind, or the kubeconfig's current context."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from tools.progress import ROOT, StageError, command

NAME: Final = "fanfold"
BINARY: Final = ROOT / ".build" / "bin" / "fanfold-cluster"


class Cluster(Protocol):
    """One kind of Kubernetes. `why` is the sentence that says why it was chosen, `name` tells it from others."""

    why: str
    name: str

    def build(self) -> None:
        """Build what the cluster itself needs."""

    def start(self) -> str:
        """Start it, or find it running; a note for the user."""

    def load(self, archives: list[Path]) -> None:
        """Make images available to its nodes."""

    def environment(self) -> dict[str, str]:
        """Environment in which kubectl and helm reach it."""

    def stop(self, *, purge: bool) -> None:
        """Stop it, if it is ours to stop."""


@dataclass
class Native:
    """The cluster of this repository: Kubernetes from Go modules, without Docker. Several may run, each by its name.

    `nodes`: how many a new cluster gets, 1 to 4; empty: as it was, else 1.
    """

    why: str
    name: str = field(default_factory=lambda: os.environ.get("CLUSTER_NAME", NAME))
    nodes: str = field(default_factory=lambda: os.environ.get("NODES", ""))

    def build(self) -> None:
        command("build-cluster", [ROOT / "cluster" / "build.sh"], seconds=1800)
        command("cluster-packages", [ROOT / "cluster" / "install-deps.sh"], seconds=600)

    def start(self) -> str:
        size = ["--nodes", self.nodes] if self.nodes else []
        return self._run("up", *size, seconds=180 + 60 * len(size)).strip().splitlines()[-1]

    def load(self, archives: list[Path]) -> None:
        self._run("load", *archives, seconds=300)

    def environment(self) -> dict[str, str]:
        return {**os.environ, "KUBECONFIG": self._run("kubeconfig", seconds=10).strip()}

    def stop_node(self, node: str) -> None:
        """End a node as a power cut does."""
        self._run("node", "stop", node, seconds=30)

    def start_node(self, node: str) -> None:
        """Start it again, until pods can run on it."""
        self._run("node", "start", node, seconds=180)

    def stop(self, *, purge: bool) -> None:
        self._run("down", *(["--purge"] if purge else []), seconds=180)

    def _run(self, verb: str, *arguments: str | Path, seconds: float) -> str:
        words = [BINARY, verb, *arguments, "--name", self.name]
        return command(f"{self.name}-{verb}", words, seconds=seconds)


@dataclass
class Kind:
    """kind on Docker."""

    why: str
    name: str = NAME

    def build(self) -> None:
        """Nothing: kind brings its node image."""

    def start(self) -> str:
        clusters = command("kind-clusters", ["kind", "get", "clusters"], seconds=60).split()
        if self.name in clusters:
            return "found the kind cluster running"
        command("kind-up", ["kind", "create", "cluster", "--name", self.name, "--wait", "180s"], seconds=600)
        return "created the kind cluster"

    def load(self, archives: list[Path]) -> None:
        for archive in archives:
            command("kind-load", ["kind", "load", "image-archive", archive, "--name", self.name], seconds=300)

    def environment(self) -> dict[str, str]:
        path = ROOT / ".build" / "kind.kubeconfig"
        path.write_text(command("kind-kubeconfig", ["kind", "get", "kubeconfig", "--name", self.name], seconds=60))
        path.chmod(0o600)
        return {**os.environ, "KUBECONFIG": str(path)}

    def stop(self, *, purge: bool) -> None:
        del purge  # a kind cluster keeps nothing
        command("kind-down", ["kind", "delete", "cluster", "--name", self.name], seconds=300)


@dataclass
class Current:
    """The current context: its nodes must be able to pull the images (IMAGE_REPOSITORY), or have them already."""

    why: str
    name: str = "current"

    def build(self) -> None:
        """Nothing: the cluster is somebody else's."""

    def start(self) -> str:
        command("current-context", ["kubectl", "get", "--raw", "/readyz"], seconds=30)
        return "the API server answers"

    def load(self, archives: list[Path]) -> None:
        del archives
        if "IMAGE_REPOSITORY" not in os.environ:
            raise StageError(
                "CLUSTER=current: push the images where the cluster can pull them and say where, e.g.\n"
                "  IMAGE_REPOSITORY=registry.example.com/fanfold make up CLUSTER=current\n"
                "(IMAGE_REPOSITORY=localhost/fanfold if the nodes have them already)"
            )

    def environment(self) -> dict[str, str]:
        return dict(os.environ)

    def stop(self, *, purge: bool) -> None:
        """Somebody else's cluster goes on running."""


def choose() -> Cluster:
    """By ``CLUSTER``, else kind where Docker and kind are there, else the native one.

    The current context is never taken unasked: it could be anybody's production.

    Raises:
        StageError: ``CLUSTER`` names no kind of cluster.
    """
    asked = os.environ.get("CLUSTER", "")
    kinds: dict[str, type[Native | Kind | Current]] = {"native": Native, "kind": Kind, "current": Current}
    if asked:
        if asked not in kinds:
            raise StageError(f"CLUSTER={asked}: choose one of {', '.join(kinds)}")
        return kinds[asked](why=f"{asked}, as CLUSTER says")
    if shutil.which("kind") and _docker_answers():
        return Kind(why="kind, since Docker answers and kind is installed (CLUSTER=native|current for another)")
    return Native(why="native, since no Docker engine with kind answers (CLUSTER=kind|current for another)")


def _docker_answers() -> bool:
    docker = shutil.which("docker")
    if docker is None:
        return False
    try:
        answer = subprocess.run([docker, "info"], capture_output=True, timeout=10, check=False)  # noqa: S603 - found on PATH
    except subprocess.TimeoutExpired:
        return False
    return answer.returncode == 0


class Kubectl:
    """kubectl and helm against one cluster."""

    def __init__(self, environment: dict[str, str], namespace: str) -> None:
        self.environment = environment
        self.namespace = namespace

    def run(self, *arguments: str | Path, seconds: float = 60, name: str = "kubectl") -> str:
        """Output of one kubectl command.

        Raises:
            StageError: It failed.
        """
        words = ["kubectl", "--namespace", self.namespace, *arguments]
        return command(name, words, seconds=seconds, env=self.environment)

    def get(self, *arguments: str) -> dict[str, object]:
        """One object, or a list of them, as JSON."""
        answer: dict[str, object] = json.loads(self.run("get", *arguments, "--output=json"))
        return answer

    def helm(self, *arguments: str | Path, seconds: float = 120) -> str:
        """Output of one helm command."""
        words = ["helm", "--namespace", self.namespace, *arguments]
        return command("helm", words, seconds=seconds, env=self.environment)
