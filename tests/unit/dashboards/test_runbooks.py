"""Runbooks say what an alert means, where to look and how to mend it, in words and commands that there are."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from dashboards.alerts import ALERTS
from dashboards.boards import BOARDS
from fanfold.cli import app as fanfold
from fanfold_loadtest.cli import app as loadtest
from fanfold_operator.companion.cli import app as companion
from tests.unit.dashboards.exposed import bare, families

ROOT = Path(__file__).resolve().parents[3]
RUNBOOKS = sorted((ROOT / "docs" / "runbooks").glob("*.md"))
SECTIONS = ["What it means", "Look", "Mend"]
CODE = re.compile(r"`([^`]+)`", re.DOTALL)
PROGRAMS = {"fanfold": fanfold, "fanfold-loadtest": loadtest, "kubectl fanfold": companion}
VERBS = {"get", "describe", "logs", "exec", "scale", "rollout", "top", "delete", "patch", "auth"}
BUILT_IN = {"pods", "deploy", "jobs", "pvc", "lease", "rolebinding", "flowschemas", "configmap", "scaledobject"}


def kinds() -> set[str]:
    """Short names of our resources."""
    files = (ROOT / "crds").glob("*.yaml")
    names = [yaml.safe_load(file.read_text())["spec"]["names"]["shortNames"] for file in files]
    return {name for some in names for name in some}


def commands(text: str) -> list[list[str]]:
    """Words of every command in it; placeholders as they stand."""
    spans = [" ".join(span.split()) for span in CODE.findall(text)]
    return [shlex.split(span) for span in spans if re.match(r"(kubectl|fanfold|fanfold-loadtest) ", span)]


def parsed(app: Any, words: list[str]) -> None:
    """Fails for a command or an option that the program has not."""
    command: Any = typer.main.get_command(app)
    rest = list(words)
    while hasattr(command, "commands"):
        assert rest[0] in command.commands, words
        command = command.commands[rest.pop(0)]
    command.make_context("runbook", [word.replace("URL", "http://127.0.0.1:1") for word in rest])


def checked_kubectl(words: list[str]) -> None:
    rest = [word for word in words[1:] if word != "NAMESPACE"]
    plain = [word for word in rest if not word.startswith("-")]
    assert plain[0] in VERBS, words
    if plain[0] in {"logs", "exec", "top"}:
        assert len(plain) > 1 or "-l" in rest, words
        return
    kind = plain[{"rollout": 2, "auth": 3}.get(plain[0], 1)]
    for one in kind.split("/")[0].split(","):
        assert one in kinds() | BUILT_IN, words


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    assert {path.stem for path in RUNBOOKS} == {alert.name for alert in ALERTS}


@pytest.mark.parametrize("path", RUNBOOKS, ids=lambda path: path.stem)
def test_a_runbook_has_its_sections_and_none_is_empty(path: Path) -> None:
    text = path.read_text()
    assert text.startswith(f"# {path.stem}\n")
    parts = re.split(r"^## (.+)\n", text, flags=re.MULTILINE)
    assert parts[1::2] == SECTIONS
    assert all(len(part.strip()) > 60 for part in parts[2::2])
    assert commands(text)


@pytest.mark.parametrize("path", RUNBOOKS, ids=lambda path: path.stem)
def test_its_commands_are_ones_that_the_programs_have(path: Path) -> None:
    for words in commands(path.read_text()):
        line = " ".join(words)
        for program, app in PROGRAMS.items():
            if f"{program} " in line and (line.startswith(program) or f" -- {program} " in line):
                start = words.index(program.split()[-1]) + 1
                parsed(app, words[start:])
                break
        else:
            checked_kubectl(words)


@pytest.mark.parametrize("path", RUNBOOKS, ids=lambda path: path.stem)
def test_the_panels_metrics_and_alerts_it_names_exist(path: Path) -> None:
    text = path.read_text()
    titles = {panel.title for board in BOARDS for panel in board.panels}
    named = set(re.findall(r"(?<!\*)\*([A-Z][^*`\n]+)\*(?!\*)", text))
    assert named <= titles
    metrics = set(re.findall(r"`(fanfold_[a-z_]+)`", text))
    assert {bare(name) for name in metrics} <= families().keys()
    assert set(re.findall(r"\bFanfold[A-Z]\w+", text)) <= {alert.name for alert in ALERTS}
