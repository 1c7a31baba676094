"""The CRDs, the chart's copies of them, and the types that read them say the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from fanfold.contracts.components import BY_NAME, COMPONENTS
from fanfold.contracts.resources import HashRingSpec, LoadTestSpec, PlatformServiceSpec, PlatformSpec, Record
from fanfold_operator.planning import components

ROOT = Path(__file__).parents[3]
CRDS = sorted((ROOT / "crds").glob("*.yaml"))
TYPES: dict[str, type[Record]] = {
    "Platform": PlatformSpec,
    "PlatformService": PlatformServiceSpec,
    "HashRing": HashRingSpec,
    "LoadTest": LoadTestSpec,
}


def load(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(path.read_text())
    return loaded


def spec_schema(definition: dict[str, Any]) -> dict[str, Any]:
    schema: dict[str, Any] = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    return schema


def defaulted(schema: dict[str, Any], value: Any) -> Any:
    """What the API server makes of a value: defaults filled in, from outside inwards."""
    if not isinstance(value, dict):
        return value
    properties = schema.get("properties", {})
    filled = {name: one["default"] for name, one in properties.items() if "default" in one} | value
    return {name: defaulted(properties.get(name, {}), one) for name, one in filled.items()}


@pytest.mark.parametrize("path", CRDS, ids=lambda path: path.stem)
def test_the_chart_carries_the_same_definition(path: Path) -> None:
    template = ROOT / "charts" / "fanfold" / "templates" / f"crd-{path.name.partition('.')[0]}.yaml"
    assert template.read_text() == "{{- if .Values.crds.install }}\n" + path.read_text() + "{{- end }}\n"
    assert load(path)["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


@pytest.mark.parametrize("path", CRDS, ids=lambda path: path.stem)
def test_every_field_of_the_schema_has_a_field_of_the_type(path: Path) -> None:
    definition = load(path)
    kind = TYPES[definition["spec"]["names"]["kind"]]
    assert set(spec_schema(definition)["properties"]) == {field.encode_name for field in msgspec.structs.fields(kind)}


def test_the_defaults_of_an_empty_spec_are_those_of_the_type() -> None:
    schema = spec_schema(load(ROOT / "crds" / "platforms.fanfold.dev.yaml"))
    spec = msgspec.convert(defaulted(schema, {}), PlatformSpec)
    assert msgspec.structs.replace(spec, gateway=PlatformSpec().gateway, services={}) == PlatformSpec()
    for component in COMPONENTS:
        scaling = spec.gateway if component.name == "gateway" else spec.services[component.name]
        assert scaling.replicas is not None
        assert (scaling.replicas.min, scaling.replicas.max) == (component.min_replicas, component.max_replicas)
        assert components.replicas(component.name, type(scaling)()) == scaling.replicas


def test_the_defaults_of_a_load_test_are_those_of_the_type() -> None:
    schema = spec_schema(load(ROOT / "crds" / "loadtests.fanfold.dev.yaml"))
    least = {"scenario": {"name": "browse"}, "platformRef": {"name": "demo"}}
    told = msgspec.convert(defaulted(schema, least | {"report": {}}), LoadTestSpec)
    assert told == msgspec.convert(least, LoadTestSpec)


def test_every_component_can_be_sized_and_knows_its_secrets() -> None:
    schema = spec_schema(load(ROOT / "crds" / "platforms.fanfold.dev.yaml"))
    assert set(schema["properties"]["services"]["properties"]) == set(BY_NAME) - {"gateway"}
    service = spec_schema(load(ROOT / "crds" / "platformservices.fanfold.dev.yaml"))
    assert set(service["properties"]["component"]["enum"]) == set(BY_NAME)
    assert set(BY_NAME) < set(components.SECRETS)


@pytest.mark.parametrize("path", CRDS, ids=lambda path: path.stem)
def test_every_rule_has_a_message_and_every_list_its_kind(path: Path) -> None:
    def walk(schema: Any) -> None:
        if not isinstance(schema, dict):
            return
        for rule in schema.get("x-kubernetes-validations", ()):
            assert rule["message"]
        if schema.get("type") == "array":
            assert schema["x-kubernetes-list-type"] in {"map", "set", "atomic"}
        for value in schema.values():
            walk(value)

    walk(load(path)["spec"]["versions"][0]["schema"]["openAPIV3Schema"])
