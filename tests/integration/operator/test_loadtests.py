"""A LoadTest's life against a real API server and Job controller; its pods are played, and say what they are told."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import count
from typing import Any

import pytest

from fanfold_operator.planning.acts import RESTARTED, Wish
from fanfold_operator.planning.upgrade import ORDER
from fanfold_operator.scrape import Sample
from tests.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400), pytest.mark.usefixtures("operator", "kubelet")]

Manifest = dict[str, Any]
Status = Callable[[], Manifest]
SECONDS = 90
URL = {"url": "http://feed.test", "report": {"summaryOnly": True}}
WORDS = {
    "verdict": "passed",
    "objectives": [{"text": "p99 of feed at most 250 ms", "measured": "12.0 ms", "held": True}],
    "per_second": 49.96,
    "p99_ms": 12.04,
}


@pytest.fixture
def run(kube: Any, namespace: str) -> Callable[..., None]:
    """Apply the LoadTest `run`, by default of a gateway by its URL."""

    def apply(**spec: Any) -> None:
        wanted = {"scenario": {"name": "browse"}, **({} if "platformRef" in spec else URL), **spec}
        body = {"apiVersion": "fanfold.dev/v1alpha1", "kind": "LoadTest", "metadata": {"name": "run"}, "spec": wanted}
        kube.apply(body, namespace)

    return apply


@pytest.fixture
def status(kube: Any, namespace: str) -> Status:
    def read() -> Manifest:
        found: Manifest = (kube.get("LoadTest", namespace, "run") or {}).get("status", {})
        return found

    return read


@pytest.fixture
def phase(status: Status) -> Callable[[str], Manifest]:
    """Wait for a phase; the status then."""

    def wait(name: str) -> Manifest:
        try:
            until(lambda: status().get("phase") == name, seconds=SECONDS)
        except AssertionError as error:
            pytest.fail(f"not {name}: {status()}; {error}")
        return status()

    return wait


def test_a_run_from_its_jobs_to_its_summary(
    kube: Any, kubelet: Any, operator: Any, namespace: str, run: Any, phase: Any, status: Status, costs: Any,
    nudge: Any,
) -> None:  # fmt: skip
    run(workers=2, slos={"inline": "slos: []\n"})
    told = phase("Seeding")
    assert told["startTime"]
    jobs = {one["metadata"]["name"]: one for one in kube.list("Job", namespace)}
    assert set(jobs) == {"run-loadtest", "run-workers"}
    assert jobs["run-workers"]["spec"]["completions"] == 2
    assert kube.get("ConfigMap", namespace, "run-loadtest")["data"] == {"slos.yaml": "slos: []\n"}
    assert kube.get("Service", namespace, "run-loadtest")["spec"]["clusterIP"] == "None"

    def roles() -> list[str]:
        return sorted(one["spec"]["containers"][0]["args"][0] for one in kube.list("Pod", namespace))

    until(lambda: roles() == ["pod", "worker", "worker"])

    def go_on(done: int, part: float) -> None:
        operator.figures[:] = [
            Sample("fanfold_loadtest_requests_total", {"outcome": "good"}, done),
            Sample("fanfold_loadtest_latency_seconds", {"quantile": "0.99"}, 0.0313),
            Sample("fanfold_loadtest_progress_ratio", {}, part),
        ]

    answered = count(100)

    def measured() -> Manifest | None:
        """The rate needs answers that become more, whenever the operator looks."""
        go_on(next(answered), 0.4)
        now = status()
        return now if now.get("progress") == "40%" and float(now.get("rps") or 0) > 0 else None

    try:
        go_on(next(answered), 0.1)
        phase("Running")
        until(lambda: status().get("progress") == "10%")
        assert until(measured)["p99"] == "31.3ms"
    finally:
        operator.figures.clear()
    kubelet.end(namespace, "run", 0, json.dumps(WORDS))
    told = phase("Finished")
    assert (told["verdict"], told["rps"], told["p99"]) == ("passed", "50.0", "12.0ms")
    assert told["report"] == {"configMap": "run-report"}
    assert json.loads(kube.get("ConfigMap", namespace, "run-report")["data"]["summary.json"]) == WORDS
    conditions = {one["type"]: one["status"] for one in told["conditions"]}
    assert conditions == {"Finished": "True", "Passed": "True"}
    until(lambda: [one for one in kube.list("Event", namespace) if one["reason"] == "ObjectivesHeld"])
    costs(lambda: nudge("LoadTest", "run"), lambda calls: not calls)  # it is over


@pytest.mark.parametrize(
    ("code", "words", "ends", "verdict", "message"),
    [
        (1, {"verdict": "failed", "reasons": ["p99 of feed: 300 ms"]}, "Finished", "failed", "p99 of feed: 300 ms"),
        (2, {"verdict": "void", "reasons": ["no request was sent"]}, "Finished", "void", "no request was sent"),
        (3, {"verdict": "broken", "reasons": ["x.yaml:5: no"]}, "Failed", "broken", "x.yaml:5: no"),
        (137, None, "Failed", "broken", "the load generator ended with 137"),
    ],
)
def test_how_it_ends_is_told(
    kubelet: Any, namespace: str, run: Any, phase: Any, kube: Any, code: int, words: Manifest | None, ends: str,
    verdict: str, message: str,
) -> None:  # fmt: skip
    kubelet.end(namespace, "run", code, json.dumps(words) if words else "")
    run()
    told = phase(ends)
    assert told["verdict"] == verdict
    assert message in told["message"]

    def warned() -> bool:
        events = [one for one in kube.list("Event", namespace) if one["involvedObject"]["kind"] == "LoadTest"]
        return any(one["type"] == "Warning" and message in one["message"] for one in events)

    until(warned)


def test_it_waits_for_platform_and_documents_and_says_for_which(
    kube: Any, namespace: str, run: Any, status: Status, phase: Any, ready: Any
) -> None:
    run(platformRef={"name": "demo"}, scenario={"configMapRef": {"name": "mine", "key": "scenario"}})
    until(lambda: "ConfigMap mine does not exist" in status().get("message", ""))
    kube.apply(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "mine"}, "data": {"other": ""}}, namespace
    )
    until(lambda: "has no key scenario (it has: other)" in status()["message"])
    kube.patch("ConfigMap", namespace, "mine", {"data": {"scenario": "name: x"}})
    until(lambda: "Platform demo does not exist" in status()["message"])
    assert (status()["phase"], kube.list("Job", namespace)) == ("Pending", [])
    ready()
    phase("Seeding")
    (master,) = (one for one in kube.list("Job", namespace) if one["metadata"]["name"] == "run-loadtest")
    args = master["spec"]["template"]["spec"]["containers"][0]["args"]
    assert "--url=http://demo-gateway:8000" in args
    assert "--s3-endpoint=http://demo-objectstore:9000" in args


def test_cancelled_before_anybody_answers_it_ends_without_a_report(
    kube: Any, kubelet: Any, namespace: str, run: Any, phase: Any
) -> None:
    kubelet.hold(namespace, None)  # its pods have no component
    run()
    until(lambda: kube.list("Pod", namespace))
    kube.patch("LoadTest", namespace, "run", {"spec": {"cancel": True}})
    told = phase("Cancelled")
    assert "report" not in told
    assert "before its pod ran" in told["message"]
    until(lambda: not kube.list("Job", namespace), seconds=SECONDS)


def test_cancelled_while_it_runs_its_last_words_count(
    kube: Any, kubelet: Any, namespace: str, run: Any, phase: Any, status: Status
) -> None:
    run()
    phase("Seeding")
    kube.patch("LoadTest", namespace, "run", {"spec": {"cancel": True}})
    until(lambda: status().get("message") == "it was told to end")
    words = {"verdict": "void", "interrupted": True, "reasons": ["the run was interrupted"]}
    kubelet.end(namespace, "run", 2, json.dumps(words))
    told = phase("Cancelled")
    assert (told["verdict"], told["interrupted"], told["message"]) == ("void", True, "the run was interrupted")
    assert told["report"]["configMap"] == "run-report"


def test_a_suspended_one_begins_when_it_is_let_go_and_one_whose_time_is_over_goes(
    kube: Any, kubelet: Any, namespace: str, run: Any, phase: Any
) -> None:
    run(suspend=True)
    phase("Suspended")
    assert kube.list("Job", namespace) == []
    kubelet.end(namespace, "run", 0, json.dumps(WORDS))
    kube.patch("LoadTest", namespace, "run", {"spec": {"suspend": False}})
    phase("Finished")
    kube.patch("LoadTest", namespace, "run", {"spec": {"ttlSecondsAfterFinished": 0}})
    until(lambda: kube.get("LoadTest", namespace, "run") is None, seconds=SECONDS)
    until(lambda: not kube.list("Job", namespace), seconds=SECONDS)


def test_what_a_run_asks_for_is_done_within_bounds_and_counts_until_its_end(
    kube: Any, kubelet: Any, operator: Any, namespace: str, run: Any, phase: Any, status: Status, ready: Any,
) -> None:  # fmt: skip
    ready(services={"feed": {"replicas": {"min": 1, "max": 2}}})

    def record() -> dict[int, str]:
        return {one["number"]: one["state"] for one in status().get("acts", [])}

    def feed() -> Manifest:
        found: Manifest = kube.get("PlatformService", namespace, "demo-feed")
        return found

    asked = [Wish(0, "scale", "feed", 1), Wish(1, "restart-pod", "profile"), Wish(2, "scale", "post", 99)]
    before = {pod["metadata"]["uid"] for pod in kube.list("Pod", namespace)}
    operator.masters.wishes[:] = asked
    try:
        run(platformRef={"name": "demo"}, acts=True)
        until(lambda: record() == {0: "Done", 1: "Done", 2: "Failed"}, seconds=SECONDS)
        assert (feed()["spec"]["scaling"]["min"], feed()["status"]["ready"]) == (2, "2/2")
        gone = before - {pod["metadata"]["uid"] for pod in kube.list("Pod", namespace)}
        until(lambda: gone or before - {one["metadata"]["uid"] for one in kube.list("Pod", namespace)})
        until(lambda: {act.number: act.state for act in operator.masters.told} == record())
        assert "Platform demo allows" in status()["acts"][2]["message"]
        operator.masters.wishes.append(Wish(3, "restart-all"))
        until(lambda: record().get(3) == "Done", seconds=2 * SECONDS)
        for component in ORDER:
            template = kube.get("Deployment", namespace, f"demo-{component.name}")["spec"]["template"]
            assert RESTARTED in template["metadata"]["annotations"], component
        assert feed()["spec"]["scaling"]["min"] == 2, "while the run lasts"
    finally:
        operator.masters.wishes.clear()
    kubelet.end(namespace, "run", 0, json.dumps(WORDS))
    told = phase("Finished")
    assert [one["state"] for one in told["acts"]] == ["Done", "Done", "Failed", "Done"]
    until(lambda: (feed()["spec"]["scaling"]["min"], feed()["spec"]["scaling"]["max"]) == (1, 2))
