"""What could stand next on the command line."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Final

import typer
from kubernetes.aio import config

from fanfold.contracts.components import COMPONENTS
from fanfold_operator.companion.access import CompanionError, Where, connected

if TYPE_CHECKING:
    from collections.abc import Iterable

PROGRAM: Final = "kubectl-fanfold"
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


def _fitting(names: Iterable[str], incomplete: str) -> list[str]:
    return sorted(name for name in names if name.startswith(incomplete))
