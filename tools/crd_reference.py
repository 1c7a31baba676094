"""Write the reference of the custom resources from their definitions: ``make reference``; ``--check`` compares only."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from tools.progress import ROOT, fail, say

SOURCES: Final = ROOT / "crds"
TARGET: Final = ROOT / "docs" / "reference" / "crds.md"
EXAMPLE: Final = ROOT / "examples" / "platform-full.yaml"
ORDER: Final = ("Platform", "PlatformService", "HashRing", "LoadTest")
HEAD: Final = """\
# Custom resources

Written by `make reference` from the definitions in [crds/](../../crds): change those, not this file.
`kubectl explain platform.spec` tells the same in a terminal. Every field may be left out unless it says *required*.
A field of an object in a list is written `list[].field`, of a map `map.*.field`. What the conditions mean, and what to
do about them, is in [docs/operator](../operator/README.md#conditions).
"""
Schema = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a schema, by its path below ``spec`` or ``status``."""

    path: str
    schema: Schema
    required: bool


def document() -> str:
    """The whole reference; equal definitions give equal text."""
    definitions = [yaml.safe_load(path.read_text()) for path in SOURCES.glob("*.yaml")]
    by_kind = {one["spec"]["names"]["kind"]: one for one in definitions}
    if set(by_kind) != set(ORDER):
        fail(f"{SOURCES} defines {', '.join(sorted(by_kind))}: name each in ORDER of tools/crd_reference.py")
    parts = [HEAD, *(_kind(by_kind[kind]) for kind in ORDER), _example()]
    return "\n".join(parts)


def fields(schema: Schema, path: str = "", *, required: bool = False) -> Iterator[Field]:
    """All fields below a schema, in the order of the definition, parents before their children."""
    if path:
        yield Field(path, schema, required)
    for name, one in schema.get("properties", {}).items():
        yield from fields(one, f"{path}.{name}".lstrip("."), required=name in schema.get("required", ()))
    for key, suffix in (("items", "[]"), ("additionalProperties", ".*")):
        inner = schema.get(key)
        if isinstance(inner, dict) and (inner.get("properties") or inner.get("x-kubernetes-validations")):
            for field in fields(inner, path + suffix):
                if field.path != path + suffix or field.schema.get("x-kubernetes-validations"):
                    yield field


def bounds(schema: Schema) -> str:
    """What values may be, in words."""
    said = []
    if "enum" in schema:
        said.append("one of " + ", ".join(f"`{value}`" for value in schema["enum"]))
    if schema.get("exclusiveMinimum"):
        said.append(f"more than {schema['minimum']}")
    said.append(_between(schema.get("minimum") if not schema.get("exclusiveMinimum") else None, schema.get("maximum")))
    for unit, least, most in (
        ("characters", "minLength", "maxLength"),
        ("items", "minItems", "maxItems"),
        ("entries", "minProperties", "maxProperties"),
    ):
        if between := _between(schema.get(least), schema.get(most)):
            said.append(f"{between} {unit}")
    if "pattern" in schema:
        said.append(f"matches {_code(schema['pattern'])}")
    if schema.get("format", "int32") not in {"int32", "int64"}:
        said.append(schema["format"])
    return "; ".join(filter(None, said))


def _between(least: float | None, most: float | None) -> str:
    if least is None:
        return "" if most is None else f"at most {most}"
    return f"at least {least}" if most is None else f"{least} to {most}"


def type_of(schema: Schema) -> str:
    """``integer``, ``[]object``, ``map of string`` and so on."""
    if schema.get("x-kubernetes-int-or-string"):
        return "integer or string"
    if schema.get("type") == "array":
        return "[]" + type_of(schema.get("items", {}))
    if isinstance(schema.get("additionalProperties"), dict):
        return "map of " + type_of(schema["additionalProperties"])
    return str(schema.get("type", "any"))


def _kind(definition: Schema) -> str:
    spec, names = definition["spec"], definition["spec"]["names"]
    version = spec["versions"][0]
    schema = version["schema"]["openAPIV3Schema"]
    short = ", ".join(f"`{name}`" for name in names.get("shortNames", ()))
    subresources = ", ".join(f"`{name}`" for name in version.get("subresources", {}))
    parts = [
        f"## {names['kind']}",
        "",
        f"{schema['description']}\n",
        f"`{spec['group']}/{version['name']}`, {spec['scope'].lower()}; kubectl: `{names['plural']}`, {short}",
        f"(subresources: {subresources}).",
        "",
        "### Spec",
        "",
        *_spec(schema["properties"]["spec"]),
        "",
        *_rules(schema),
        "### Status",
        "",
        *_status(schema["properties"]["status"]),
        "",
        "### Columns of `kubectl get`",
        "",
        *_columns(version["additionalPrinterColumns"]),
        "",
    ]
    return "\n".join(parts)


def _spec(schema: Schema) -> list[str]:
    rows = ["| field | type | default | bounds | |", "| --- | --- | --- | --- | --- |"]
    for field in fields(schema):
        if field.path.endswith(("[]", ".*")):
            continue
        default = "*required*" if field.required else _default(field.schema)
        cells = (f"`{field.path}`", type_of(field.schema), default, bounds(field.schema), _text(field.schema))
        rows.append(_row(*cells))
    return rows


def _status(schema: Schema) -> list[str]:
    rows = ["| field | type | |", "| --- | --- | --- |"]
    return [*rows, *(_row(f"`{one.path}`", type_of(one.schema), _text(one.schema)) for one in fields(schema))]


def _rules(schema: Schema) -> list[str]:
    """What the API server checks beyond the bounds, with the message it refuses with."""
    found = [("metadata", rule) for rule in schema.get("x-kubernetes-validations", ())]
    spec = schema["properties"]["spec"]
    found += [("spec", rule) for rule in spec.get("x-kubernetes-validations", ())]
    found += [(field.path, rule) for field in fields(spec) for rule in field.schema.get("x-kubernetes-validations", ())]
    if not found:
        return []
    rows = [_row(f"`{path}`", _code(" ".join(rule["rule"].split())), rule["message"]) for path, rule in found]
    return ["### Rules", "", "| of | CEL | refused with |", "| --- | --- | --- |", *rows, ""]


def _columns(columns: list[Schema]) -> list[str]:
    rows = ["| column | shows | from |", "| --- | --- | --- |"]
    for one in columns:
        wide = " (`-o wide`)" if one.get("priority") else ""
        rows.append(_row(one["name"] + wide, one.get("description", ""), _code(one["jsonPath"])))
    return rows


def _example() -> str:
    return f"## Example: every field of a Platform\n\n```yaml\n{EXAMPLE.read_text()}```\n"


def _default(schema: Schema) -> str:
    if "default" not in schema:
        return ""
    value = schema["default"]
    return _code(yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("\n...\n").strip())


def _text(schema: Schema) -> str:
    return " ".join(str(schema.get("description", "")).split())


def _code(text: str) -> str:
    """Markdown code, also of text with backticks in it."""
    return f"`` {text} ``" if "`" in text else f"`{text}`"


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def check(target: Path = TARGET) -> None:
    """Fail unless the file is what `document` gives."""
    if not target.exists() or target.read_text() != document():
        fail(f"{target.relative_to(ROOT)} is stale: run make reference")


def main(arguments: list[str]) -> None:
    """Write the file, or with ``--check`` compare."""
    if arguments == ["--check"]:
        check()
    elif arguments:
        fail("usage: python -m tools.crd_reference [--check]", 2)
    else:
        TARGET.parent.mkdir(parents=True, exist_ok=True)
        TARGET.write_text(document())
        say(f"written: {TARGET.relative_to(ROOT)}")


if __name__ == "__main__":
    main(sys.argv[1:])
