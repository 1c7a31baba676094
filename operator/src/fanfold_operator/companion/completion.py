"""What could stand next on the command line, and the program kubectl asks for it.

kubectl runs ``kubectl_complete-fanfold WORD...`` with the words after ``kubectl fanfold``, the last one incomplete, and
expects candidates, one a line, and a directive: https://kubernetes.io/docs/tasks/extend-kubectl/kubectl-plugins/
"""

from __future__ import annotations

import asyncio
import io
import os
import shlex
import sys
from contextlib import redirect_stdout, suppress
from typing import TYPE_CHECKING, Any, Final

import typer
from kubernetes.aio import config

from fanfold.contracts.components import COMPONENTS
from fanfold_operator.companion.access import CompanionError, Where, connected

if TYPE_CHECKING:
    from collections.abc import Iterable

PROGRAM: Final = "kubectl-fanfold"
NO_FILES: Final = ":4"
"""Cobra's ``ShellCompDirectiveNoFileComp``."""
LIMIT_SECONDS: Final = 2.0
"""Nobody waits longer for a completion; without an answer in time there is none."""


def platforms(context: typer.Context, incomplete: str) -> list[str]:
    """Names of Platforms where the options before point to."""
    options = context.params
    where = Where(
        options.get("namespace"),
        bool(options.get("all_namespaces")),
        options.get("context"),
        options.get("kubeconfig"),
    )

    async def ask() -> list[str]:
        async with asyncio.timeout(LIMIT_SECONDS), connected(where) as cluster:
            return [one["metadata"]["name"] for one in await cluster.platforms()]

    try:
        return _fitting(asyncio.run(ask()), incomplete)
    except (CompanionError, TimeoutError):
        return []


def services(incomplete: str) -> list[str]:
    """Names of components."""
    return _fitting((component.name for component in COMPONENTS), incomplete)


def contexts(context: typer.Context, incomplete: str) -> list[str]:
    """Contexts of the kubeconfig."""
    file = context.params.get("kubeconfig") or os.environ.get("KUBECONFIG")
    try:
        known, _ = config.list_kube_config_contexts(file)  # type: ignore[no-untyped-call]
    except config.ConfigException:
        return []
    return _fitting((one["name"] for one in known), incomplete)


def main() -> None:
    """Entry point of ``kubectl_complete-fanfold``: the same answers the shell gets for ``kubectl-fanfold`` itself."""
    from fanfold_operator.companion.cli import app  # noqa: PLC0415 - the command imports the completions of this module

    words = sys.argv[1:] or [""]
    asked: dict[str, Any] = {
        f"_{PROGRAM.replace('-', '_').upper()}_COMPLETE": "complete_bash",
        "COMP_WORDS": shlex.join([PROGRAM, *words[:-1]]) + " " + words[-1],
        "COMP_CWORD": str(len(words)),
    }
    os.environ.update(asked)
    answer = io.StringIO()
    with redirect_stdout(answer), suppress(SystemExit):  # how the shell's protocol ends
        app(prog_name=PROGRAM)
    candidates = [line for line in answer.getvalue().splitlines() if line]
    sys.stdout.write("\n".join([*candidates, NO_FILES, ""]))


def _fitting(names: Iterable[str], incomplete: str) -> list[str]:
    return sorted(name for name in names if name.startswith(incomplete))
