"""Who scales what, by which manifests, and what is told of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Iterable
from typing import Any

import pytest

from fanfold.contracts.resources import PlatformServiceSpec, ServiceScaling, parse
from fanfold_operator.api import ApiError
from fanfold_operator.autoscale import backlog, scaler
from fanfold_operator.autoscale.report import MISSING, Report, State, report, scaled
from fanfold_operator.autoscale.rules import Apis, Scaler
from fanfold_operator.autoscale.rules import scaler as who_scales
from fanfold_operator.autoscale.scaler import Autoscaler
from fanfold_operator.discovery import Discovery
from fanfold_operator.kinds import Key, Manifest, key_of
from fanfold_operator.planning import components, service
from fanfold_operator.resources import autoscalers
from fanfold_operator.scrape import Sample, Scrape
from fanfold_operator.store import Store
from tests.waiting import eventually

ADAPTER = Apis(pod_metrics=frozenset({"fanfold_http_requests_in_flight", "fanfold_gateway_requests_in_flight"}))
KEDA = Apis(keda=True)


@pytest.fixture
def make(resource: Callable[..., Manifest]) -> Callable[..., Manifest]:
    """A PlatformService of a component."""

    def of(component: str = "post", status: dict[str, Any] | None = None, **spec: Any) -> Manifest:
        serves = not component.endswith("-worker")
        fields = {"platform": "demo", "component": component, "version": "1", "image": "x", "serves": serves}
        fields |= {"scaling": {"min": 1, "max": 6}, **spec}
        return resource("PlatformService", f"demo-{component}", fields, status=status or {})

    return of


def spec_of(manifest: Manifest) -> PlatformServiceSpec:
    return parse(PlatformServiceSpec, manifest)


@pytest.mark.parametrize(
    ("component", "spec", "apis", "expected"),
    [
        ("post", {}, KEDA, Scaler.HPA),
        ("gateway", {"autoscaling": {"mode": "DryRun"}}, Apis(), Scaler.HPA),
        ("feed-worker", {}, Apis(), Scaler.OPERATOR),
        ("feed-worker", {}, KEDA, Scaler.KEDA),
        ("feed-worker", {"autoscaling": {"mode": "DryRun"}}, KEDA, Scaler.OPERATOR),
        ("feed-worker", {"autoscaling": {"mode": "Off"}}, KEDA, Scaler.NOBODY),
        ("post", {"scaling": {"min": 2, "max": 2}}, KEDA, Scaler.NOBODY),
    ],
)
def test_who_scales(make: Any, component: str, spec: dict[str, Any], apis: Apis, expected: Scaler) -> None:
    assert who_scales(spec_of(make(component, **spec)), apis) is expected


@pytest.mark.parametrize(
    ("component", "metric"),
    [("post", "fanfold_http_requests_in_flight"), ("gateway", "fanfold_gateway_requests_in_flight")],
)
def test_requests_under_way_count_where_an_adapter_serves_them(make: Any, component: str, metric: str) -> None:
    owner = make(component, autoscaling={"targetInFlight": 30})
    both = autoscalers.horizontal(owner, spec_of(owner), ADAPTER.pod_metrics)["spec"]["metrics"]
    assert [one["type"] for one in both] == ["Resource", "Pods"]
    assert both[1]["pods"]["metric"]["name"] == metric
    assert both[1]["pods"]["target"] == {"type": "AverageValue", "averageValue": "30"}
    alone = autoscalers.horizontal(owner, spec_of(owner), frozenset())["spec"]["metrics"]
    assert [one["type"] for one in alone] == ["Resource"]


def test_a_dry_run_may_measure_and_not_act(make: Any) -> None:
    owner = make(autoscaling={"mode": "DryRun", "scaleUpWindowSeconds": 7, "scaleDownWindowSeconds": 70})
    behavior = autoscalers.horizontal(owner, spec_of(owner), frozenset())["spec"]["behavior"]
    assert {one["selectPolicy"] for one in behavior.values()} == {"Disabled"}
    assert [behavior[way]["stabilizationWindowSeconds"] for way in ("scaleUp", "scaleDown")] == [7, 70]


def test_an_autoscaler_of_another_kind_goes_when_it_is_not_wanted(make: Any, view: Any) -> None:
    owner = make("feed-worker")
    live = autoscalers.scaled_object(owner, spec_of(owner))
    assert service.plan(view(owner, [live], apis=KEDA)).delete == ()
    off = make("feed-worker", autoscaling={"mode": "Off"})
    assert service.plan(view(off, [live], apis=KEDA)).delete == (live,)


def hpa(make: Any, **status: Any) -> Manifest:
    owner = make()
    return {**autoscalers.horizontal(owner, spec_of(owner), ADAPTER.pod_metrics), "status": status}


def told(manifest: Manifest, child: Manifest | None = None, state: State | None = None, apis: Apis = ADAPTER) -> Report:
    return report(manifest, spec_of(manifest), apis, child, state)


def turned(kind: str, status: str, reason: str, message: str = "") -> dict[str, str]:
    return {"type": kind, "status": status, "reason": reason, "message": message}


def test_what_is_told_of_a_horizontal_autoscaler(make: Any) -> None:
    limit = turned("ScalingLimited", "True", "TooManyReplicas", "more than the maximum are desired")
    child = hpa(
        make,
        desiredReplicas=6,
        lastScaleTime="2026-01-02T03:00:00Z",
        conditions=[turned("ScalingActive", "True", "ValidMetricFound"), limit],
    )
    found = told(make(replicas=6), child)
    assert (found.condition.status, found.condition.reason, found.frozen) == (True, "Active", False)
    assert found.block == {
        "by": "HorizontalPodAutoscaler",
        "desired": 6,
        "why": "more than the maximum are desired",
        "lastScaleTime": "2026-01-02T03:00:00Z",
    }


def test_an_autoscaler_without_metrics_is_frozen(make: Any) -> None:
    child = hpa(make, conditions=[turned("ScalingActive", "False", "FailedGetResourceMetric", "no metrics-server")])
    found = told(make(), child)
    assert (found.condition.status, found.condition.reason, found.frozen) == (False, MISSING, True)
    assert "no metrics-server" in found.condition.message
    assert told(make(), None).condition.status is None


@pytest.mark.parametrize(
    ("cpu", "in_flight", "desired"), [("1200m", "1", 4), ("630m", "1", 2), ("1", "200", 6), ("10m", "0", 1)]
)
def test_what_a_dry_run_of_a_service_would_do(make: Any, cpu: str, in_flight: str, desired: int) -> None:
    current = [
        {"type": "Resource", "resource": {"name": "cpu", "current": {"averageValue": cpu}}},
        {
            "type": "Pods",
            "pods": {"metric": {"name": "fanfold_http_requests_in_flight"}, "current": {"averageValue": in_flight}},
        },
    ]
    child = hpa(make, desiredReplicas=2, currentMetrics=current, conditions=[turned("ScalingActive", "True", "Ok")])
    found = told(make(replicas=2, autoscaling={"mode": "DryRun"}), child)
    assert found.block["desired"] == desired
    assert found.block["why"].startswith("dry run: mean ")
    assert found.condition.reason == "DryRun"


def test_an_operator_that_has_just_started_tells_what_was_told(make: Any) -> None:
    before = {"by": "Operator", "desired": 3, "why": "because", "lastScaleTime": "2026-01-02T03:00:00Z"}
    status = {"autoscaling": before, "conditions": [turned("AutoscalingActive", "False", MISSING, "gone")]}
    found = told(make("feed-worker", status=status, replicas=3))
    assert found.block == before
    assert (found.condition.status, found.condition.reason, found.condition.message) == (False, MISSING, "gone")


@pytest.mark.parametrize(
    ("before", "after", "note"),
    [
        ({"desired": 1}, {"desired": 3, "by": "KEDA", "lastScaleTime": "b"}, "scaled from 1 to 3 by KEDA"),
        ({"desired": 1}, {"desired": 3, "by": "Operator"}, None),
        ({}, {"desired": 3, "by": "KEDA", "lastScaleTime": "b"}, None),
        ({"desired": 3, "lastScaleTime": "a"}, {"desired": 3, "by": "KEDA", "lastScaleTime": "b"}, None),
    ],
)
def test_a_change_of_replicas_is_worth_an_event_and_a_wish_is_not(before: Any, after: Any, note: str | None) -> None:
    assert scaled(before, after) == note


def test_the_backlog_is_the_largest_that_any_pod_tells_and_one_that_answers_is_enough(make: Any) -> None:
    def pod(messages: float, oldest: float) -> Scrape:
        label = {"group": "feed-worker"}
        return Scrape("x", (Sample(backlog.MESSAGES, label, messages), Sample(backlog.OLDEST, label, oldest)))

    spec = spec_of(make("feed-worker"))
    waiting, age = backlog.metrics(spec, [Scrape("y", error="down"), pod(7, 1), pod(9, 0.5)])
    assert (waiting.value, age.value, age.at_most) == (9, 1, 9)
    assert [one.value for one in backlog.metrics(spec, [Scrape("y", error="down")])] == [None, None]


class Kubernetes:
    """The scale subresource, and discovery."""

    def __init__(self) -> None:
        self.scaled: list[tuple[int, str]] = []
        self.refuse = 0
        self.served: dict[str, frozenset[str] | ApiError] = {}

    async def merge(self, key: Key, body: Manifest, manager: str, subresource: str | None = None) -> Manifest:
        assert (key.kind, manager, subresource) == ("PlatformService", scaler.MANAGER, "scale")
        if self.refuse:
            self.refuse -= 1
            raise ApiError(409, "Conflict", "modified")
        self.scaled.append((body["spec"]["replicas"], body["metadata"]["resourceVersion"]))
        return {}

    async def resources(self, version: str) -> frozenset[str]:
        found = self.served.get(version, frozenset())
        if isinstance(found, ApiError):
            raise found
        return found


@pytest.fixture
async def edge(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Autoscaler, Kubernetes, Store, dict[str, float | None], list[Key]]]:
    """An autoscaler that looks every 20 ms, what it is told, and what it does."""
    monkeypatch.setattr(scaler, "SYNC_SECONDS", 0.02)
    monkeypatch.setattr(scaler, "RETRY_SECONDS", 0.01)
    load: dict[str, float | None] = {"messages": 0.0}
    api, store, changed = Kubernetes(), Store(), list[Key]()

    async def measure(targets: Iterable[str], names: Collection[str]) -> list[Scrape]:
        assert set(names) == {backlog.MESSAGES, backlog.OLDEST}
        label, messages = {"group": "feed-worker"}, load["messages"]
        if messages is None:
            return [Scrape(target, error="down") for target in targets]
        samples = (Sample(backlog.MESSAGES, label, messages), Sample(backlog.OLDEST, label, 0.0))
        return [Scrape(target, samples) for target in targets]

    store.put({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": "s",
            "namespace": "prod",
            "uid": "s",
            "resourceVersion": "1",
            "labels": {"fanfold.dev/platform": "demo", "fanfold.dev/service": "feed-worker"},
        },
        "endpoints": [{"addresses": ["10.0.0.9"], "conditions": {"ready": True}}],
    })  # fmt: skip
    autoscaler = Autoscaler(api, store, measure, changed.append)  # type: ignore[arg-type]
    yield autoscaler, api, store, load, changed
    await autoscaler.close()


async def test_replicas_are_written_with_the_version_that_was_looked_at(edge: Any, make: Any) -> None:
    autoscaler, api, store, load, changed = edge
    worker = make("feed-worker")
    store.put(worker)
    key = key_of(worker)
    assert autoscaler.follow(key) is None
    await eventually(lambda: autoscaler.follow(key))
    assert (api.scaled, autoscaler.follow(key).desired, changed) == ([], 1, [key])
    load["messages"] = 350.0
    api.refuse = 2
    await eventually(lambda: api.scaled)
    assert api.scaled[0] == (4, "1")
    await eventually(lambda: autoscaler.follow(key).scaled_at)
    assert autoscaler.follow(key).desired == 4
    autoscaler.forget(key)
    assert autoscaler.follow(key) is None, "begins anew"


async def test_a_dry_run_writes_nothing_and_missing_metrics_are_told_once(edge: Any, make: Any) -> None:
    autoscaler, api, store, load, changed = edge
    worker = make("feed-worker", autoscaling={"mode": "DryRun"})
    store.put(worker)
    key = key_of(worker)
    load["messages"] = 350.0
    autoscaler.follow(key)
    await eventually(lambda: (state := autoscaler.follow(key)) and state.desired == 4)
    load["messages"] = None
    await eventually(lambda: autoscaler.follow(key).missing)
    assert autoscaler.follow(key).desired == 1, "nothing is known that asks for more"
    count = len(changed)
    await asyncio.sleep(0.2)
    assert len(changed) == count, "the same again is no news"
    assert api.scaled == []


async def test_what_fails_once_is_tried_again(edge: Any, make: Any, caplog: pytest.LogCaptureFixture) -> None:
    autoscaler, api, store, load, _ = edge
    worker = make("feed-worker", scaling={"min": "many"})
    store.put(worker)
    key = key_of(worker)
    autoscaler.follow(key)
    await asyncio.sleep(0.1)
    mended = make("feed-worker")
    mended["metadata"]["resourceVersion"] = "2"
    store.put(mended)
    load["messages"] = 350.0
    await eventually(lambda: api.scaled)


async def test_optional_apis_are_found_and_one_that_fails_is_what_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fanfold_operator.discovery.REMEMBERED_SECONDS", 0.0)
    api = Kubernetes()
    discovery = Discovery(api)  # type: ignore[arg-type]
    assert await discovery.apis() == Apis()
    api.served = {
        "keda.sh/v1alpha1": frozenset({"scaledobjects", "scaledjobs"}),
        "gateway.networking.k8s.io/v1": frozenset({"httproutes"}),
        "custom.metrics.k8s.io/v1beta1": frozenset({"pods/a", "namespaces/a"}),
    }
    there = Apis(keda=True, gateway=True, pod_metrics=frozenset({"a"}))
    assert await discovery.apis() == there
    api.served = dict.fromkeys(api.served, ApiError(503, "ServiceUnavailable", "restarting"))
    assert await discovery.apis() == there
    api.served = {}
    assert await discovery.apis() == Apis()


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"requests": {"memory": "1Gi"}}, ("1Gi", "1Gi")),
        ({"limits": {"memory": "64Mi"}}, ("64Mi", "64Mi")),
        ({"requests": {"memory": "200Mi"}, "limits": {"memory": "1Gi"}}, ("200Mi", "1Gi")),
        ({}, ("96Mi", "512Mi")),
    ],
)
def test_a_default_gives_way_to_what_was_named(wanted: dict[str, Any], expected: tuple[str, str]) -> None:
    scaling = parse(ServiceScaling, {"spec": {"resources": wanted}})
    made = components.resources("post", scaling)
    assert (made.requests["memory"], made.limits["memory"]) == expected
