"""`kubectl fanfold` by kubectl itself, on a platform that serves."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from fanfold.contracts.components import BY_NAME
from tests.e2e.waiting import until
from tools.local.clusters import Kubectl
from tools.local.up import PLATFORM, gateway_url
from tools.progress import StageError

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200)]

Fanfold = Callable[..., subprocess.CompletedProcess[str]]
READS = 40


@pytest.fixture(scope="module")
def environment(deployed: Kubectl) -> dict[str, str]:
    """Where kubectl finds its plugins: beside the Python that runs the tests."""
    return {**deployed.environment, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


@pytest.fixture(scope="module")
def fanfold(deployed: Kubectl, environment: dict[str, str]) -> Fanfold:
    def call(*words: str) -> subprocess.CompletedProcess[str]:
        arguments = ["kubectl", "fanfold", *words, "--namespace", deployed.namespace]
        return subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=60, check=False)

    return call


@pytest.fixture(scope="module")
def person(deployed: Kubectl) -> Iterator[tuple[str, httpx.Client]]:
    """Somebody new: id, and a client that is logged in."""
    with httpx.Client(base_url=gateway_url(deployed), timeout=30, trust_env=False) as client:
        account = {"username": f"eve_{uuid.uuid4().hex[:8]}", "password": uuid.uuid4().hex}
        client.post("/v1/accounts", json=account).raise_for_status()
        session = client.post("/v1/sessions", json=account).raise_for_status().json()
        client.headers["Authorization"] = f"Bearer {session['access_token']}"
        yield session["user_id"], client


def until_well(fanfold: Fanfold) -> subprocess.CompletedProcess[str]:
    deadline = time.monotonic() + 60
    while (answer := fanfold("status", PLATFORM)).returncode:
        assert time.monotonic() < deadline, answer.stdout + answer.stderr
        time.sleep(0.5)
    return answer


def test_status_tells_that_all_is_well(fanfold: Fanfold, deployed: Kubectl) -> None:
    text = until_well(fanfold).stdout
    assert text.startswith(f"● {deployed.namespace}/{PLATFORM}  11/11 ready")
    tree = json.loads(fanfold("status", "-o", "json").stdout)["platforms"][0]
    assert {one["name"] for one in tree["services"] if one["kind"] == "service"} == set(BY_NAME)
    acked, of = map(int, tree["acked"].split("/"))
    assert acked == of >= 2


def test_kubectl_completes_the_plugin(environment: dict[str, str], deployed: Kubectl) -> None:
    words = ["kubectl", "__complete", "fanfold", "status", "--namespace", deployed.namespace, "de"]
    answer = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=30, check=True)
    assert answer.stdout.split() == [PLATFORM, ":4"]


def gateways(deployed: Kubectl) -> set[str]:
    """Pods that take requests, or are about to."""
    selector = f"fanfold.dev/platform={PLATFORM},fanfold.dev/service=gateway"
    pods: Any = deployed.get("pods", f"--selector={selector}")
    return {pod["metadata"]["name"] for pod in pods["items"] if "deletionTimestamp" not in pod["metadata"]}


def answered(deployed: Kubectl, names: set[str], service: str) -> dict[str, float]:
    """Requests these gateways have sent to each slot of a service."""
    counts: dict[str, float] = {}
    for name in names:
        path = f"/api/v1/namespaces/{deployed.namespace}/pods/{name}:9000/proxy/metrics"
        for family in text_string_to_metric_families(deployed.run("get", "--raw", path)):
            for sample in family.samples:
                labels = sample.labels
                if sample.name == "fanfold_gateway_upstream_requests_total" and labels["service"] == service:
                    counts[labels["slot"]] = counts.get(labels["slot"], 0) + sample.value
    return counts


def test_a_user_lands_at_the_slot_that_ring_names(
    fanfold: Fanfold, deployed: Kubectl, person: tuple[str, httpx.Client]
) -> None:
    user, client = person
    shown = json.loads(fanfold("ring", PLATFORM, "--user", user, "-o", "json").stdout)
    slot = {landing["service"]: landing["home"]["slot"] for landing in shown["landings"]}["feed"]
    assert (
        len({one["slot"] for service in shown["services"] if service["service"] == "feed" for one in service["slots"]})
        > 1
    )
    before, after = dict[str, float](), dict[str, float]()

    def counted() -> bool:
        """Not when a gateway came or went meanwhile: its counts are not to be had."""
        nonlocal before, after
        names = gateways(deployed)
        try:
            before = answered(deployed, names, "feed")
            for _ in range(READS):
                client.get("/v1/feed").raise_for_status()
            after = answered(deployed, names, "feed")
        except StageError:
            return False
        return gateways(deployed) == names

    until(counted, "the same gateways before and after")
    assert after[slot] - before.get(slot, 0) >= READS, (before, after)


def test_top_measures_what_clients_do(fanfold: Fanfold, person: tuple[str, httpx.Client], deployed: Kubectl) -> None:
    _, client = person
    words = ["kubectl", "fanfold", "top", PLATFORM, "-o", "json", "--interval", "4", "--namespace", deployed.namespace]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with subprocess.Popen(
        words, env={**deployed.environment, "PATH": path}, stdout=subprocess.PIPE, text=True
    ) as process:
        deadline = time.monotonic() + 60
        while process.poll() is None:
            assert time.monotonic() < deadline, "top does not end"
            client.get("/v1/feed").raise_for_status()
            time.sleep(0.02)
        assert process.stdout
        loads = {one["name"]: one for one in json.loads(process.stdout.read())["services"]}
    assert set(loads) == set(BY_NAME)
    assert {name: load["problem"] for name, load in loads.items() if load["problem"]} == {}
    for name in ("gateway", "feed"):
        assert loads[name]["rate"] > 1
        assert 0 < loads[name]["p50"] <= loads[name]["p99"] < 10
    assert all(load["memory"] > 2**20 for load in loads.values())


def test_logs_are_merged_in_the_order_of_time(fanfold: Fanfold) -> None:
    answer = fanfold("logs", PLATFORM, "-s", "feed", "-s", "gateway", "--since", "1h", "-o", "json")
    entries = [json.loads(line) for line in answer.stdout.splitlines()]
    assert {entry["service"] for entry in entries} == {"feed", "gateway"}
    assert [entry["time"] for entry in entries] == sorted(entry["time"] for entry in entries)
    assert {entry["level"] for entry in entries if entry["level"]} <= {"debug", "info", "warning", "error"}
    plain = fanfold("logs", PLATFORM, "-s", "postgresql", "--grep", "ready to accept connections")
    assert "database system is ready to accept connections" in plain.stdout


def test_followed_logs_go_on_with_the_pod_that_replaces_another(environment: dict[str, str], deployed: Kubectl) -> None:
    selector = f"--selector=fanfold.dev/platform={PLATFORM},fanfold.dev/service=notification-worker"
    pods: Any = deployed.get("pods", selector)
    old = {pod["metadata"]["name"] for pod in pods["items"]}
    place = ("--namespace", deployed.namespace)
    words = [
        "kubectl",
        "fanfold",
        "logs",
        PLATFORM,
        "-s",
        "notification-worker",
        "-f",
        "--tail",
        "0",
        "-o",
        "json",
        *place,
    ]
    # Unbuffered: what `select` does not see would otherwise be in Python's buffer.
    with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, bufsize=0) as process:
        try:
            deployed.run("delete", "pod", min(old), "--wait=false")
            assert process.stdout
            deadline = time.monotonic() + 60
            while True:
                left = deadline - time.monotonic()
                assert left > 0
                assert select.select([process.stdout], [], [], left)[0], "no line of the new pod"
                if json.loads(process.stdout.readline())["pod"] not in old:
                    break
        finally:
            process.terminate()


def test_pause_and_resume_are_acknowledged(fanfold: Fanfold) -> None:
    paused = fanfold("pause", PLATFORM)
    assert paused.returncode == 0, paused.stderr
    assert "paused: nothing but the ring" in fanfold("status", PLATFORM).stdout
    resumed = fanfold("resume", PLATFORM)
    assert resumed.returncode == 0, resumed.stderr
    assert "paused" not in until_well(fanfold).stdout
