"""The command, where it is used wrongly."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from fanfold_operator.cli import app


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--namespace", "a", "--all-namespaces"], "either --namespace or --all-namespaces"),
        (["--log-level", "loud"], "--log-level is DEBUG, INFO, WARNING or ERROR, not 'loud'"),
        (["--workers", "0"], "--workers"),
    ],
)
def test_wrong_options_are_told(arguments: list[str], words: str) -> None:
    answer = CliRunner().invoke(app, ["run", *arguments])
    assert answer.exit_code == 2
    assert words in answer.output.replace("\n", " ")


@pytest.mark.parametrize("arguments", [[], ["--namespace", "a", "--all-namespaces"]])
def test_deleting_platforms_asks_for_whose(arguments: list[str]) -> None:
    answer = CliRunner().invoke(app, ["delete-platforms", *arguments])
    assert answer.exit_code == 2
    assert "give --namespace or --all-namespaces, and not both" in answer.output.replace("\n", " ")


@pytest.mark.parametrize("content", [None, "not: a kubeconfig"])
def test_without_access_it_says_what_was_tried(
    content: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    if content:
        kubeconfig.write_text(content)
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    answer = CliRunner().invoke(app, ["run", "--admin-port", "0"])
    assert answer.exit_code == 2
    assert "no access to Kubernetes" in answer.output
    assert "no usable kubeconfig" in answer.output.replace("\n", " ")
