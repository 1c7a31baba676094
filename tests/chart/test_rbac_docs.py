"""docs/operator/rbac.md explains the rights the chart grants, all of them and no others."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
Right = tuple[str, str, str]


def granted(*settings: str) -> set[Right]:
    subprocess.run([ROOT / "tools" / "install-helm.sh"], check=True, timeout=900)
    options = [word for setting in settings for word in ("--set-json", setting)]
    words = [str(ROOT / ".build/bin/helm"), "template", "fanfold", str(ROOT / "charts/fanfold"), *options]
    answer = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
    documents = [one for one in yaml.safe_load_all(answer.stdout) if one]
    roles = [one for one in documents if one["kind"] in {"Role", "ClusterRole"}]
    return {right for role in roles for rule in role["rules"] for right in expanded(rule)}


def expanded(rule: dict[str, Any]) -> Iterable[Right]:
    for group in rule["apiGroups"]:
        for resource in rule["resources"]:
            for verb in rule["verbs"]:
                yield group, resource, verb


def explained(text: str) -> set[Right]:
    """Rights of the rows ``| `group` | `resource`… | `verb`… | who | without |``, whose two reasons are there."""
    rights: set[Right] = set()
    for line in text.splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if len(cells) != 5 or not cells[0].startswith("`"):
            continue
        assert all(len(cell) > 10 for cell in cells[3:]), f"no reason: {line}"
        group, resources, verbs = (re.findall(r"`([^`]*)`", cell) for cell in cells[:3])
        rule = {"apiGroups": [group[0].strip('"')], "resources": resources, "verbs": verbs}
        rights |= set(expanded(rule))
    return rights


@pytest.mark.parametrize("settings", [(), ("namespaced=true",)], ids=["all namespaces", "one namespace"])
def test_every_right_of_the_chart_is_explained_and_none_that_it_does_not_grant(settings: tuple[str, ...]) -> None:
    there, told = (
        granted('uninstall={"platforms":"Delete"}', *settings),
        explained((ROOT / "docs/operator/rbac.md").read_text()),
    )
    assert there - told == set(), "rights without an explanation: add them to docs/operator/rbac.md"
    assert told - there == set(), "explained rights that the chart does not grant: remove them"


def test_files_named_in_the_explanations_are_there() -> None:
    text = (ROOT / "docs/operator/rbac.md").read_text()
    for name in set(re.findall(r"`([a-z_]+/[a-z_]*(?:\.py)?|[a-z_]+\.py)`", text)):
        if "." in name or name.endswith("/"):
            assert (ROOT / "operator/src/fanfold_operator" / name).exists(), name
