"""Rules of the house that no linter knows."""

from __future__ import annotations

import ast
import operator
import platform
import tomllib
from pathlib import Path

import pytest

from fanfold.contracts.components import COMPONENTS, MIGRATED

ROOT = Path(__file__).resolve().parents[2]
ROOMS = [path for path in (ROOT / "platform/src/fanfold").iterdir() if path.name in MIGRATED or path.name == "feed"]


@pytest.mark.parametrize("name", ["operator", "platform"])
def test_no_package_shadows_the_standard_library(name: str) -> None:
    assert not (ROOT / name / "__init__.py").exists()
    module = {"operator": operator, "platform": platform}[name]
    assert not Path(str(module.__file__)).is_relative_to(ROOT)


@pytest.mark.parametrize("name", ["operator", "platform", "crds", "charts", "loadtest", "dashboards", "tests"])
def test_the_top_level_names_are_there(name: str) -> None:
    assert (ROOT / name).is_dir()


def test_every_distribution_has_the_version_of_the_workspace() -> None:
    def version(path: Path) -> str:
        return str(tomllib.loads(path.read_text())["project"]["version"])

    versions = {version(ROOT / name / "pyproject.toml") for name in (".", "platform", "operator", "loadtest")}
    assert len(versions) == 1


@pytest.mark.parametrize("component", [component.name for component in COMPONENTS])
def test_every_component_has_a_composition_root_with_settings(component: str) -> None:
    room, _, role = component.partition("-")
    tree = ast.parse((ROOT / f"platform/src/fanfold/{room}/{role or 'app'}.py").read_text())
    names = {node.name for node in tree.body if isinstance(node, ast.AsyncFunctionDef)}
    assigned = {
        target.id
        for node in tree.body
        if isinstance(node, ast.Assign | ast.AnnAssign)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name)
    }
    assert "build" in names
    assert "SETTINGS" in assigned


@pytest.mark.parametrize("room", ROOMS, ids=lambda path: path.name)
def test_sql_lives_in_repositories_only(room: Path) -> None:
    for path in room.glob("*.py"):
        if path.name in {"repository.py", "models.py"}:
            continue
        imported = {
            alias.name if isinstance(node, ast.Import) else node.module
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in node.names
        }
        assert not {name for name in imported if name and name.split(".")[0] in {"sqlalchemy", "asyncpg"}}, path


@pytest.mark.parametrize(
    "room", [ROOT / "platform/src/fanfold" / name for name in MIGRATED], ids=lambda path: path.name
)
def test_every_room_with_a_schema_has_migrations_that_the_wheel_carries(room: Path) -> None:
    assert (room / "migrations/env.py").exists()
    assert list((room / "migrations/versions").glob("*.py"))


def test_waiting_with_a_limit_is_written_once() -> None:
    def waits(function: ast.AST) -> bool:
        loops = [node for node in ast.walk(function) if isinstance(node, ast.While)]
        return any("sleep(" in ast.unparse(loop) for loop in loops)

    copies = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in sorted((ROOT / "tests").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name in {"until", "eventually"}
        if path != ROOT / "tests/waiting.py" and waits(node)
    ]
    assert copies == [], "use those of tests/waiting.py"
