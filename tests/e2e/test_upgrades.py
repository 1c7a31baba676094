"""Versions come and go under people who go on using the platform, and not one of their requests fails."""

from __future__ import annotations

import json
import subprocess
from functools import partial
from typing import Any

import pytest

from tests.e2e import waiting
from tests.e2e.conftest import CLUSTER
from tests.e2e.traffic import Traffic
from tests.e2e.waiting import exists
from tools.local import images
from tools.local.clusters import Kubectl
from tools.local.up import PLATFORM, RELEASE, gateway_url
from tools.progress import ROOT, say

until = partial(waiting.until, seconds=420)

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

NEXT, BROKEN = "next", "broken"
SOCKET = f"/run/fanfold-cluster/{CLUSTER}/{CLUSTER}-1/containerd/containerd.sock"


def containerd(*arguments: str) -> None:
    """Change which images the node has."""
    words = ["ctr", "--address", SOCKET, "--namespace", "k8s.io", "images", *arguments]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def tagged(reference: str, version: str) -> str:
    return f"{reference.rpartition(':')[0]}:{version}"


@pytest.fixture(scope="module")
def references(deployed: Kubectl) -> dict[str, str]:
    """Our images on the node by name; each is also there as version `next`, the services' as `broken` too."""
    found = {image.name: image.reference for image in images.built()}
    for reference in found.values():
        containerd("tag", "--force", reference, tagged(reference, NEXT))
    containerd("tag", "--force", found[images.SERVICES], tagged(found[images.SERVICES], BROKEN))
    return found


def want(kubectl: Kubectl, version: str, **rules: int) -> None:
    spec = {"spec": {"version": version, "upgrade": rules}}
    kubectl.run("patch", "platform", PLATFORM, "--type=merge", f"--patch={json.dumps(spec)}")


def status(kubectl: Kubectl) -> Any:
    platform: Any = kubectl.get("platform", PLATFORM)
    return platform["status"]


def phase(kubectl: Kubectl) -> str:
    return str(status(kubectl).get("upgrade", {}).get("phase"))


def conditions(kubectl: Kubectl) -> dict[str, Any]:
    return {one["type"]: one for one in status(kubectl)["conditions"]}


def services(kubectl: Kubectl) -> set[str]:
    """Versions that the services' pods are made from; the platform's own Prometheus is none of them."""
    answer: Any = kubectl.get("deployments", f"--selector=fanfold.dev/platform={PLATFORM}")
    found = [one["spec"]["template"]["spec"]["containers"][0]["image"].rpartition(":") for one in answer["items"]]
    return {version for name, _, version in found if name.endswith(f"/{images.SERVICES}")}


def test_a_version_that_does_not_start_is_taken_back_and_nobody_notices(
    deployed: Kubectl, references: dict[str, str]
) -> None:
    until(lambda: conditions(deployed).get("UpToDate", {}).get("status") == "True", "the first version all over")
    before = services(deployed)
    with Traffic(gateway_url(deployed)) as traffic:
        want(deployed, BROKEN, progressDeadlineSeconds=20, soakSeconds=1)
        until(lambda: phase(deployed) == "Rolling", "the migrations' end")
        containerd("rm", tagged(references[images.SERVICES], BROKEN))
        seconds = until(lambda: phase(deployed) == "RolledBack", "the way back")
        report = traffic.stop()
    told = conditions(deployed)
    say(f"rolled back in {seconds:.0f} s: {dict(report.answered)}, {len(report.failed)} failed")
    assert not report.failed, report.failures()
    assert services(deployed) == before
    assert (told["Degraded"]["status"], told["Degraded"]["reason"]) == ("True", "RolledBack")
    until(lambda: conditions(deployed)["Ready"]["status"] == "True", "readiness", seconds=60)
    events = ("get", "events", "--field-selector=reason=RolledBack")
    until(lambda: f"platform/{PLATFORM}" in deployed.run(*events), "an Event that tells why", seconds=60)


def test_an_upgrade_fails_no_request(deployed: Kubectl, references: dict[str, str]) -> None:
    with Traffic(gateway_url(deployed)) as traffic:
        want(deployed, NEXT, progressDeadlineSeconds=300, soakSeconds=1)
        seconds = until(lambda: phase(deployed) == "Completed", "every service at the next version")
        report = traffic.stop()
    say(f"upgraded in {seconds:.0f} s: {dict(report.answered)}, {len(report.failed)} failed")
    assert sum(report.answered.values()) > 50
    assert not report.failed, report.failures()
    assert not traffic.lost(30)
    assert services(deployed) == {NEXT}
    assert status(deployed)["version"] == NEXT
    assert conditions(deployed)["Degraded"]["status"] == "False"


def test_an_upgrade_of_the_operator_fails_no_request_and_touches_no_pod(
    deployed: Kubectl, references: dict[str, str]
) -> None:
    def pods() -> set[str]:
        """Stores' pods, and what the others are made from: an autoscaler may add some."""
        answer: Any = deployed.get("pods", f"--selector=fanfold.dev/platform={PLATFORM},fanfold.dev/service")
        running = [one["metadata"] for one in answer["items"] if one["status"]["phase"] == "Running"]
        staying = [one for one in running if "deletionTimestamp" not in one]
        return {one["labels"].get("pod-template-hash", one["uid"]) for one in staying}

    budget = f"poddisruptionbudget/{PLATFORM}-feed"

    before = pods()
    with Traffic(gateway_url(deployed)) as traffic:
        deployed.helm(
            "upgrade", RELEASE, ROOT / "charts" / "fanfold", "--reuse-values", f"--set=image.tag={NEXT}", "--wait",
            "--timeout=240s", seconds=300,
        )  # fmt: skip
        deployed.run("delete", budget)
        seconds = until(lambda: exists(deployed, budget), "what was deleted, put back by the new operator", seconds=120)
        report = traffic.stop()
    say(f"operator upgraded, {seconds:.1f} s to a repair: {dict(report.answered)}, {len(report.failed)} failed")
    assert not report.failed, report.failures()
    assert pods() == before
    until(lambda: _leader(deployed).endswith(f":{NEXT}"), "a leader of the next version", seconds=120)


def _leader(kubectl: Kubectl) -> str:
    """Image of the operator that writes."""
    lease: Any = kubectl.get("lease", f"{RELEASE}-operator")
    pods: Any = kubectl.get("pods", "--selector=app.kubernetes.io/component=operator")
    holder = lease["spec"]["holderIdentity"]
    images_of = {one["metadata"]["name"]: one["spec"]["containers"][0]["image"] for one in pods["items"]}
    return next((image for name, image in images_of.items() if holder.startswith(name)), "")
