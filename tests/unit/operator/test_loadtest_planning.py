"""How far a LoadTest is, what it is made of, and what is told: from its Jobs and pods as the API server has them."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from fanfold_operator.kinds import Manifest, key_of
from fanfold_operator.planning.actions import Images
from fanfold_operator.planning.loadtest import CANCEL_SECONDS, Phase, Run, expires_in, plan
from fanfold_operator.planning.loadtest_status import status
from fanfold_operator.planning.outcome import Live, live
from fanfold_operator.scrape import Sample, Scrape

from .conftest import NOW

READY = {"conditions": [{"type": "Ready", "status": "True", "message": ""}]}
SUMMARY = {
    "verdict": "passed",
    "reasons": [],
    "interrupted": False,
    "objectives": [{"text": "p99 of feed at most 250 ms", "measured": "12.0 ms", "held": True}],
    "per_second": 49.96,
    "p99_ms": 12.04,
    "location": "s3://fanfold/loadtests/prod/run/uid-run",
}
Make = Callable[..., Run]


@pytest.fixture
def make(resource: Any, images: Images) -> Make:
    """What is known of the LoadTest `run` of the Platform `demo`, which is ready."""

    def build(
        spec: Manifest | None = None,
        children: list[Manifest] | None = None,
        status: Manifest | None = None,
        **rest: Any,
    ) -> Run:
        wanted = {"platformRef": {"name": "demo"}, "scenario": {"name": "browse"}} | (spec or {})
        wanted = {name: value for name, value in wanted.items() if value is not None}
        test = resource(
            "LoadTest", "run", wanted, status=status or {}, metadata={"creationTimestamp": "2026-01-02T03:04:00Z"}
        )
        known = {"platform": resource("Platform", "demo", status=READY), "now": NOW} | rest
        return Run(test, {key_of(child): child for child in children or []}, images=images, **known)

    return build


def job(*conditions: Manifest, name: str = "run-loadtest") -> Manifest:
    metadata = {"name": name, "namespace": "prod", "uid": f"uid-{name}"}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "status": {"conditions": list(conditions)}}


def condition(kind: str, **rest: str) -> Manifest:
    return {"type": kind, "status": "True", **rest}


def pod(state: Manifest, uid: str = "uid-run-loadtest") -> Manifest:
    metadata = {"name": "run-loadtest-x", "ownerReferences": [{"uid": uid}]}
    return {"metadata": metadata, "status": {"podIP": "10.0.0.1", "containerStatuses": [{"state": state}]}}


def said(text: str, code: int = 0, reason: str = "Completed") -> Manifest:
    return pod({"terminated": {"exitCode": code, "reason": reason, "message": text}})


RUNS = pod({"running": {}})
OVER = job(condition("Complete"))
BROKE = job(condition("Failed", message="Job has reached the specified backoff limit"))


def names(manifests: Any) -> list[str]:
    return [f"{one['kind']}/{one['metadata']['name']}" for one in manifests]


def container(run: Run) -> Manifest:
    found: Manifest = plan(run).apply[-1]["spec"]["template"]["spec"]["containers"][0]
    return found


def test_one_worker_is_one_job_against_the_platforms_gateway(make: Make) -> None:
    actions = plan(make())
    assert names(actions.apply) == ["NetworkPolicy/run-loadtest", "Service/run-loadtest", "Job/run-loadtest"]
    master = actions.apply[-1]
    pod_spec = master["spec"]["template"]["spec"]
    (only,) = pod_spec["containers"]
    assert only["image"] == "registry.test/fanfold/fanfold-loadtest:0.1.0"
    assert only["args"][:3] == ["pod", "browse", "--url=http://demo-gateway:8000"]
    assert only["securityContext"]["readOnlyRootFilesystem"]
    assert pod_spec["securityContext"]["runAsNonRoot"]
    assert not pod_spec["automountServiceAccountToken"]
    assert (master["spec"]["backoffLimit"], master["spec"]["activeDeadlineSeconds"]) == (0, 14_400)
    assert master["metadata"]["labels"]["fanfold.dev/platform"] == "demo", "so that it is watched"
    labels = master["spec"]["template"]["metadata"]["labels"]
    assert "fanfold.dev/platform" not in labels, "its pods reach no more of the platform than any client"
    assert labels["fanfold.dev/reports-to"] == "demo"
    assert labels["app.kubernetes.io/part-of"] == "fanfold", "the chart's PodMonitor finds it"
    assert [one["name"] for one in only["ports"]] == ["admin", "crew"]
    assert "--upload=s3://fanfold/loadtests/prod/run/uid-run" in only["args"]
    assert "--s3-endpoint=http://demo-objectstore:9000" in only["args"]
    sources = next(one for one in pod_spec["volumes"] if one["name"] == "secrets")["projected"]["sources"]
    assert [(one["secret"]["name"], [item["key"] for item in one["secret"]["items"]]) for one in sources] == [
        ("demo-credentials", ["s3_access_key", "s3_secret_key"])
    ]


def test_more_workers_are_a_job_of_their_own_that_is_there_before_the_master(make: Make) -> None:
    actions = plan(make({"workers": 3}))
    assert names(actions.apply) == [
        "NetworkPolicy/run-loadtest", "Service/run-loadtest", "Job/run-workers", "Job/run-loadtest",
    ]  # fmt: skip
    workers, master = actions.apply[2:]
    assert workers["spec"]["completionMode"] == "Indexed"
    assert (workers["spec"]["completions"], workers["spec"]["parallelism"]) == (3, 3)
    only = workers["spec"]["template"]["spec"]["containers"][0]
    assert only["args"] == ["worker", "--master=http://run-loadtest:8000", "--url=http://demo-gateway:8000"]
    assert not [one for one in only["volumeMounts"] if one["name"] == "secrets"], "only the master writes the report"
    assert only["ports"] == []
    assert "--workers=3" in master["spec"]["template"]["spec"]["containers"][0]["args"]


def test_documents_come_from_the_spec_or_from_the_users_config_maps(make: Make) -> None:
    reference = {"name": "mine", "key": "slos"}
    run = make(
        {"scenario": {"inline": "name: x\n"}, "slos": {"configMapRef": reference}},
        documents={"mine": frozenset({"slos"})},
    )
    inputs, _, _, master = plan(run).apply
    assert inputs["data"] == {"scenario.yaml": "name: x\n"}
    only = container(run)
    assert only["args"][1] == "/etc/fanfold/scenario.yaml"
    assert "--slos=/etc/fanfold/slos.yaml" in only["args"]
    volume = next(one for one in master["spec"]["template"]["spec"]["volumes"] if one["name"] == "inputs")
    assert [one["configMap"]["name"] for one in volume["projected"]["sources"]] == ["run-loadtest", "mine"]


def test_a_url_of_ones_own_has_the_store_of_ones_own_or_none(make: Make) -> None:
    url = {"platformRef": None, "url": "https://feed.test/", "report": {"summaryOnly": True}}
    only = container(make(url, platform=None))
    assert "--url=https://feed.test" in only["args"]
    assert not [one for one in only["args"] if one.startswith("--upload")]
    store = {"endpoint": "https://s3.test", "bucket": "kept", "secretRef": {"name": "keys"}}
    only = container(make({**url, "report": {"objectStore": store, "prefix": "a/b"}}, platform=None))
    assert "--upload=s3://kept/a/b/prod/run/uid-run" in only["args"]


def test_a_graph_is_loaded_first_by_a_container_that_alone_has_the_databases_url(make: Make) -> None:
    run = make({"crowd": {"celebrities": [50, 9], "readers": 5}, "seed": 7, "workers": 2})
    pod_spec = plan(run).apply[-1]["spec"]["template"]["spec"]
    (seeds,), (only,) = pod_spec["initContainers"], pod_spec["containers"]
    assert seeds["args"] == [
        "seed", "--database=/run/fanfold/database/database_url", "--out=/tmp/crowd.json", "--seed=7", "--body=2000",
        "--readers=5", "--celebrity=50", "--celebrity=9",
    ]  # fmt: skip
    assert seeds["securityContext"] == only["securityContext"]
    assert "--crowd=/tmp/crowd.json" in only["args"]
    assert {one["name"] for one in seeds["volumeMounts"]} == {"tmp", "database"}
    assert "database" not in {one["name"] for one in only["volumeMounts"]}
    database = next(one for one in pod_spec["volumes"] if one["name"] == "database")
    assert [one["key"] for one in database["projected"]["sources"][0]["secret"]["items"]] == ["database_url"]
    master = plan(run).apply[-1]["spec"]["template"]["metadata"]["labels"]
    assert master["fanfold.dev/seeds"] == "demo", "the database lets it in"
    workers = next(one for one in plan(run).apply if one["metadata"]["name"] == "run-workers")["spec"]["template"]
    assert "initContainers" not in workers["spec"]
    assert "fanfold.dev/seeds" not in workers["metadata"]["labels"]


def test_how_loading_the_graph_goes_is_told(make: Make) -> None:
    def seeding(state: Manifest) -> Manifest:
        waits = pod({"waiting": {"reason": "PodInitializing"}})
        return {**waits, "status": {**waits["status"], "initContainerStatuses": [{"state": state}]}}

    told = status(make({"crowd": {}}, [job()], pods=[seeding({"running": {}})]))
    assert (told["phase"], told["message"]) == ("Seeding", "the graph is being loaded")
    ended = {"terminated": {"exitCode": 1, "reason": "Error", "message": "x\nno connection to PostgreSQL: refused\n"}}
    told = status(make({"crowd": {}}, [BROKE], pods=[seeding(ended)]))
    assert told["phase"] == "Failed"
    assert told["message"] == "the seeding ended with 1 (Error): no connection to PostgreSQL: refused"
    done = seeding({"terminated": {"exitCode": 0}})
    done["status"]["containerStatuses"] = said(json.dumps(SUMMARY))["status"]["containerStatuses"]
    assert status(make({"crowd": {}}, [OVER], pods=[done]))["verdict"] == "passed"


def test_a_prometheus_is_asked_for_the_platforms_own_figures(make: Make) -> None:
    only = container(make({"prometheus": {"url": "http://prometheus.monitoring:9090/"}}))
    assert "--prometheus=http://prometheus.monitoring:9090" in only["args"]
    assert "--platform=prod/demo" in only["args"]
    assert not [one for one in container(make())["args"] if one.startswith("--prometheus")]


@pytest.mark.parametrize(
    ("prometheus", "url"),
    [({"embedded": {}}, "http://demo-prometheus:9090"), ({"external": {"url": "https://p.test/"}}, "https://p.test")],
)
def test_without_one_of_its_own_it_asks_the_platforms(
    make: Make, resource: Any, prometheus: Manifest, url: str
) -> None:
    platform = resource("Platform", "demo", {"monitoring": {"prometheus": prometheus}}, status=READY)
    assert f"--prometheus={url}" in container(make(platform=platform))["args"]
    own = container(make({"prometheus": {"url": "http://own:9090"}}, platform=platform))
    assert "--prometheus=http://own:9090" in own["args"]


@pytest.mark.parametrize(
    ("spec", "rest", "words"),
    [
        ({}, {"platform": None}, "Platform demo does not exist in namespace prod"),
        ({}, {"platform": {"metadata": {"name": "demo"}, "status": {}}}, "Platform demo is not Ready"),
        ({"slos": {"configMapRef": {"name": "m", "key": "k"}}}, {"documents": {"m": None}}, "create it with key k"),
        (
            {"scenario": {"configMapRef": {"name": "m", "key": "k"}}},
            {"documents": {"m": frozenset({"j"})}},
            "ConfigMap m has no key k (it has: j)",
        ),
    ],
)
def test_it_waits_for_what_is_not_there_and_says_so_until_its_deadline(
    make: Make, spec: Manifest, rest: Manifest, words: str
) -> None:
    run = make(spec, **rest)
    assert plan(run).apply == ()
    told = status(run)
    assert (told["phase"], told["conditions"][0]["reason"]) == ("Pending", "Waiting")
    assert words in told["message"]
    spec = {**spec, "deadlineSeconds": 10}
    assert status(make(spec, status=told, now=NOW + timedelta(seconds=9), **rest))["waitsSince"] == told["waitsSince"]
    late = status(make(spec, status=told, now=NOW + timedelta(seconds=10), **rest))
    assert (late["phase"], late["verdict"]) == ("Failed", "broken")
    assert words in late["message"]


def test_a_suspended_one_waits_for_ever(make: Make) -> None:
    run = make({"suspend": True}, now=NOW + timedelta(days=30))
    assert plan(run).apply == ()
    assert status(run)["phase"] == "Suspended"
    assert "waitsSince" not in status(run), "what it waits for counts from when it is let go"


def test_a_job_that_is_there_is_not_written_again(make: Make, resource: Any) -> None:
    """It cannot be changed, and what is planned may: with another version of the operator, of the Platform."""
    assert plan(make(children=[job()], pods=[RUNS])) == plan(make({"suspend": True}))


def test_a_pod_that_does_not_start_says_why(make: Make) -> None:
    waiting = pod({"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image x"}})
    assert "ImagePullBackOff: Back-off pulling image x" in status(make(children=[job()], pods=[waiting]))["message"]
    for image, hint in (
        ("localhost/fanfold/fanfold-loadtest:0.1.0", "built here: make loadtest-image"),
        ("registry.test/fanfold-loadtest:0.1.0", "where the nodes pull from, or name another in spec.image"),
    ):
        waiting["status"]["containerStatuses"][0]["image"] = image
        told = status(make(children=[job()], pods=[waiting]))
        assert told["message"].endswith(hint)
        finished = next(one for one in told["conditions"] if one["type"] == "Finished")
        assert (finished["status"], finished["reason"]) == ("False", "ImageMissing")
        assert finished["message"] == told["message"]
    other = pod({"waiting": {"reason": "CreateContainerConfigError", "message": "secret x not found"}})
    assert status(make(children=[job()], pods=[other]))["message"].endswith("secret x not found")
    placed = {"type": "PodScheduled", "status": "False", "message": "0/1 nodes are available"}
    nowhere = {**pod({}), "status": {"conditions": [placed]}}
    assert "0/1 nodes are available" in status(make(children=[job()], pods=[nowhere]))["message"]
    foreign = pod({"running": {}}, uid="uid-of-a-predecessor")
    assert status(make(children=[job()], pods=[foreign]))["message"] == "its pod is not made yet"


def test_figures_are_told_while_it_runs(make: Make) -> None:
    seeding = status(make(children=[job()], pods=[RUNS]))
    assert (seeding["phase"], seeding["startTime"]) == ("Seeding", "2026-01-02T03:04:05Z")
    told = status(make(children=[job()], pods=[RUNS], live=Live(600, 1.0, 50.04, 0.0123, 0.4)))
    assert (told["phase"], told["progress"], told["rps"], told["p99"]) == ("Running", "40%", "50.0", "12.3ms")
    assert {one["type"]: one["status"] for one in told["conditions"]} == {"Finished": "False", "Passed": "Unknown"}


@pytest.mark.parametrize(
    ("verdict", "code", "phase", "passed", "reason"),
    [
        ("passed", 0, "Finished", "True", "ObjectivesHeld"),
        ("failed", 1, "Finished", "False", "ObjectivesMissed"),
        ("void", 2, "Finished", "False", "Void"),
        ("broken", 3, "Failed", "False", "Broken"),
    ],
)
def test_the_verdict_is_the_last_words_of_the_master(
    make: Make, verdict: str, code: int, phase: str, passed: str, reason: str
) -> None:
    reasons = [] if verdict == "passed" else ["p99 of feed: 300 ms", "errors: 2 %"]
    text = json.dumps(SUMMARY | {"verdict": verdict, "reasons": reasons})
    ended = OVER if code == 0 else BROKE
    run = make(children=[ended, job(name="run-workers")], pods=[said(text, code)])
    actions, told = plan(run), status(run)
    assert names(actions.apply) == ["ConfigMap/run-report"]
    assert json.loads(actions.apply[0]["data"]["summary.json"]) == json.loads(text)
    assert names(actions.delete) == ["Job/run-workers"], "workers do not outlive their master"
    assert (told["phase"], told["verdict"], told["finishTime"]) == (phase, verdict, "2026-01-02T03:04:05Z")
    assert told.get("message", "") == "; ".join(reasons)
    figures = (None, None) if verdict == "broken" else ("50.0", "12.0ms")
    assert (told.get("rps"), told.get("p99")) == figures
    assert told["report"] == {"configMap": "run-report", "location": SUMMARY["location"]}
    assert told["objectives"][0]["held"] == "yes"
    by_type = {one["type"]: one for one in told["conditions"]}
    assert (by_type["Passed"]["status"], by_type["Passed"]["reason"]) == (passed, reason)
    assert by_type["Finished"]["status"] == "True"


def test_a_run_without_last_words_has_failed_and_what_is_known_is_told(make: Make) -> None:
    killed = status(make(children=[BROKE], pods=[said("", 137, "OOMKilled")]))
    assert (killed["phase"], killed["verdict"]) == ("Failed", "broken")
    assert "ended with 137 (OOMKilled)" in killed["message"]
    raised = status(make(children=[BROKE], pods=[said("Traceback\nKeyError: 'x'\n", 1, "Error")]))
    assert raised["message"].endswith("KeyError: 'x'")
    late = job(condition("Failed", message="Job was active longer than specified deadline"))
    assert "longer than specified deadline" in status(make(children=[late]))["message"]
    gone = status(make(status={"phase": "Running", "startTime": "2026-01-02T03:04:00Z"}))
    assert (gone["phase"], gone["message"]) == ("Failed", "Job run-loadtest was deleted before the run ended")


def test_cancelled_it_keeps_what_it_measured_marked_as_interrupted(make: Make) -> None:
    told = status(make({"cancel": True}, [job()], pods=[RUNS], live=Live(600, 1.0, 50.0, 0.01, 0.4)))
    assert (told["phase"], told["cancelTime"]) == ("Running", "2026-01-02T03:04:05Z")
    between = make({"cancel": True}, [job()], told, pods=[said("{}", 2)])
    assert (status(between)["phase"], plan(between).delete) == ("Running", ()), "the pod has ended, its Job not yet"
    text = json.dumps(SUMMARY | {"verdict": "void", "interrupted": True, "reasons": ["the run was interrupted"]})
    told = status(make({"cancel": True}, [BROKE], told, pods=[said(text, 2)]))
    assert (told["phase"], told["verdict"], told["interrupted"]) == ("Cancelled", "void", True)
    assert told["report"]["location"]
    assert {one["reason"] for one in told["conditions"]} == {"Cancelled"}


def test_cancelled_before_it_ran_or_without_an_answer_its_jobs_go(make: Make) -> None:
    assert status(make({"cancel": True}))["phase"] == "Cancelled"
    assert plan(make({"cancel": True})).apply == ()
    waits = make({"cancel": True}, [job()], pods=[pod({"waiting": {}})])
    assert (status(waits)["phase"], names(plan(waits).delete)) == ("Cancelled", ["Job/run-loadtest"])
    since = {"phase": "Running", "cancelTime": "2026-01-02T03:04:05Z"}
    for seconds, phase, deleted in ((CANCEL_SECONDS - 1, "Running", 0), (CANCEL_SECONDS, "Cancelled", 1)):
        deaf = make({"cancel": True}, [job()], since, pods=[RUNS], now=NOW + timedelta(seconds=seconds))
        assert (status(deaf)["phase"], len(plan(deaf).delete)) == (phase, deleted)
    late = make({"cancel": True}, [OVER], pods=[said(json.dumps(SUMMARY))])
    assert status(late)["phase"] == "Finished", "it had ended by itself"


@pytest.mark.parametrize("phase", [Phase.FINISHED, Phase.CANCELLED, Phase.FAILED])
def test_an_end_is_the_end_and_time_to_live_counts_from_it(make: Make, phase: Phase) -> None:
    before: Manifest = {
        "phase": phase.value,
        "verdict": "passed",
        "finishTime": "2026-01-02T03:04:05Z",
        "conditions": [],
    }
    for children in ([], [OVER]):
        run = make({"ttlSecondsAfterFinished": 60}, children, before)
        assert status(run) == before | {"observedGeneration": 1}
        assert plan(run) == plan(make({"suspend": True}))
        assert expires_in(run) == 60
    assert expires_in(make({"ttlSecondsAfterFinished": 0}, [], before)) == 0
    assert expires_in(make({}, [], before)) is None
    assert expires_in(make({"ttlSecondsAfterFinished": 0})) is None


def test_live_figures_are_the_growth_between_two_looks() -> None:
    def scrape(good: float, failed: float, progress: float) -> Scrape:
        samples = [
            Sample("fanfold_loadtest_requests_total", {"outcome": "good"}, good),
            Sample("fanfold_loadtest_requests_total", {"outcome": "failed"}, failed),
            Sample("fanfold_loadtest_latency_seconds", {"quantile": "0.99", "process": "0"}, 0.02),
            Sample("fanfold_loadtest_latency_seconds", {"quantile": "0.99", "process": "1"}, 0.03),
            Sample("fanfold_loadtest_latency_seconds", {"quantile": "0.5", "process": "1"}, 9),
            Sample("fanfold_loadtest_progress_ratio", {}, progress),
        ]
        return Scrape("10.0.0.1:9000", tuple(samples))

    seeding = live(scrape(0, 0, 0), 1.0, None)
    assert seeding == Live(None, 1.0)
    first = live(scrape(90, 10, 0.1), 3.0, seeding)
    assert first == Live(100, 3.0, None, 0.03, 0.1)
    second = live(scrape(180, 20, 0.2), 5.0, first)
    assert second == Live(200, 5.0, 50.0, 0.03, 0.2)
    assert live(Scrape("10.0.0.1:9000", error="no answer"), 7.0, second) == second
