"""Listings in pages, by a real API server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fanfold_operator import api
from fanfold_operator.kinds import CONFIG_MAP

pytestmark = pytest.mark.cluster


async def test_all_pages_together_are_the_whole_list(
    kube: Any, kubeconfig: Path, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "PAGE", 2)
    for number in range(5):
        metadata = {"name": f"part-{number}", "labels": {"fanfold.dev/platform": "demo"}}
        kube.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}, namespace)
    client = api.Api(await api.login(str(kubeconfig)))
    try:
        pages = [page async for page in client.pages(CONFIG_MAP, namespace)]
        whole = await client.list(CONFIG_MAP, namespace)
    finally:
        await client.close()
    assert [len(page["items"]) for page in pages] == [2, 2, 1]
    assert len({page["metadata"]["resourceVersion"] for page in pages}) == 1
    assert [item["metadata"]["name"] for item in whole["items"]] == [f"part-{number}" for number in range(5)]
