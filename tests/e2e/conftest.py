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
"""Ends with the removal of the platform that the others share, and of its operator."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What changes the shared platform comes before what removes it."""
    last = [item for item in items if item.path.name == LAST]
    items[:] = [item for item in items if item not in last] + last


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
