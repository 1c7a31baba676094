"""LoadTests on the native cluster: what they come to, against the platform that the other tests share."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.e2e.test_upgrades import containerd, tagged
from tests.e2e.waiting import until
from tools.local import images
from tools.local.clusters import Kubectl, Native
from tools.local.up import PLATFORM, loadtest_image
from tools.progress import ROOT, say

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200)]

SECONDS = 420
# Closed: on a busy machine an open one may start requests late, and is void then, as it should be.
SCENARIO = """\
name: short
description: A few seconds of reading feeds.
model: closed
people: 5
mix: {feed: 1, post: 0.000001}
phases: [{name: steady, seconds: LENGTH, rate: 2}]
slos: [SLO]
"""
KINDLY = "{kind: latency, request: feed, percentile: 50, at_most_ms: 60000}"
"""Of the good answers: most others are refusals, for a closed loop asks as fast as the machine lets it."""
RUNS: dict[str, dict[str, Any]] = {
    "passes": {"workers": 2, "scenario": {"inline": SCENARIO.replace("LENGTH", "8").replace("SLO", KINDLY)}},
    "fails": {
        "scenario": {"inline": SCENARIO.replace("LENGTH", "5").replace("SLO", KINDLY)},
        "slos": {"inline": "slos: [{kind: latency, percentile: 50, at_most_ms: 0.001}]"},
    },
    "acts": {
        "acts": True,
        "crowd": {"celebrities": [50], "body": 20, "readers": 10},
        "scenario": {
            "inline": SCENARIO.replace("LENGTH", "20")
            .replace("SLO", KINDLY)
            .replace("rate: 2}", "rate: 2, events: [{at: 0, does: restart-pod, service: notification-worker}]}")
        },
    },
    "says-nothing": {
        "scenario": {
            "inline": SCENARIO.replace("LENGTH", "5").replace(
                "SLO", "{kind: latency, request: post, percentile: 99, at_most_ms: 9000}"
            )
        }
    },
    "is-cancelled": {"scenario": {"inline": SCENARIO.replace("LENGTH", "3000").replace("SLO", KINDLY)}},
    "is-wrong": {"scenario": {"inline": SCENARIO.replace("LENGTH", "0").replace("SLO", KINDLY)}},
}


@pytest.fixture(scope="module")
def runs(cluster: Native, deployed: Kubectl) -> Iterator[Kubectl]:
    """All of them at once: each waits most of its time. They are gone when the Platform is deleted."""
    loadtest_image(cluster)
    for name, spec in RUNS.items():
        body = {
            "apiVersion": "fanfold.dev/v1alpha1",
            "kind": "LoadTest",
            "metadata": {"name": name},
            "spec": {"platformRef": {"name": PLATFORM}, "deadlineSeconds": 900, **spec},
        }
        file = ROOT / ".build" / f"loadtest-{name}.json"
        file.write_text(json.dumps(body))
        deployed.run("apply", "--filename", file)
    yield deployed
    deployed.run("delete", "loadtests", "--all", "--timeout=120s", seconds=150)


@pytest.fixture
def ended(runs: Kubectl) -> Callable[[str, str], Any]:
    """The status of a LoadTest when it is in this phase."""

    def read(name: str) -> Any:
        test: Any = runs.get("loadtest", name)
        return test.get("status", {})

    def wait(name: str, phase: str) -> Any:
        over = {phase, "Finished", "Cancelled", "Failed"}
        seconds = until(lambda: read(name).get("phase") in over, f"{name}: {phase}", seconds=SECONDS)
        status = read(name)
        assert status["phase"] == phase, status
        say(f"{name}: {phase} after {seconds:.0f} s: {status.get('rps')} rps, p99 {status.get('p99')}")
        return status

    return wait


def kept(kubectl: Kubectl, location: str) -> set[str]:
    """Files of a report in the platform's own object store."""
    folder = location.removeprefix("s3://")
    listing = kubectl.run(
        "exec", f"{PLATFORM}-objectstore-0", "--", "sh", "-c", f"ls /data/*/{folder} /data/{folder} || :"
    )
    return {line for line in listing.split() if "." in line}


def result(kubectl: Kubectl, location: str) -> str:
    """A report's figures, from the platform's own object store."""
    file = f"{location.removeprefix('s3://')}/result.json"
    return kubectl.run(
        "exec", f"{PLATFORM}-objectstore-0", "--", "sh", "-c", f"cat /data/*/{file} /data/{file} 2> /dev/null || :"
    )


def test_what_holds_its_objectives_passes_with_workers_and_a_report(runs: Kubectl, ended: Any) -> None:
    status = ended("passes", "Finished")
    assert status["verdict"] == "passed", status
    assert [one["held"] for one in status["objectives"]] == ["yes"]
    assert float(status["rps"]) > 0
    assert {"result.json", "junit.xml", "report.html"} <= kept(runs, status["report"]["location"])
    summary: Any = runs.get("configmap", status["report"]["configMap"])
    assert json.loads(summary["data"]["summary.json"])["verdict"] == "passed"

    def succeeded() -> bool:
        workers: Any = runs.get("job", "passes-workers")
        return bool(workers["status"].get("succeeded") == 2)

    until(succeeded, "both workers' end, which the Job is told of after the master's")
    printed = runs.run("get", "loadtest", "passes")
    assert printed.splitlines()[0].split() == ["NAME", "PHASE", "VERDICT", "RPS", "P99", "AGE"]


def test_what_acts_begins_with_its_graph_and_has_the_operator_act(runs: Kubectl, ended: Any) -> None:
    status = ended("acts", "Finished")
    assert status["verdict"] == "passed", status
    assert [(one["does"], one["state"]) for one in status["acts"]] == [("restart-pod", "Done")]

    def gone() -> bool:
        left: Any = runs.get("pods", "--selector=fanfold.dev/service=notification-worker")
        return status["acts"][0]["pod"] not in {one["metadata"]["name"] for one in left["items"]}

    until(gone, "the pod it names, gone")
    content = json.loads(result(runs, status["report"]["location"]))
    assert content["share"]["marks"][-1]["what"] == "a pod of notification-worker goes"
    assert content["degrees"]["people"] == 51
    assert "Replicas" in {chart["title"] for chart in content["server"]}, "of the demo's own Prometheus"


def test_what_misses_an_objective_fails_and_says_which(ended: Any) -> None:
    status = ended("fails", "Finished")
    assert (status["verdict"], [one["held"] for one in status["objectives"]]) == ("failed", ["no"])
    assert "p50 of all requests at most 0.001 ms" in status["message"]


def test_what_says_nothing_is_void(ended: Any) -> None:
    status = ended("says-nothing", "Finished")
    assert status["verdict"] == "void"
    assert "nothing was measured for" in status["message"]


def test_what_is_wrong_is_broken_and_says_where(ended: Any) -> None:
    status = ended("is-wrong", "Failed")
    assert status["verdict"] == "broken"
    assert "scenario.yaml:6: phases[0].seconds" in status["message"]


def test_what_is_cancelled_keeps_its_report_marked_as_interrupted(runs: Kubectl, ended: Any) -> None:
    ended("is-cancelled", "Running")
    pods: Any = runs.get("pods", "--selector=fanfold.dev/loadtest=is-cancelled")
    (pod,) = pods["items"]
    (container,) = pod["spec"]["containers"]
    assert pod["spec"]["securityContext"]["runAsNonRoot"]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    runs.run("patch", "loadtest", "is-cancelled", "--type=merge", '--patch={"spec":{"cancel":true}}')
    status = ended("is-cancelled", "Cancelled")
    assert (status["verdict"], status["interrupted"]) == ("void", True), status
    assert "result.json" in kept(runs, status["report"]["location"])


@pytest.mark.long
def test_a_version_whose_gate_is_passed_is_promoted(runs: Kubectl) -> None:
    (reference,) = [one.reference for one in images.built() if one.name == images.SERVICES]
    containerd("tag", "--force", reference, tagged(reference, "gated"))
    template = {
        "apiVersion": "fanfold.dev/v1alpha1",
        "kind": "LoadTest",
        "metadata": {"name": "gate"},
        "spec": {**RUNS["passes"], "workers": 1, "suspend": True, "platformRef": {"name": PLATFORM}},
    }
    file = ROOT / ".build" / "loadtest-gate.json"
    file.write_text(json.dumps(template))
    runs.run("apply", "--filename", file)
    gate = {"soakSeconds": 0, "gate": {"loadTest": "gate"}}
    change(runs, {"version": "gated", "upgrade": gate})
    try:
        seconds = until(
            lambda: upgrade(runs).get("phase") == "Gating", "every service at the new version", seconds=SECONDS
        )
        more = until(lambda: upgrade(runs).get("phase") != "Gating", "the gate's verdict", seconds=SECONDS)
        say(f"rolled in {seconds:.0f} s, gate passed in {more:.0f} s")
        found = upgrade(runs)
        assert found["phase"] == "Completed", found
        test: Any = runs.get("loadtest", found["gate"])
        assert test["status"]["verdict"] == "passed"
    finally:
        change(runs, {"upgrade": {"gate": None}})


def change(kubectl: Kubectl, spec: dict[str, Any]) -> None:
    kubectl.run("patch", "platform", PLATFORM, "--type=merge", f"--patch={json.dumps({'spec': spec})}")


def upgrade(kubectl: Kubectl) -> dict[str, Any]:
    platform: Any = kubectl.get("platform", PLATFORM)
    found: dict[str, Any] = platform["status"].get("upgrade", {})
    return found
