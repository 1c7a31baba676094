"""A native cluster of the tests' own, with the operator and a Platform on it, removed at the end."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tools.local.clusters import Kubectl, Native
from tools.local.up import NAMESPACE, up
from tools.progress import StageError, say

CLUSTER = "fanfold-e2e"
LAST = "test_main_job.py"
"""Ends with the removal of the platform that the others share."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What upgrades the shared platform comes before what removes it."""
    first = next((place for place, item in enumerate(items) if item.path.name == LAST), None)
    if first is not None:
        upgrades = [item for item in items if item.path.name == "test_upgrades.py" and "e2e" in item.path.parts]
        items[first:first] = upgrades
        rest = items[first + len(upgrades) :]
        items[first + len(upgrades) :] = [item for item in rest if item not in upgrades]


@pytest.fixture(scope="session")
def cluster() -> Iterator[Native]:
    """A cluster that no other process uses."""
    if os.geteuid() != 0:
        pytest.skip("the native cluster needs root: namespaces, mounts and cgroups")
    running = Native(why="the tests' own", name=CLUSTER)
    running.build()
    running.stop(purge=True)
    yield running
    running.stop(purge=True)


@pytest.fixture(scope="session")
def deployed(cluster: Native) -> Kubectl:
    """The main job, as `make up` does it; kubectl in the platform's namespace.

    Twice if need be, as an engineer would on a machine that was busy: the demo fails by one read that waits in vain for
    the cache, which a disk that is still writing images can hold up for seconds.
    """
    try:
        up(cluster)
    except StageError as error:
        say(f"again, after: {error}")
        up(cluster)
    return Kubectl(cluster.environment(), NAMESPACE)
