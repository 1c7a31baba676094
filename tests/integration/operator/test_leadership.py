"""Two operators as two processes, one of which is killed, stopped or paused, against a real API server."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.operator.proxy import Proxy
from tests.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400), pytest.mark.usefixtures("kubelet")]

COMMAND = [sys.executable, "-c", "from fanfold_operator.cli import main; main()", "run", "--admin-port", "0"]
TAKEOVER_SECONDS = 25.0
"""15 s on a quiet machine: the lease (10 s), a look, a listing and the repair, which a busy one makes last."""
HANDOVER_SECONDS = 8.0
"""A second on a quiet machine. By waiting for the lease to run out it would be 10 s at least."""


class Process:
    """One operator of a namespace, reached through the proxy."""

    def __init__(self, kubeconfig: Path, namespace: str, log: Path) -> None:
        self._log = log
        environment = {**os.environ, "KUBECONFIG": str(kubeconfig), "FANFOLD_OPERATOR_LEASE_NAMESPACE": namespace}
        with log.open("wb") as output:
            arguments = [*COMMAND, "--namespace", namespace]
            self.process = subprocess.Popen(arguments, env=environment, stdout=output, stderr=output)

    def said(self, pattern: str) -> str | None:
        found = re.search(pattern, self._log.read_text())
        return found.group(1) if found else None

    @property
    def port(self) -> str | None:
        return self.said(r'"admin_port": (\d+)')

    @property
    def identity(self) -> str:
        """As soon as it has led."""
        return self.said(r'"identity": "([^"]+)"') or ""

    @property
    def leads(self) -> bool:
        return self.metric("fanfold_operator_leader") == 1

    def metric(self, name: str) -> float:
        text = httpx.get(f"http://127.0.0.1:{self.port}/metrics", trust_env=False, timeout=30).text
        found = re.search(rf"^{name} (\S+)$", text, re.MULTILINE)
        assert found, name
        return float(found.group(1))

    def ready(self) -> bool:
        url = f"http://127.0.0.1:{self.port}/readyz"
        return bool(self.port) and httpx.get(url, trust_env=False, timeout=30).is_success

    def end(self) -> None:
        self.process.kill()
        self.process.wait(10)


@pytest.fixture
def proxy(kubeconfig: Path) -> Iterator[Proxy]:
    with Proxy(kubeconfig) as proxy:
        yield proxy


@pytest.fixture
def pair(proxy: Proxy, namespace: str, tmp_path: Path) -> Iterator[tuple[Process, Process]]:
    """Two operators: one that leads, and one that can take over."""
    config = proxy.kubeconfig(tmp_path / "kubeconfig")
    with ExitStack() as stack:
        both = [Process(config, namespace, tmp_path / f"{name}.log") for name in ("one", "other")]
        for process in both:
            stack.callback(process.end)
        for process in both:
            until(process.ready)
        until(lambda: any(process.leads for process in both))
        leader, standby = sorted(both, key=lambda process: not process.leads)
        yield leader, standby


@pytest.fixture
def holder(kube: Any, namespace: str) -> Callable[[], str]:
    path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/fanfold-operator"

    def read() -> str:
        answer = kube.client.get(path)
        return "" if answer.status_code == 404 else answer.json()["spec"].get("holderIdentity") or ""

    return read


@pytest.fixture
def lose_service(kube: Any, namespace: str) -> Callable[[], None]:
    """Delete a Service that an operator makes, and wait until it is back."""

    def lose() -> None:
        uid = kube.get("Service", namespace, "demo-post")["metadata"]["uid"]
        kube.delete("Service", namespace, "demo-post")
        until(lambda: (one := kube.get("Service", namespace, "demo-post")) and one["metadata"]["uid"] != uid)

    return lose


def test_one_writes_and_the_other_stands_by_ready_and_silent(
    pair: Any, proxy: Proxy, make_platform: Any, kube: Any, namespace: str, holder: Any
) -> None:
    first, second = pair
    make_platform()
    until(lambda: kube.get("Service", namespace, "demo-post"))
    assert (first.leads, second.leads) == (True, False)
    assert first.identity == holder()
    assert second.ready()
    assert {call.agent.split()[1] for call in proxy.writes()} == {first.identity}


def test_the_other_one_takes_over_when_the_first_is_killed(
    pair: Any, make_platform: Any, kube: Any, namespace: str, holder: Any
) -> None:
    first, second = pair
    make_platform()
    until(lambda: kube.get("Service", namespace, "demo-post"))
    killed = time.monotonic()
    first.process.kill()
    first.process.wait(30)
    kube.delete("Service", namespace, "demo-post")
    until(lambda: kube.get("Service", namespace, "demo-post"))
    assert time.monotonic() - killed < TAKEOVER_SECONDS
    assert holder() == second.identity


def test_one_that_is_stopped_hands_over(pair: Any, make_platform: Any, kube: Any, namespace: str, holder: Any) -> None:
    first, second = pair
    make_platform()
    until(lambda: kube.get("Service", namespace, "demo-post"))
    stopped = time.monotonic()
    first.process.terminate()
    until(lambda: holder() not in {"", first.identity})
    assert time.monotonic() - stopped < HANDOVER_SECONDS
    assert first.process.wait(60) == 0
    until(lambda: second.identity == holder())


def test_one_that_was_paused_never_writes_after_the_other_took_over(
    pair: Any,
    proxy: Proxy,
    make_platform: Any,
    kube: Any,
    namespace: str,
    holder: Any,
    lose_service: Any,
) -> None:
    first, second = pair
    proxy.slow = 0.5  # so that, when it is stopped, answers are on their way, after which it means to write more
    make_platform()
    until(lambda: len(proxy.writes()) > 3)
    first.process.send_signal(signal.SIGSTOP)
    until(lambda: second.identity and holder() == second.identity)
    took = time.monotonic()
    proxy.slow = 0.0
    until(lambda: kube.get("Service", namespace, "demo-post"))
    first.process.send_signal(signal.SIGCONT)
    until(lambda: not first.leads)
    lose_service()
    lose_service()
    assert proxy.writes(since=took, agent=first.identity) == []
    assert proxy.writes(since=took, agent=second.identity)
    until(lambda: first.said('("lost": true)'))
    second.process.kill()
    until(lambda: holder() == first.identity)
    lose_service()  # it can lead again
