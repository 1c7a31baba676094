"""The reference of the custom resources is what the definitions say."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tools import crd_reference
from tools.crd_reference import bounds, fields, type_of

ROOT = Path(__file__).resolve().parents[3]


def test_the_reference_is_not_stale() -> None:
    crd_reference.check()


def test_a_stale_reference_is_refused_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crd_reference, "ROOT", tmp_path)
    target = tmp_path / "crds.md"
    target.write_text(crd_reference.document() + "\n")
    with pytest.raises(SystemExit):
        crd_reference.check(target)


@pytest.mark.parametrize("path", sorted((ROOT / "crds").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_field_rule_and_column_of_a_definition_is_told(path: Path) -> None:
    version = yaml.safe_load(path.read_text())["spec"]["versions"][0]
    text = crd_reference.document()
    rules: list[str] = []

    def walk(schema: object) -> None:
        if isinstance(schema, dict):
            rules.extend(rule["message"] for rule in schema.get("x-kubernetes-validations", ()))
            for value in schema.values():
                walk(value)

    root = version["schema"]["openAPIV3Schema"]
    walk(root)
    assert [message for message in rules if message.replace("|", "\\|") not in text] == []
    for part in ("spec", "status"):
        assert [one.path for one in fields(root["properties"][part]) if f"`{one.path}`" not in text] == []
    assert all(f"| {column['name']}" in text for column in version["additionalPrinterColumns"])


def test_schemas_read_as_people_write_types_and_bounds() -> None:
    assert type_of({"type": "array", "items": {"type": "string"}}) == "[]string"
    assert type_of({"type": "object", "additionalProperties": {"type": "integer"}}) == "map of integer"
    assert bounds({"type": "integer", "minimum": 1, "maximum": 9}) == "1 to 9"
    assert bounds({"type": "number", "minimum": 0, "exclusiveMinimum": True}) == "more than 0"
    assert bounds({"type": "number", "minimum": 1}) == "at least 1"
    assert bounds({"type": "string", "enum": ["a", "b"]}) == "one of `a`, `b`"
    assert bounds({"type": "string", "minLength": 1, "maxLength": 63}) == "1 to 63 characters"
    assert bounds({"type": "string", "maxLength": 63, "pattern": "^a|b$"}) == "at most 63 characters; matches `^a|b$`"


def test_fields_of_objects_in_lists_and_maps_have_paths_of_their_own() -> None:
    inner = {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}}
    schema = {"properties": {"env": {"type": "array", "items": inner}, "by": {"additionalProperties": inner}}}
    found = {one.path: one.required for one in fields(schema)}
    assert found == {"env": False, "env[].name": True, "by": False, "by.*.name": True}
