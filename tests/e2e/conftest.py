"""A native cluster of the tests' own, with the operator and a Platform on it, removed at the end."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tools.local.clusters import Kubectl, Native
from tools.local.up import NAMESPACE, up

CLUSTER = "fanfold-e2e"


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
    """The main job, as `make up` does it; kubectl in the platform's namespace."""
    up(cluster)
    return Kubectl(cluster.environment(), NAMESPACE)
