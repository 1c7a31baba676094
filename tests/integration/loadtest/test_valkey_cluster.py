"""The demo's journey where Valkey is a cluster: no command crosses slots, and every node has its share."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fanfold_loadtest import journey
from fanfold_loadtest.client import Api
from fanfold_loadtest.journey import Journey
from tests.integration.valkey_cluster import ValkeyCluster

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


@pytest.fixture(scope="session")
def cache_url(valkey_cluster: ValkeyCluster) -> str:
    """Of the cluster."""
    return valkey_cluster.url


async def test_the_demo_passes_on_a_cluster(
    platform: str, house: Any, valkey_cluster: ValkeyCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journey, "UPLOADS", 4)
    monkeypatch.setattr(journey, "POSTS", 12)
    for number in range(len(valkey_cluster.nodes)):
        valkey_cluster.client(number).config_resetstat()
    await house.start("image-worker", image_processes=1)
    async with Api(platform) as api:
        outcome = await Journey(api, 8, seed=1, tell=lambda _: None).run(rate=20, seconds=1)
    assert outcome.feed_reads.failures == []
    assert await asyncio.to_thread(_sizes, valkey_cluster) == [True, True, True]
    assert await asyncio.to_thread(_refused, valkey_cluster) == 0


def _sizes(cluster: ValkeyCluster) -> list[bool]:
    """Whether each node has some of the keys."""
    return [cluster.client(number).dbsize() > 10 for number in range(len(cluster.nodes))]


def _refused(cluster: ValkeyCluster) -> int:
    """Commands whose keys were of more than one slot, as the nodes counted."""
    errors = [cluster.client(number).info("errorstats") for number in range(len(cluster.nodes))]
    return sum(one.get("errorstat_CROSSSLOT", {"count": 0})["count"] for one in errors)
