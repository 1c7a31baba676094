"""An operator whose API server is away, refuses, or tells old news; what it does when there is nothing to do."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from fanfold.contracts.snapshot import SNAPSHOT_KEY, decode
from tests.integration.operator.proxy import Call, Fault, Proxy
from tests.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400), pytest.mark.usefixtures("kubelet")]

OUTAGE_SECONDS = 30.0
DRIFT_SECONDS = 5.0
RECOVERY_SECONDS = 30.0
"""After an outage the Lease is won again and every watch begun anew, each tried every 2 s, before drift is seen. A
listing of everything would find it after 300 s."""
ROUND_SECONDS = 6.0
"""In such a time all that looks by itself has looked: Kubernetes' autoscaler every 5 s here, the rest more often."""
OFTEN = {"ring": {"snapshotRefreshSeconds": 2}}


@pytest.fixture
def proxy(kubeconfig: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """Between the operators of this test and the API server."""
    with Proxy(kubeconfig) as proxy:
        monkeypatch.setenv("KUBECONFIG", str(proxy.kubeconfig(tmp_path / "kubeconfig")))
        yield proxy


@pytest.fixture
def round_of(proxy: Proxy, namespace: str) -> Callable[..., list[Call]]:
    """Calls made for this Platform after something is done, in the time in which all that looks by itself looks.

    Those of the first round that has none, or of the last of five: what the deed causes it causes each time, and what
    looks by itself does so in each; what a busy machine brings late falls into one.
    """

    def look(act: Callable[[], object] = lambda: None, *, writes: bool = False) -> list[Call]:
        found: list[Call] = []
        for _ in range(5):
            since = time.monotonic()
            act()
            time.sleep(ROUND_SECONDS)
            calls = [call for call in list(proxy.calls) if call.at > since and call.status and namespace in call.path]
            found = [call for call in calls if call.writes or not writes]
            if not found:
                break
        return found

    return look


@pytest.fixture
def meddle(kube: Any, namespace: str) -> Callable[[], Callable[[], float]]:
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
            until(right, seconds=60)
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
        assert median(meddle()() for _ in range(3)) < DRIFT_SECONDS, "and watches as before"


def test_a_platform_comes_up_through_storms_of_refusals(
    proxy: Proxy, start_operator: Any, ready: Any, namespace: str, informed: Any, costs: Any
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
        informed()
    with start_operator():
        costs(lambda: None, lambda calls: set(calls) <= {"GET"})  # nothing was left half done


def test_old_news_told_again_change_nothing(
    proxy: Proxy, start_operator: Any, ready: Any, kube: Any, namespace: str, informed: Any, round_of: Any, meddle: Any
) -> None:
    rings = []

    def nudge() -> None:
        rings.append(decode(kube.get("ConfigMap", namespace, "demo-snapshot")["data"][SNAPSHOT_KEY]))
        annotations = {"nudge": str(len(rings))}
        kube.patch("ServiceAccount", namespace, "demo-post", {"metadata": {"annotations": annotations}})

    proxy.replay = 0.5
    with start_operator():
        ready(**OFTEN)
        informed()
        assert round_of(nudge, writes=True) == []
        assert proxy.replayed > 100
        nudge()
        assert rings[-1] == rings[-2]
        assert median(meddle()() for _ in range(3)) < DRIFT_SECONDS


def test_a_platform_at_rest_costs_no_call_and_drift_is_repaired_in_seconds(
    start_operator: Any, ready: Any, informed: Any, round_of: Any, meddle: Any
) -> None:
    with start_operator():
        ready(**OFTEN)
        informed()
        assert round_of() == [], "a settled Platform costs no call: all is known from watches"
        assert median(meddle()() for _ in range(5)) < DRIFT_SECONDS
