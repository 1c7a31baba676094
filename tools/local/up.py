"""``make up``: from nothing to a photo feed that somebody has used."""

from __future__ import annotations

import json
import os
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from tools.local import images
from tools.local.clusters import Cluster, Current, Kubectl
from tools.local.images import Image, Memory
from tools.progress import ROOT, StageError, Stages, command, say

NAMESPACE: Final = "fanfold"
RELEASE: Final = "fanfold"
PLATFORM: Final = "demo"
EXAMPLE: Final = ROOT / "examples" / "platform-demo.yaml"
READY_SECONDS: Final = 420
ROLL_SECONDS: Final = 420
STEPS: Final = ("DatabaseReady", "CacheReady", "ObjectStoreReady", "MigrationsComplete", "ServicesReady", "RingSynced")
LINE: Final = 110


def up(cluster: Cluster) -> None:
    """Build, start, install, apply, and use it.

    Raises:
        StageError: A stage failed.
    """
    say(f"cluster: {cluster.why}")
    stages = Stages(6)
    kubectl, changed = install(cluster, stages)
    stages.run("apply the Platform, wait until it is Ready", lambda: _apply(kubectl, changed))
    url = gateway_url(kubectl)
    report = ROOT / ".build" / "reports" / "demo.json"
    report.parent.mkdir(parents=True, exist_ok=True)
    stages.run("use it: people, follows, photos, likes, feeds", lambda: _journey(url, report))
    summary(kubectl, url)
    say(f"up in {sum(stages.seconds.values()):.0f} s")


def install(cluster: Cluster, stages: Stages) -> tuple[Kubectl, list[Image]]:
    """The first four stages: a cluster with the operator on it, and the images that were new to it.

    Raises:
        StageError: A stage failed.
    """
    stages.run("build the cluster and the images", lambda: _build(cluster))
    stages.run("start the cluster", cluster.start)
    kubectl = Kubectl(cluster.environment(), NAMESPACE)
    changed: list[Image] = []
    stages.run("load the images", lambda: _load(cluster, kubectl, changed))
    stages.run("install the operator (helm)", lambda: _install(kubectl, changed))
    return kubectl, changed


def _build(cluster: Cluster) -> str:
    """The cluster's binary, helm and the images, side by side: one waits for the network while the other compiles."""

    def helm() -> None:
        command("install-helm", [ROOT / "tools" / "install-helm.sh"], seconds=900)

    with ThreadPoolExecutor() as pool:
        for job in [pool.submit(work) for work in (cluster.build, images.build, helm)]:
            job.result()
    return ", ".join(f"{image.name} {image.archive.stat().st_size / 1e6:.0f} MB" for image in images.built())


def _load(cluster: Cluster, kubectl: Kubectl, changed: list[Image]) -> str:
    """Load what the nodes have not; ``changed`` is filled with it."""
    memory = Memory(cluster.name)
    changed += images.missing(images.built(), memory.read(), kubectl.get("nodes"))
    if changed:
        cluster.load([image.archive for image in changed])
        memory.add(changed)
    return f"{len(changed)} of {len(images.NEEDED)} were not there"


def _install(kubectl: Kubectl, changed: list[Image]) -> str:
    values = []
    if "IMAGE_REPOSITORY" in os.environ:
        values = ["--set", f"image.repository={os.environ['IMAGE_REPOSITORY']}"]
    kubectl.helm(
        "upgrade", "--install", RELEASE, ROOT / "charts" / "fanfold", "--create-namespace", "--wait",
        "--timeout=180s", *values, seconds=240,
    )  # fmt: skip
    if any(image.name == "fanfold-operator" for image in changed):
        _restart(kubectl, f"deployment/{RELEASE}-operator")
    return "release fanfold in namespace fanfold"


def _restart(kubectl: Kubectl, *what: str) -> None:
    """Roll what runs an image whose contents changed under the same tag."""
    kubectl.run("rollout", "restart", *what)
    kubectl.run("rollout", "status", *what, f"--timeout={ROLL_SECONDS}s", seconds=ROLL_SECONDS + 20)


def _apply(kubectl: Kubectl, changed: list[Image]) -> str:
    started = time.monotonic()
    selector = f"--selector=fanfold.dev/platform={PLATFORM},fanfold.dev/service"
    if any(image.name == images.SERVICES for image in changed) and kubectl.get("deployments", selector)["items"]:
        _restart(kubectl, "deployment", selector)
    kubectl.run("apply", "--server-side", "--filename", EXAMPLE)
    seen: dict[str, str] = {}
    while time.monotonic() - started < READY_SECONDS:
        conditions = _conditions(kubectl)
        for kind, condition in conditions.items():
            line = f"{condition['status']} {condition.get('reason', '')}: {condition.get('message', '')}"
            if seen.get(kind) != line and (kind == "Ready" or (kind in STEPS and condition["status"] == "True")):
                say(f"    {time.monotonic() - started:5.1f} s  {kind}={_shortened(line)}")
            seen[kind] = line
        if conditions.get("Ready", {}).get("status") == "True":
            return f"Ready {time.monotonic() - started:.1f} s after apply"
        time.sleep(0.5)
    last = seen.get("Ready", "no condition yet, is the operator up?")
    raise StageError(
        f"the Platform is not Ready after {READY_SECONDS} s: {last}\n"
        f"look at: kubectl -n {NAMESPACE} describe platform {PLATFORM}; "
        f"kubectl -n {NAMESPACE} get pods; kubectl -n {NAMESPACE} logs deploy/{RELEASE}-operator"
    )


def _shortened(line: str) -> str:
    return line if len(line) <= LINE else line[: LINE - 1] + "…"


def _conditions(kubectl: Kubectl) -> dict[str, Any]:
    platform: Any = kubectl.get("platform", PLATFORM)
    return {condition["type"]: condition for condition in platform.get("status", {}).get("conditions", [])}


def gateway_url(kubectl: Kubectl) -> str:
    """Where the gateway can be reached from here, as the Platform's status says.

    Raises:
        StageError: The status has no URL.
    """
    platform: Any = kubectl.get("platform", PLATFORM)
    url = platform.get("status", {}).get("url", "")
    if not url:
        raise StageError(
            f"the Platform's status has no url; spec.gateway.exposure must be reachable from here: {EXAMPLE}"
        )
    return str(url)


def _journey(url: str, report: Path) -> str:
    command("demo", ["fanfold-loadtest", "demo", "--url", url, "--json", str(report)], seconds=420)
    return str(report.relative_to(ROOT))


def summary(kubectl: Kubectl, url: str) -> None:
    """Print what was made and how to go on."""
    say()
    say(kubectl.run("get", "platforms,platformservices,hashrings", "--output=wide").rstrip())
    say()
    log = ROOT / ".build" / "logs" / "demo.log"
    say(log.read_text().rstrip())
    say()
    say(f"  gateway   {url}   (docs: {url}/docs)")
    say(f"  kubectl   export KUBECONFIG={kubectl.environment.get('KUBECONFIG', '')} && kubectl -n {NAMESPACE} get fp")
    say(f"  metrics   kubectl -n {NAMESPACE} port-forward service/{PLATFORM}-prometheus 9090")
    say(f"  load      make loadtest-image && kubectl -n {NAMESPACE} apply -f examples/loadtest.yaml")


def down(cluster: Cluster) -> None:
    """Remove the platform, the operator and, if it is ours, the cluster.

    Raises:
        StageError: A stage failed.
    """
    purge = os.environ.get("PURGE", "") not in {"", "0"}
    stages = Stages(2 if isinstance(cluster, Current) else 1)
    if isinstance(cluster, Current):
        kubectl = Kubectl(cluster.environment(), NAMESPACE)
        stages.run("delete the platform and the operator", lambda: _uninstall(kubectl))
    stages.run("stop the cluster", lambda: cluster.stop(purge=purge))


def _uninstall(kubectl: Kubectl) -> None:
    kubectl.run("delete", "platforms", "--all", "--ignore-not-found", "--wait", "--timeout=120s", seconds=150)
    kubectl.helm("uninstall", RELEASE, "--ignore-not-found", "--wait")
    kubectl.run("delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=120s", seconds=150)


def loadtest_image(cluster: Cluster) -> None:
    """Make the load generator's image available to the nodes, for LoadTests: `make up` does without its size.

    Raises:
        StageError: A stage failed.
    """
    stages, names = Stages(2), (images.LOADTEST,)
    stages.run("build the load generator's image", lambda: images.build(names))
    stages.run("load it", lambda: cluster.load([image.archive for image in images.built(names)]))


def status(cluster: Cluster) -> None:
    """Print the platform's resources."""
    kubectl = Kubectl(cluster.environment(), NAMESPACE)
    say(kubectl.run("get", "platforms,platformservices,hashrings,pods", "--output=wide").rstrip())


def series_per_pod(kubectl: Kubectl) -> dict[str, int]:
    """What the embedded Prometheus took at its last scrape, by component, of the pod that has most.

    Raises:
        StageError: There is none, or it does not answer.
    """
    service = f"/api/v1/namespaces/{NAMESPACE}/services/{PLATFORM}-prometheus:9090"
    query = quote("max by (component) (scrape_samples_scraped)")
    answer = json.loads(kubectl.run("get", "--raw", f"{service}/proxy/api/v1/query?query={query}"))
    return {one["metric"]["component"]: int(one["value"][1]) for one in answer["data"]["result"]}


def figures(cluster: Cluster) -> None:
    """Print memory and series by pod, image sizes, and the feed read time that the demo measured."""
    kubectl = Kubectl(cluster.environment(), NAMESPACE)
    say(kubectl.run("top", "pods", "--all-namespaces").rstrip())
    say()
    for component, series in sorted(series_per_pod(kubectl).items()):
        say(f"{series:8,} series of one pod of {component}")
    say()
    for image in images.built():
        say(f"{image.archive.stat().st_size / 1e6:8.1f} MB  {image.reference}")
    say()
    subprocess.run(  # noqa: S603 - our own command, its output is for the user
        ["fanfold-loadtest", "demo", "--url", gateway_url(kubectl)],  # noqa: S607 - from the workspace
        check=False,
        timeout=600,
    )
