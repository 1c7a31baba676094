"""An operator whose API server is away, refuses, or tells old news; what it does when there is nothing to do."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fanfold.contracts.snapshot import SNAPSHOT_KEY, decode
from tests.integration.operator.proxy import Fault, Proxy

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400), pytest.mark.usefixtures("kubelet")]

OUTAGE_SECONDS = 30.0
DRIFT_SECONDS = 5.0
RECOVERY_SECONDS = 15.0
"""After an outage the Lease is won again and every watch begun anew, each tried every 2 s, before drift is seen."""
QUIET_SECONDS = 20.0
ROUND_SECONDS = 12.0
"""Longer than a ring waits between its looks: in such a time all that looks by itself has looked."""


@pytest.fixture
def proxy(kubeconfig: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """Between the operators of this test and the API server."""
    with Proxy(kubeconfig) as proxy:
        monkeypatch.setenv("KUBECONFIG", str(proxy.kubeconfig(tmp_path / "kubeconfig")))
        yield proxy


@pytest.fixture
def rest(proxy: Proxy, namespace: str) -> Callable[..., None]:
    """Wait until no call was made for this Platform for 20 s: autoscalers tell of themselves every 15 s at first."""

    def calls() -> int:
        return sum(bool(call.status) and namespace in call.path for call in list(proxy.calls))

    def wait(seconds: float = QUIET_SECONDS) -> None:
        before, since = calls(), time.monotonic()
        deadline = since + 120
        while time.monotonic() - since < seconds:
            assert time.monotonic() < deadline, "it does not come to rest"
            time.sleep(0.1)
            if (now := calls()) != before:
                before, since = now, time.monotonic()

    return wait


@pytest.fixture
def meddle(kube: Any, namespace: str, eventually: Any) -> Callable[[], Callable[[], float]]:
    """Delete one child and edit another; then wait until both are right, and give the seconds that took."""

    def break_things() -> Callable[[], float]:
        uid = kube.get("Service", namespace, "demo-post")["metadata"]["uid"]
        kube.delete("Service", namespace, "demo-post")
        kube.patch("Service", namespace, "demo-feed", {"spec": {"selector": {"fanfold.dev/service": "post"}}})

        def right() -> bool:
            post, feed = (kube.get("Service", namespace, name) for name in ("demo-post", "demo-feed"))
            selector = feed["spec"]["selector"]["fanfold.dev/service"]
            return bool(post and post["metadata"]["uid"] != uid and selector == "feed")

        def wait() -> float:
            started = time.monotonic()
            eventually(right, 60)
            return time.monotonic() - started

        return wait

    return break_things


def test_after_an_outage_of_half_a_minute_it_repairs_what_happened_meanwhile(
    proxy: Proxy, start_operator: Any, ready: Any, meddle: Any
) -> None:
    with start_operator():
        ready()
        proxy.cut()
        repaired = meddle()
        time.sleep(OUTAGE_SECONDS)
        proxy.mend()
        assert repaired() < RECOVERY_SECONDS
        assert meddle()() < DRIFT_SECONDS, "and watches as before"


def test_a_platform_comes_up_through_storms_of_refusals(
    proxy: Proxy, start_operator: Any, ready: Any, kube: Any, namespace: str, settle: Any
) -> None:
    chance = random.Random(11)
    faults = Counter[int]()

    def storm(method: str, path: str) -> Fault | None:
        if namespace not in path or chance.random() > 0.3:
            return None
        status = chance.choice([409, 429, 500])
        faults[status] += 1
        return Fault(status, accepted=method != "GET" and chance.random() < 0.5)

    proxy.judge = storm
    with start_operator():
        ready()
        proxy.judge = lambda *_: None
        assert min(faults[status] for status in (409, 429, 500)) > 5
        settle()
    with start_operator():
        settle()
        since = time.monotonic()
        settle()
        assert proxy.writes(since=since, path=namespace) == [], "nothing was left half done"


def test_old_news_told_again_change_nothing(
    proxy: Proxy, start_operator: Any, ready: Any, kube: Any, namespace: str, rest: Any, meddle: Any
) -> None:
    def ring() -> Any:
        return decode(kube.get("ConfigMap", namespace, "demo-snapshot")["data"][SNAPSHOT_KEY])

    proxy.replay = 0.5
    with start_operator():
        ready()
        rest()
        assert proxy.replayed > 100
        before, since = ring(), time.monotonic()
        kube.patch("ServiceAccount", namespace, "demo-post", {"metadata": {"annotations": {"nudge": "1"}}})
        rest(ROUND_SECONDS)
        assert proxy.writes(since=since, path=namespace) == []
        assert ring() == before
        assert meddle()() < DRIFT_SECONDS


def test_a_platform_at_rest_costs_no_call_and_drift_is_repaired_in_seconds(
    proxy: Proxy, start_operator: Any, ready: Any, namespace: str, rest: Any, meddle: Any
) -> None:
    with start_operator():
        ready()
        rest()
        since = time.monotonic()
        time.sleep(ROUND_SECONDS)
        calls = [call for call in proxy.calls if call.at > since and call.status and namespace in call.path]
        assert calls == [], "a settled Platform costs no call: all is known from watches"
        assert max(meddle()() for _ in range(5)) < DRIFT_SECONDS
