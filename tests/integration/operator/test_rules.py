"""Every rule of every definition, read from crds/: what passes it, what does not, and that none is left out.

A rule without a case fails `test_every_rule_has_a_case`; a case is refused by its own rule, told by its own message.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.waiting import until

pytestmark = pytest.mark.cluster

CRDS = sorted((Path(__file__).parents[3] / "crds").glob("*.yaml"))
NOTHING = object()
BASE: dict[str, dict[str, Any]] = {
    "Platform": {},
    "PlatformService": {"platform": "demo", "component": "feed", "version": "1", "image": "x"},
    "HashRing": {"platform": "demo"},
    "LoadTest": {"platformRef": {"name": "demo"}, "scenario": {"name": "browse"}},
}
ELSEWHERE: dict[str, dict[str, Any]] = {
    "Platform": {"logLevel": "DEBUG"},
    "PlatformService": {"version": "2"},
    "HashRing": {"virtualNodes": 9},
    "LoadTest": {"ttlSecondsAfterFinished": 9},
}
"""A change of each kind that no rule is about."""
REF = {"secretRef": {"name": "x"}}
STORE = {"endpoint": "https://s3.test", **REF}
EDGE = {"name": "edge"}


@dataclass(frozen=True)
class Rule:
    """One validation rule and the path of the value it is about."""

    kind: str
    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.kind} {self.path}: {self.message[:40]}"


@dataclass(frozen=True)
class Case:
    """Values at the rule's path. With `before` the rule is about a change of it; the others are what it becomes."""

    passes: Any
    fails: Any
    before: Any = NOTHING


def walk(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """All nodes of a schema with their paths; items of lists are ``[]``, values of maps ``*``."""
    yield path, schema
    for name, one in schema.get("properties", {}).items():
        yield from walk(one, f"{path}.{name}".lstrip("."))
    if "items" in schema:
        yield from walk(schema["items"], f"{path}.[]")
    if isinstance(schema.get("additionalProperties"), dict):
        yield from walk(schema["additionalProperties"], f"{path}.*")


def definitions() -> Iterator[tuple[str, dict[str, Any]]]:
    for file in CRDS:
        definition = yaml.safe_load(file.read_text())
        yield definition["spec"]["names"]["kind"], definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


RULES = [
    Rule(kind, path, rule["message"])
    for kind, schema in definitions()
    for path, node in walk(schema)
    for rule in node.get("x-kubernetes-validations", ())
]

# By kind, path (with * for any name) and the first words of the message.
CASES: dict[tuple[str, str, str], Case] = {
    ("Platform", "", "the name must have at most 40"): Case("x" * 40, "x" * 41),
    ("Platform", "", "the name must begin with a letter"): Case("a-9", "9-a"),
    ("Platform", "spec.*replicas", "replicas.min must not"): Case({"min": 3, "max": 3}, {"min": 4, "max": 3}),
    ("Platform", "spec.*resources", "a request must not"): Case(
        {"requests": {"memory": "1Gi", "cpu": 1}, "limits": {"memory": "1024Mi"}},
        {"requests": {"memory": "1.1Gi"}, "limits": {"memory": "1024Mi"}},
    ),
    ("Platform", "spec.gateway.exposure", "exposure.nodePort needs"): Case(
        {"type": "NodePort", "nodePort": 30080}, {"type": "ClusterIP", "nodePort": 30080}
    ),
    ("Platform", "spec.gateway.exposure", "exposure.type HTTPRoute and"): Case(
        {"type": "HTTPRoute", "parentRef": EDGE}, {"type": "HTTPRoute"}
    ),
    ("Platform", "spec.gateway.exposure", "exposure.hostnames needs"): Case(
        {"type": "HTTPRoute", "parentRef": EDGE, "hostnames": ["*.feed.test"]}, {"hostnames": ["feed.test"]}
    ),
    ("Platform", "spec.database", "set exactly one"): Case({"external": REF}, {"embedded": {}, "external": REF}),
    ("Platform", "spec.cache", "set exactly one"): Case({"external": REF}, {"embedded": {}, "external": REF}),
    ("Platform", "spec.objectStore", "set exactly one"): Case({"external": STORE}, {"embedded": {}, "external": STORE}),
    ("Platform", "spec.database", "database cannot change"): Case(
        {"external": {"secretRef": {"name": "y"}}}, {"external": None, "embedded": {}}, before={"external": REF}
    ),
    ("Platform", "spec.cache", "cache cannot change"): Case(
        {"embedded": {"maxMemory": "1Gi"}}, {"embedded": None, "external": REF}, before={"embedded": {}}
    ),
    ("Platform", "spec.objectStore", "objectStore cannot change"): Case(
        {"external": {**STORE, "bucket": "other"}}, {"external": None, "embedded": {}}, before={"external": STORE}
    ),
    ("Platform", "spec.*.embedded.storage", "storage is fixed"): Case("30Gi", "31Gi", before="30Gi"),
    ("Platform", "spec.*.embedded.storageClassName", "storageClassName is fixed"): Case("fast", "slow", before="fast"),
    ("Platform", "spec.*.embedded", "storageClassName is fixed"): Case({}, {"storageClassName": "fast"}, before={}),
    ("Platform", "spec.ring.boundedLoad", "boundedLoad must be"): Case(1.01, 1.009),
    ("PlatformService", "spec.platform", "platform is fixed"): Case("demo", "other", before="demo"),
    ("PlatformService", "spec.component", "component is fixed"): Case("feed", "post", before="feed"),
    ("PlatformService", "spec.scaling", "scaling.min must not"): Case({"min": 2, "max": 2}, {"min": 3, "max": 2}),
    ("PlatformService", "spec.exposure", "exposure.nodePort needs"): Case(
        {"type": "NodePort", "nodePort": 30080}, {"type": "ClusterIP", "nodePort": 30080}
    ),
    ("PlatformService", "spec.exposure", "exposure.type HTTPRoute and"): Case(
        {"type": "HTTPRoute", "parentRef": EDGE}, {"type": "LoadBalancer", "parentRef": EDGE}
    ),
    ("HashRing", "spec.platform", "platform is fixed"): Case("demo", "other", before="demo"),
    ("Platform", "spec.monitoring.prometheus", "set exactly one of monitoring"): Case(
        {"embedded": {}}, {"embedded": {}, "external": {"url": "http://prometheus.test:9090"}}
    ),
    ("LoadTest", "", "the name must have at most 52"): Case("x" * 52, "x" * 53),
    ("LoadTest", "", "the name must begin with a letter"): Case("a-9", "9-a"),
    ("LoadTest", "spec", "set exactly one of platformRef"): Case({}, {"url": "http://feed.test"}),
    ("LoadTest", "spec", "acts needs a platformRef"): Case(
        {"platformRef": {"name": "demo"}, "acts": True},
        {"platformRef": None, "url": "http://feed.test", "report": {"summaryOnly": True}, "acts": True},
    ),
    ("LoadTest", "spec", "crowd needs a platformRef"): Case(
        {"platformRef": {"name": "demo"}, "crowd": {}},
        {"platformRef": None, "url": "http://feed.test", "report": {"summaryOnly": True}, "crowd": {}},
    ),
    ("LoadTest", "spec", "report needs an objectStore"): Case(
        {"report": {"prefix": "x"}},
        {"platformRef": None, "url": "http://feed.test"},
        before={"suspend": True, "report": {}},
    ),
    ("LoadTest", "spec", "a LoadTest runs once"): Case({"cancel": True}, {"seed": 2}, before={}),
    ("LoadTest", "spec.scenario", "set exactly one of scenario.name"): Case(
        {"name": "soak"}, {"configMapRef": {"name": "x", "key": "y"}}
    ),
    ("LoadTest", "spec.slos", "set exactly one of slos.inline"): Case({"inline": "x"}, {}),
    ("LoadTest", "spec.resources", "a request must not"): Case(
        {"requests": {"cpu": 1}, "limits": {"cpu": "1000m"}}, {"requests": {"cpu": 2}, "limits": {"cpu": 1}}
    ),
    ("LoadTest", "spec.report", "report.summaryOnly keeps"): Case(
        {"summaryOnly": True}, {"summaryOnly": True, "objectStore": {**STORE, "bucket": "kept"}}
    ),
    ("LoadTest", "spec.suspend", "a LoadTest that was let go"): Case(False, True, before=False),
    ("LoadTest", "spec.cancel", "what was cancelled stays"): Case(True, False, before=True),
}


def cases_of(rule: Rule) -> list[Case]:
    return [
        case
        for (kind, path, words), case in CASES.items()
        if kind == rule.kind and fnmatchcase(rule.path, path) and rule.message.startswith(words)
    ]


def test_every_rule_has_a_case_and_every_case_a_rule() -> None:
    assert [str(rule) for rule in RULES if len(cases_of(rule)) != 1] == []
    used = {id(case) for rule in RULES for case in cases_of(rule)}
    assert [key for key, case in CASES.items() if id(case) not in used] == []
    assert len(RULES) > 40


def at(path: str, value: Any) -> dict[str, Any]:
    """A body with `value` at this path."""
    for part in reversed(path.split(".")):
        value = [value] if part == "[]" else {"cpu" if part == "*" else part: value}
    body: dict[str, Any] = value
    return body


def merged(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    result = dict(one)
    for name, value in other.items():
        both = isinstance(value, dict) and isinstance(result.get(name), dict)
        result[name] = merged(result[name], value) if both else value
    return result


def body(kind: str, spec: dict[str, Any], name: str = "demo") -> dict[str, Any]:
    spec = merged(BASE[kind], spec)
    return {"apiVersion": "fanfold.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}


@pytest.fixture(scope="module")
def home(kube: Any) -> Iterator[str]:
    """One namespace for all: nothing is kept in it."""
    kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "rules"}})
    yield "rules"
    kube.delete("Namespace", "", "rules")


@pytest.fixture
def refusal(kube: Any, home: str) -> Iterator[Any]:
    """What the API server says of a value at a path; empty if it accepts it."""
    made: list[str] = []

    def ask(rule: Rule, case: Case, value: Any) -> str:
        if rule.path == "":
            return send("POST", kube.path(rule.kind, home), body(rule.kind, {}, value))
        change = at(rule.path, value)["spec"]
        if case.before is NOTHING:
            return send("POST", kube.path(rule.kind, home), body(rule.kind, change))
        if not made:
            kube.call("POST", kube.path(rule.kind, home), body(rule.kind, at(rule.path, case.before)["spec"]))
            made.append(rule.kind)
        patch = {"spec": merged(ELSEWHERE[rule.kind], change)}
        return send("PATCH", kube.path(rule.kind, home, "demo"), patch)

    def send(method: str, path: str, content: dict[str, Any]) -> str:
        headers = {"Content-Type": "application/json" if method == "POST" else "application/merge-patch+json"}
        query = {"dryRun": "All", "fieldValidation": "Strict"}
        answer = kube.client.request(method, path, json=content, headers=headers, params=query)
        return "" if answer.status_code < 300 else str(answer.json()["message"])

    yield ask
    for kind in made:
        kube.delete(kind, home, "demo")


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_a_rule_lets_pass_what_is_right_and_refuses_what_is_not(refusal: Any, rule: Rule) -> None:
    (case,) = cases_of(rule)
    assert refusal(rule, case, case.passes) == ""
    assert rule.message in refusal(rule, case, case.fails)


def bounds(node: dict[str, Any]) -> Iterator[tuple[Any, Any]]:
    """Values just inside and just outside of what a schema's node allows."""
    if "enum" in node:
        yield node["enum"][0], "Nonsense"
    if "minimum" in node:
        yield node["minimum"], node["minimum"] - 1
    if "maximum" in node:
        yield node["maximum"], node["maximum"] + 1
    if node.get("minLength"):
        yield NOTHING, ""
    if "maxLength" in node:
        yield NOTHING, "1" * (node["maxLength"] + 1)
    if "pattern" in node:
        yield NOTHING, "%%"
    if "maxItems" in node and node["items"].get("type") == "string":
        yield NOTHING, [f"x{number}" for number in range(node["maxItems"] + 1)]


@pytest.mark.parametrize(("kind", "schema"), list(definitions()), ids=[kind for kind, _ in definitions()])
@pytest.mark.timeout(300)
def test_every_bound_of_the_schema_holds(kube: Any, home: str, kind: str, schema: dict[str, Any]) -> None:
    tried = 0
    for path, node in walk(schema["properties"]["spec"], "spec"):
        place = path.replace(".[]", "[0]").replace("*", "cpu")
        for inside, outside in bounds(node):
            for value, fits in ((inside, True), (outside, False)):
                if value is NOTHING:
                    continue
                content = body(kind, at(path, value)["spec"])
                answer = kube.client.post(kube.path(kind, home), json=content, params={"dryRun": "All"})
                text = answer.json().get("message", "") if answer.status_code >= 300 else ""
                told = (
                    f"{place}: Invalid value" in text
                    or f"{place}: Unsupported value" in text
                    or (f"{place}: Too " in text)
                )
                # Inside of its bounds a value may still not fit its neighbours, which are rules' affair.
                assert told is not fits or "in body should" not in text, f"{path} = {value!r}: {text or 'accepted'}"
                assert fits or told, f"{path} = {str(value)[:60]!r}: {text or 'accepted'}"
                tried += 1
    assert tried > 10


def test_a_celebrity_mode_always_has_a_threshold(kube: Any, home: str) -> None:
    for threshold in ({}, {"celebrityThreshold": None}):
        content = body("Platform", {"fanout": {"celebrityMode": "batched", **threshold}})
        made = kube.call("POST", kube.path("Platform", home), content, dryRun="All")
        assert made["spec"]["fanout"]["celebrityThreshold"] == 10_000


@pytest.fixture
def older(kube: Any, home: str) -> Iterator[Any]:
    """A twin of the Platform's definition without any rule, as an older version could have been; `tighten` it."""
    definition = yaml.safe_load(next(file for file in CRDS if file.name.startswith("platforms.")).read_text())
    twin = copy.deepcopy(definition)
    twin["metadata"] = {"name": "platforms.older.test"}
    twin["spec"]["group"] = "older.test"
    strict = copy.deepcopy(twin)
    for _, node in walk(twin["spec"]["versions"][0]["schema"]["openAPIV3Schema"]):
        node.pop("x-kubernetes-validations", None)
    path = f"/apis/older.test/v1alpha1/namespaces/{home}/platforms"

    def tighten() -> None:
        kube.apply(strict, force="true")
        refused = {"apiVersion": "older.test/v1alpha1", "kind": "Platform", "metadata": {"name": "9"}}
        until(lambda: kube.client.post(path, json=refused, params={"dryRun": "All"}).status_code == 422)

    kube.apply(twin)
    until(lambda: kube.client.get(path).status_code == 200)
    yield path, tighten
    kube.delete("CustomResourceDefinition", "", "platforms.older.test")


def test_what_a_new_rule_would_refuse_can_still_be_changed_elsewhere(kube: Any, older: Any) -> None:
    """Otherwise an upgrade of the definitions would lock users, and the operator, out of what is there."""
    path, tighten = older
    bad = {
        "gateway": {"replicas": {"min": 9, "max": 3}, "exposure": {"type": "HTTPRoute"}},
        "services": {"feed": {"resources": {"requests": {"cpu": 2}, "limits": {"cpu": 1}}}},
        "ring": {"boundedLoad": 1.001},
        "database": {"embedded": {}, "external": REF},
    }
    name = "x" * 50
    kube.call(
        "POST", path, {"apiVersion": "older.test/v1alpha1", "kind": "Platform", "metadata": {"name": name}, "spec": bad}
    )
    tighten()
    merge = "application/merge-patch+json"
    kube.call("PATCH", f"{path}/{name}", {"spec": {"logLevel": "DEBUG", "feed": {"length": 9}}}, merge)
    kube.call("PATCH", f"{path}/{name}", {"metadata": {"finalizers": ["older.test/x"]}}, merge)
    kube.call("PATCH", f"{path}/{name}", {"metadata": {"finalizers": None}}, merge)
    kube.call("PATCH", f"{path}/{name}/status", {"status": {"ready": "0/11"}}, merge)
    with pytest.raises(AssertionError, match=r"replicas\.min must not be greater"):
        kube.call("PATCH", f"{path}/{name}", {"spec": {"gateway": {"replicas": {"min": 8}}}}, merge)
    kube.call("PATCH", f"{path}/{name}", {"spec": {"gateway": {"replicas": {"min": 3}}}}, merge)
