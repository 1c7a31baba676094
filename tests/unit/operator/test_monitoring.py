"""The embedded Prometheus of a Platform: what it is made of, what it scrapes, and what is told of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import aiohttp
import pytest
import yaml

from fanfold.contracts.components import COMPONENTS
from fanfold_operator import admin
from fanfold_operator.kinds import Manifest, key_of
from fanfold_operator.planning import platform
from fanfold_operator.planning.actions import Images, View
from fanfold_operator.planning.platform import Stages
from fanfold_operator.targets import targets

WANTED = {"monitoring": {"prometheus": {"embedded": {"maxMemory": "256Mi", "retentionHours": 3}}}}
SERVICE = "fanfold-operator.system.svc"
Make = Callable[..., Stages]


@pytest.fixture
def stages(resource: Callable[..., Manifest], view: Callable[..., View], images: Images) -> Make:
    def make(spec: Manifest | None = None, children: Any = (), **rest: Any) -> Stages:
        wanted = WANTED if spec is None else spec
        return Stages(view(resource("Platform", spec=wanted), children, **{"operator": SERVICE} | rest), images)

    return make


def parts(stages: Stages) -> dict[str, Manifest]:
    return {one["kind"]: one for one in platform.plan(stages).apply if one["metadata"]["name"] == "demo-prometheus"}


def test_it_has_no_right_no_token_no_privilege_and_reaches_no_store(stages: Make) -> None:
    made = parts(stages())
    assert set(made) == {"ConfigMap", "Service", "NetworkPolicy", "Deployment"}
    template = made["Deployment"]["spec"]["template"]
    (container,) = template["spec"]["containers"]
    assert not template["spec"]["automountServiceAccountToken"]
    assert template["spec"]["securityContext"]["runAsNonRoot"]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert container["resources"]["limits"] == {"memory": "256Mi"}
    assert container["env"] == [{"name": "GOMEMLIMIT", "value": str(256 * 2**20 * 4 // 5)}]
    assert "--storage.tsdb.retention.time=3h" in container["args"]
    assert container["image"] == "registry.test/fanfold/prometheus:0.1.0"
    assert "fanfold.dev/platform" not in template["metadata"]["labels"], "stores let in what carries it"
    assert made["Deployment"]["spec"]["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    assert made["Service"]["spec"]["selector"].items() <= template["metadata"]["labels"].items()


def test_the_operator_names_its_targets_and_it_begins_anew_with_other_settings(stages: Make) -> None:
    made, moved = parts(stages()), parts(stages(operator="elsewhere.system.svc"))
    settings = yaml.safe_load(made["ConfigMap"]["data"]["prometheus.yaml"])
    platforms, operator = settings["scrape_configs"]
    assert platforms["http_sd_configs"][0]["url"] == f"http://{SERVICE}:9000/targets/prod/demo"
    assert operator["dns_sd_configs"][0]["names"] == [SERVICE]
    labels = {one["target_label"]: one.get("replacement") for one in operator["relabel_configs"]}
    assert (labels["namespace"], labels["component"]) == ("system", "operator"), "dashboards choose it by these"
    notes = [one["Deployment"]["spec"]["template"]["metadata"]["annotations"] for one in (made, moved)]
    assert notes[0] != notes[1]


@pytest.mark.parametrize("spec", [{}, {"monitoring": {"prometheus": {"external": {"url": "http://p.test"}}}}])
def test_without_it_nothing_is_made_and_nothing_told_and_what_was_there_goes(stages: Make, spec: Manifest) -> None:
    old = parts(stages())["Deployment"]
    without = stages(spec, [old])
    assert parts(without) == {}
    assert without.prometheus is None
    done = {"conditions": [{"type": "Complete", "status": "True"}]}
    ready = stages(spec, [old, {**without.job, "status": done}])
    sets = [one for one in platform.plan(ready).apply if one["kind"] == "StatefulSet"]
    there = [{**one, "status": {"readyReplicas": 1}} for one in sets]
    ready = stages(spec, [old, {**without.job, "status": done}, *there])
    assert key_of(old) in {key_of(one) for one in platform.plan(ready).delete}


def test_what_is_told_of_it(stages: Make) -> None:
    told = stages().prometheus
    assert told
    assert (told.status, told.reason) == (False, "PodNotReady")
    there = {**parts(stages())["Deployment"], "status": {"availableReplicas": 1}}
    told = stages(children=[there]).prometheus
    assert told
    assert (told.status, told.message) == (
        True, "http://demo-prometheus:9090: kubectl port-forward service/demo-prometheus 9090",
    )  # fmt: skip
    blind = stages(operator="")
    assert blind.prometheus
    assert (blind.prometheus.reason, parts(blind)) == ("NoTargets", {})


def part(component: str, *pods: tuple[str, str], serving: bool = True) -> Manifest:
    endpoints = [
        {"addresses": [address], "conditions": {"serving": serving}, "targetRef": {"kind": "Pod", "name": name}}
        for name, address in pods
    ]
    return {"metadata": {"labels": {"fanfold.dev/service": component}}, "endpoints": endpoints}


def test_targets_are_the_pods_that_tell_metrics_each_once_by_its_name() -> None:
    slices = [
        part("feed", ("demo-feed-b", "10.0.0.2"), ("demo-feed-a", "fd00::1")),
        part("feed", ("demo-feed-b", "10.0.0.2")),
        part("post", ("demo-post-a", "10.0.0.4"), serving=False),
        part("loadtest", ("run-loadtest-x", "10.0.0.9")),
        part("loadtest", ("ended-loadtest-x", "10.0.0.8"), serving=False),
        part("postgresql", ("demo-postgresql-0", "10.0.0.3")),
        {"metadata": {}, "endpoints": None},
    ]
    found = targets(slices, "prod", "demo")
    assert [(one["targets"][0], one["labels"]["component"]) for one in found] == [
        ("[fd00::1]:9000", "feed"), ("10.0.0.2:9000", "feed"), ("10.0.0.4:9000", "post"), ("10.0.0.9:9000", "loadtest"),
    ]  # fmt: skip
    assert found[0]["labels"] == {
        "namespace": "prod", "platform": "demo", "pod": "demo-feed-a", "component": "feed",
    }  # fmt: skip
    every = targets([part(one.name, (one.name, "10.0.0.1")) for one in COMPONENTS], "prod", "demo")
    assert {one["labels"]["component"] for one in every} == {one.name for one in COMPONENTS}


async def test_the_admin_port_answers_with_them() -> None:
    asked: list[tuple[str, str]] = []

    def name(namespace: str, demo: str) -> list[dict[str, Any]]:
        asked.append((namespace, demo))
        return [{"targets": ["10.0.0.1:9000"], "labels": {}}]

    async with (
        admin.serving("127.0.0.1", 0, lambda: None, lambda: None, name) as port,
        aiohttp.ClientSession(trust_env=False) as client,
        client.get(f"http://127.0.0.1:{port}/targets/prod/demo") as answer,
    ):
        assert answer.content_type == "application/json", "or Prometheus does not take it"
        assert await answer.json() == [{"targets": ["10.0.0.1:9000"], "labels": {}}]
    assert asked == [("prod", "demo")]
