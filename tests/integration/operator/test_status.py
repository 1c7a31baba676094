"""What `kubectl get` and `kubectl describe` show of a platform."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from fanfold_operator.api import Api, login
from fanfold_operator.events import Recorder
from tests.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400), pytest.mark.usefixtures("kubelet")]

TABLE = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
SPECIFIC = {
    "Platform": {
        "Ready", "Progressing", "Degraded", "DatabaseReady", "CacheReady", "ObjectStoreReady", "MigrationsComplete",
        "ServicesReady", "RingSynced", "UpToDate", "OwnershipConflict", "Paused",
    },
    "PlatformService": {"Ready", "Progressing", "Degraded", "OwnershipConflict", "AutoscalingActive"},
    "HashRing": {"Ready", "Synced"},
}  # fmt: skip


@pytest.fixture
def columns(kube: Any, namespace: str) -> Callable[[str, str], dict[str, Any]]:
    """What `kubectl get` prints of one object, wide columns included."""

    def read(kind: str, name: str) -> dict[str, Any]:
        table = kube.client.get(kube.path(kind, namespace, name), headers=TABLE).raise_for_status().json()
        names = [column["name"] for column in table["columnDefinitions"]]
        return dict(zip(names, table["rows"][0]["cells"], strict=True))

    return read


def test_the_columns_say_whether_it_is_well(operator: Any, ready: Any, columns: Any) -> None:
    ready()

    def agreed() -> dict[str, Any] | None:
        """The Platform's columns once they and the ring's tell of one epoch."""
        one, ring = columns("Platform", "demo"), columns("HashRing", "demo")
        settled = (ring["Epoch"], ring["Acked"], ring["Draining"]) == (one["Ring"], "2/2", 0)
        return one if settled and one["Acked"] == "2/2" else None

    shown = until(agreed)
    assert {name: shown[name] for name in ("Name", "Ready", "Status", "Version")} == {
        "Name": "demo",
        "Ready": "11/11",
        "Status": "Ready",
        "Version": "0.1.0",
    }
    assert shown["Ring"] >= 1
    assert shown["URL"].startswith("http://")
    until(lambda: columns("PlatformService", "demo-feed-worker")["Desired"] == 1)
    worker = columns("PlatformService", "demo-feed-worker")
    assert (worker["Ready"], worker["Min"], worker["Max"], worker["Scaler"]) == ("1/1", 1, 10, "Operator")


def test_every_condition_has_all_that_the_conventions_ask_for(
    operator: Any, ready: Any, kube: Any, namespace: str, make_platform: Any, condition: Any
) -> None:
    ready()

    def observed(kind: str) -> list[Any] | None:
        """All of a kind once the operator has told of what they are now."""
        found = kube.list(kind, namespace)
        told = [one["metadata"]["generation"] == one["status"]["observedGeneration"] for one in found]
        return found if told and all(told) else None

    for kind, wanted in SPECIFIC.items():
        for one in until(partial(observed, kind)):
            conditions = {found["type"]: found for found in one["status"]["conditions"]}
            assert wanted <= set(conditions), f"{kind} {one['metadata']['name']}"
            for found in conditions.values():
                assert found["status"] in {"True", "False", "Unknown"}
                assert found["reason"]
                assert found["lastTransitionTime"]
                assert found["observedGeneration"] == one["metadata"]["generation"]
    before = condition("Ready")
    make_platform(logLevel="WARNING")
    generation = before["observedGeneration"] + 1
    until(lambda: condition("DatabaseReady")["observedGeneration"] == generation)
    after = condition("DatabaseReady")
    assert after["status"] == "True"
    first = [
        one for one in kube.list("Platform", namespace)[0]["status"]["conditions"] if one["type"] == "DatabaseReady"
    ]
    assert first[0]["lastTransitionTime"] == after["lastTransitionTime"], "what did not turn keeps its time"


async def test_what_happens_again_is_one_event_that_counts(kube: Any, namespace: str) -> None:
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "told"}}
    resource = kube.apply(config, namespace)
    api = Api(await login())
    try:
        recorder = Recorder(api)
        for _ in range(3):
            await recorder.tell(resource, "DiskFull", "no space on /data", warning=True)
    finally:
        await api.close()
    found = kube.call("GET", f"/apis/events.k8s.io/v1/namespaces/{namespace}/events")["items"]
    (event,) = [one for one in found if one["reason"] == "DiskFull"]
    assert event["series"]["count"] == 3
    assert event["note"] == "no space on /data"
    assert event["regarding"]["uid"] == resource["metadata"]["uid"]
    assert event["reportingController"] == "fanfold.dev/operator"
