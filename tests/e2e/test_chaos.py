"""Processes die and hang, the API server goes away, the snapshot is damaged, and people go on as if nothing were.

What the network does is played on a gateway's own doorstep in tests/fault; here are the parts that need a Kubernetes.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from fanfold.contracts.snapshot import SNAPSHOT_KEY, Snapshot, SnapshotError
from tests.e2e.conftest import CLUSTER
from tests.e2e.ring import active, snapshot
from tests.e2e.traffic import Traffic
from tests.e2e.waiting import exists, until
from tools.local.clusters import Kubectl
from tools.local.up import PLATFORM, RELEASE, gateway_url
from tools.progress import say

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

SNAPSHOT = f"{PLATFORM}-snapshot"
AWAY_SECONDS = 60.0
"""Longer than the 50 s after which Kubernetes counts a silent node as lost."""
BACK_SECONDS = 45.0
"""What Kubernetes makes of the silence, and the way back from it, shows within these."""
SUCCESSION_SECONDS = 25.0
"""15 s by contract, on a machine that has time: ten of them are the lease, the rest grows with what else runs here."""
HUNG_SECONDS = 12.0
"""Longer than a request may take (10 s), so that a paused replica is noticed by its silence."""
HUNG_MOST = 20
"""Feed reads that may wait in vain for a paused replica until it is ejected: those of ten seconds, at most."""


def marked(mark: str, command: str = "") -> list[int]:
    """Processes with ``mark`` in their environment, of one command if it is given."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (folder / "environ").read_bytes().split(b"\0") and (
                not command or (folder / "comm").read_text().strip() == command
            ):
                found.append(int(folder.name))
        except OSError:
            continue  # it ended meanwhile, or is the kernel's
    return found


def processes(kubectl: Kubectl, service: str) -> list[int]:
    """Of the pods of a service, one each: the container's first."""
    answer: Any = kubectl.get("pods", f"--selector=fanfold.dev/service={service},fanfold.dev/platform={PLATFORM}")
    names = [pod["metadata"]["name"] for pod in answer["items"] if "deletionTimestamp" not in pod["metadata"]]
    return [min(pids) for name in names if (pids := marked(f"FANFOLD_INSTANCE={name}"))]


def readable(kubectl: Kubectl) -> Snapshot | None:
    """The snapshot; None while it is damaged."""
    try:
        return snapshot(kubectl)
    except SnapshotError:
        return None


@pytest.fixture(scope="module")
def two_feeds(deployed: Kubectl) -> Kubectl:
    """A platform whose feeds may lose a replica, as every new one."""
    until(lambda: len(active(deployed, "feed")) >= 2 and len(processes(deployed, "feed")) >= 2, "two replicas of feed")
    return deployed


def test_replicas_that_die_or_hang_and_a_damaged_snapshot_cost_what_is_stated(two_feeds: Kubectl) -> None:
    with Traffic(gateway_url(two_feeds)) as traffic:
        time.sleep(3)
        feeds = processes(two_feeds, "feed")
        os.kill(feeds[0], signal.SIGKILL)
        until(lambda: set(processes(two_feeds, "feed")) - set(feeds), "the killed one started again")
        until(lambda: len(active(two_feeds, "feed")) >= len(feeds), "all slots in use")
        assert not traffic.report.failed, traffic.report.failures()

        before = readable(two_feeds)
        assert before is not None
        damaged = {"data": {SNAPSHOT_KEY: '{"epoch": 1'}}
        two_feeds.run("patch", "configmap", SNAPSHOT, "--type=merge", f"--patch={json.dumps(damaged)}")
        until(lambda: readable(two_feeds) is not None, "a snapshot that was written anew")
        after = readable(two_feeds)
        assert after is not None
        assert after.epoch >= before.epoch
        time.sleep(3)
        assert not traffic.report.failed, traffic.report.failures()

        hung = processes(two_feeds, "feed")[0]
        os.kill(hung, signal.SIGSTOP)
        try:
            time.sleep(HUNG_SECONDS)
        finally:
            os.kill(hung, signal.SIGCONT)
        report = traffic.stop()
    assert {what for _, what, _ in report.failed} <= {"read_feed"}, report.failures()
    assert len(report.failed) <= HUNG_MOST, report.failures()
    assert traffic.lost(60) == []
    assert traffic.doubled() == []


def test_an_operator_that_is_killed_is_succeeded_within_seconds_of_its_lease(two_feeds: Kubectl) -> None:
    def holder() -> str:
        lease: Any = two_feeds.get("lease", f"{RELEASE}-operator")
        return str(lease["spec"]["holderIdentity"])

    def succeeded() -> bool:
        return holder() not in {"", before} and exists(two_feeds, budget)

    operators: Any = two_feeds.get("pods", "--selector=app.kubernetes.io/component=operator")
    before, budget = holder(), f"poddisruptionbudget/{PLATFORM}-feed"
    (leader,) = (one["metadata"]["name"] for one in operators["items"] if before.startswith(one["metadata"]["name"]))
    with Traffic(gateway_url(two_feeds)) as traffic:
        os.kill(min(marked(f"HOSTNAME={leader}")), signal.SIGKILL)
        killed = time.monotonic()
        two_feeds.run("delete", budget)
        until(succeeded, "another leader, and what was deleted put back by it")
        seconds = time.monotonic() - killed
        report = traffic.stop()
    say(f"operator killed: {seconds:.1f} s until its successor has repaired, {sum(report.answered.values())} requests")
    assert seconds < SUCCESSION_SECONDS
    assert not report.failed, report.failures()


@contextmanager
def without_the_api_server() -> Iterator[None]:
    """It answers nobody meanwhile and closes nothing: its process is stopped."""
    (server,) = marked(f"FANFOLD_CLUSTER_OWNER=cluster:{CLUSTER}", "kube-apiserver")
    os.kill(server, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server, signal.SIGCONT)


@pytest.mark.long
def test_neither_a_minute_without_the_api_server_nor_its_return_is_noticed(two_feeds: Kubectl) -> None:
    with Traffic(gateway_url(two_feeds)) as traffic:
        with without_the_api_server():
            time.sleep(AWAY_SECONDS)
        time.sleep(BACK_SECONDS)
        report = traffic.stop()
    assert not report.failed, report.failures()
    assert len(report.answered) == 4
    assert traffic.lost(60) == []
    assert traffic.doubled() == []
    until(lambda: len(active(two_feeds, "feed")) >= 2, "the slots in use")


@pytest.mark.long
def test_gateways_restart_without_the_api_server(two_feeds: Kubectl) -> None:
    url = gateway_url(two_feeds)
    gateways = processes(two_feeds, "gateway")
    with Traffic(url) as traffic:
        traffic.stop()
    with without_the_api_server():
        for gateway in gateways:
            os.kill(gateway, signal.SIGKILL)
        until(lambda: serves(url, traffic.token), "gateways that serve from their disks", seconds=60)
    seconds = until(lambda: lasts(lambda: serves(url, traffic.token)), "gateways that go on serving", seconds=120)
    say(f"gateways have served for 15 s, {seconds:.0f} s after the API server came back")
    until(lambda: len(active(two_feeds, "feed")) >= 2, "the slots in use")


def lasts(condition: Callable[[], bool]) -> bool:
    """Whether it holds for 15 s."""
    until_then = time.monotonic() + 15
    while condition() and time.monotonic() < until_then:
        time.sleep(0.5)
    return time.monotonic() >= until_then


def serves(url: str, token: str) -> bool:
    """Whether a request reaches a service."""
    try:
        answer = httpx.get(f"{url}/v1/users/me", headers={"authorization": f"Bearer {token}"}, timeout=5)
    except httpx.TransportError:
        return False
    return answer.status_code == 200
