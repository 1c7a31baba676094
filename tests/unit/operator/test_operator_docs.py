"""docs/operator/README.md names every condition, reason and metric of the operator, and no others."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import Counter
from prometheus_client.metrics import MetricWrapperBase

from fanfold_operator import kinds, metrics

ROOT = Path(__file__).parents[3]
SOURCES = ROOT / "operator/src/fanfold_operator"
TEXT = (ROOT / "docs/operator/README.md").read_text()
NAME = re.compile(r"[A-Z][A-Za-z]+")
KINDS = {kind.kind for kind in kinds.ALL}


def modules() -> Iterator[ast.Module]:
    """Those that make conditions."""
    for path in SOURCES.rglob("*.py"):
        text = path.read_text()
        if "Condition(" in text and path.name != "conditions.py":
            yield ast.parse(text)


def constants(node: ast.AST) -> set[str]:
    values = (one.value for one in ast.walk(node) if isinstance(one, ast.Constant))
    return {value for value in values if isinstance(value, str) and NAME.fullmatch(value)}


def is_condition(node: ast.Call) -> bool:
    return isinstance(node.func, ast.Name) and node.func.id == "Condition"


def types_in_code() -> set[str]:
    """First arguments of `Condition`; where that is a name, what the module gives to it or passes on as it."""
    found: set[str] = set()
    for module in modules():
        calls = [node for node in ast.walk(module) if isinstance(node, ast.Call)]
        firsts = [call.args[0] for call in calls if is_condition(call) and call.args]
        found |= {value for first in firsts for value in constants(first)}
        names = {first.id for first in firsts if isinstance(first, ast.Name)}
        if not names:
            continue
        for node in ast.walk(module):
            if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                if {one.id for target in targets for one in ast.walk(target) if isinstance(one, ast.Name)} & names:
                    value = node.value.elts[0] if isinstance(node.value, ast.Tuple) else node.value
                    found |= constants(value) if isinstance(value, ast.Constant) else set()
        passed = [call.args[0] for call in calls if isinstance(call.func, ast.Attribute) and call.args]
        own = [call for call in passed if isinstance(call, ast.Constant)]
        found |= {value for one in own for value in constants(one) if value.endswith("Ready")}
    return found - KINDS


def reasons_in_code() -> set[str]:
    """The keyword of `Condition`, or the second argument of a helper of that name; names stand in the module."""
    found: set[str] = set()
    for module in modules():
        given = {
            one.id: node.value
            for node in module.body
            if isinstance(node, ast.AnnAssign) and node.value and isinstance(one := node.target, ast.Name)
        }
        for call in (node for node in ast.walk(module) if isinstance(node, ast.Call)):
            values: list[ast.expr] = []
            if is_condition(call):
                values = [word.value for word in call.keywords if word.arg == "reason"]
            elif isinstance(call.func, ast.Name) and call.func.id == "_condition":
                values = call.args[1:2]
            for value in values:
                found |= constants(given.get(value.id, value) if isinstance(value, ast.Name) else value)
    return found


def section(title: str) -> str:
    return TEXT.split(f"\n## {title}\n")[1].split("\n## ")[0]


def rows(text: str) -> Iterator[list[str]]:
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if cells and cells[0].startswith("`"):
            yield cells


def test_every_condition_type_of_the_code_is_in_the_table_and_no_other() -> None:
    told = {re.findall(r"`(\w+)`", cells[0])[0] for cells in rows(section("Conditions"))}
    assert types_in_code() - told == set(), "conditions without a row in docs/operator/README.md"
    assert told - types_in_code() == set(), "rows of conditions the code does not have"


def test_every_reason_of_the_code_is_told_and_no_other() -> None:
    told = {name for cells in rows(section("Conditions")) for name in re.findall(r"`([A-Z]\w+)`", cells[3])}
    assert reasons_in_code() - told == set(), "reasons that docs/operator/README.md does not tell"
    assert told - reasons_in_code() == set(), "reasons the code does not have"


def test_every_metric_of_the_operator_is_in_the_table_with_its_labels_and_no_other() -> None:
    def name(metric: MetricWrapperBase) -> str:
        return str(metric._name) + ("_total" if isinstance(metric, Counter) else "")

    known = [one for one in vars(metrics).values() if isinstance(one, MetricWrapperBase)]
    told = {cells[0].strip("`"): cells[2] for cells in rows(section("Metrics"))}
    assert set(told) == {name(metric) for metric in known}
    for metric in known:
        assert set(re.findall(r"`(\w+)`", told[name(metric)])) == set(metric._labelnames), name(metric)


EVIDENCE = [ROOT / "docs/operator/capabilities.md", *sorted((ROOT / "docs/evidence").glob("*.md"))]


@pytest.mark.parametrize("document", EVIDENCE, ids=lambda path: path.stem)
def test_every_test_named_as_evidence_exists(document: Path) -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", document.read_text())
    assert len(named) > 20
    missing = [
        f"{path}::{name}"
        for path, name in named
        if not (ROOT / path).exists() or (name and not re.search(rf"\bdef {name}\(", (ROOT / path).read_text()))
    ]
    assert missing == []
