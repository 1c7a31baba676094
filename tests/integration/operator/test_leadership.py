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

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400), pytest.mark.usefixtures("kubelet")]

COMMAND = [sys.executable, "-c", "from fanfold_operator.cli import main; main()", "run", "--admin-port", "0"]
TAKEOVER_SECONDS = 15.0
HANDOVER_SECONDS = 2.0


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

    def metric(self, name: str) -> float:
        text = httpx.get(f"http://127.0.0.1:{self.port}/metrics", trust_env=False).text
        found = re.search(rf"^{name} (\S+)$", text, re.MULTILINE)
        assert found, name
        return float(found.group(1))

    def ready(self) -> bool:
        return bool(self.port) and httpx.get(f"http://127.0.0.1:{self.port}/readyz", trust_env=False).is_success

    def end(self) -> None:
        self.process.kill()
        self.process.wait(10)


@pytest.fixture
def proxy(kubeconfig: Path) -> Iterator[Proxy]:
    with Proxy(kubeconfig) as proxy:
        yield proxy


@pytest.fixture
def start(proxy: Proxy, namespace: str, tmp_path: Path, kube: Any, eventually: Any) -> Iterator[Callable[[], Process]]:
    """Start an operator and wait until it can lead or take over."""
    config = proxy.kubeconfig(tmp_path / "kubeconfig")
    with ExitStack() as stack:

        def run() -> Process:
            process = Process(config, namespace, tmp_path / f"{time.monotonic()}.log")
            stack.callback(process.end)
            eventually(process.ready, 60)
            return process

        yield run


@pytest.fixture
def holder(kube: Any, namespace: str) -> Callable[[], str]:
    path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/fanfold-operator"

    def read() -> str:
        answer = kube.client.get(path)
        return "" if answer.status_code == 404 else answer.json()["spec"].get("holderIdentity") or ""

    return read


@pytest.fixture
def lose_service(kube: Any, namespace: str, eventually: Any) -> Callable[[], float]:
    """Delete a Service that an operator makes, wait until it is back, and give the seconds that took."""

    def lose() -> float:
        uid = kube.get("Service", namespace, "demo-post")["metadata"]["uid"]
        started = time.monotonic()
        kube.delete("Service", namespace, "demo-post")
        eventually(lambda: (one := kube.get("Service", namespace, "demo-post")) and one["metadata"]["uid"] != uid, 40)
        return time.monotonic() - started

    return lose


def test_one_writes_and_the_other_stands_by_ready_and_silent(
    start: Any, proxy: Proxy, make_platform: Any, kube: Any, namespace: str, eventually: Any, holder: Any
) -> None:
    first = start()
    eventually(holder)
    second = start()
    make_platform()
    eventually(lambda: kube.get("Service", namespace, "demo-post"), 60)
    assert (first.metric("fanfold_operator_leader"), second.metric("fanfold_operator_leader")) == (1, 0)
    assert first.identity == holder()
    assert second.ready()
    assert {call.agent.split()[1] for call in proxy.writes()} == {first.identity}


def test_the_other_one_takes_over_when_the_first_is_killed(
    start: Any, make_platform: Any, kube: Any, namespace: str, eventually: Any, holder: Any
) -> None:
    first = start()
    make_platform()
    eventually(lambda: kube.get("Service", namespace, "demo-post"), 60)
    second = start()
    killed = time.monotonic()
    first.process.kill()
    kube.delete("Service", namespace, "demo-post")
    eventually(lambda: kube.get("Service", namespace, "demo-post"), 40)
    assert time.monotonic() - killed < TAKEOVER_SECONDS
    assert holder() == second.identity


def test_one_that_is_stopped_hands_over(
    start: Any, make_platform: Any, kube: Any, namespace: str, eventually: Any, holder: Any
) -> None:
    first = start()
    make_platform()
    eventually(lambda: kube.get("Service", namespace, "demo-post"), 60)
    second = start()
    stopped = time.monotonic()
    first.process.terminate()
    eventually(lambda: holder() not in {"", first.identity}, 10)
    assert time.monotonic() - stopped < HANDOVER_SECONDS
    assert first.process.wait(15) == 0
    eventually(lambda: second.identity == holder())


def test_one_that_was_paused_never_writes_after_the_other_took_over(
    start: Any,
    proxy: Proxy,
    make_platform: Any,
    kube: Any,
    namespace: str,
    eventually: Any,
    holder: Any,
    lose_service: Any,
) -> None:
    first = start()
    eventually(holder)
    second = start()
    proxy.slow = 0.5  # so that, when it is stopped, answers are on their way, after which it means to write more
    make_platform()
    eventually(lambda: len(proxy.writes()) > 3, 60)
    first.process.send_signal(signal.SIGSTOP)
    eventually(lambda: second.identity and holder() == second.identity, 40)
    took = time.monotonic()
    proxy.slow = 0.0
    eventually(lambda: kube.get("Service", namespace, "demo-post"), 60)
    first.process.send_signal(signal.SIGCONT)
    eventually(lambda: first.metric("fanfold_operator_leader") == 0)
    lose_service()
    lose_service()
    assert proxy.writes(since=took, agent=first.identity) == []
    assert proxy.writes(since=took, agent=second.identity)
    assert first.said('("lost": true)'), "it knows"
    second.process.kill()
    eventually(lambda: holder() == first.identity, 20)
    assert lose_service() < 5, "it can lead again"
