"""All components of a platform in one process, behind a real gateway."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import uvloop

from fanfold.contracts.components import COMPONENTS, ROUTED
from fanfold.contracts.snapshot import Slot, Snapshot, encode


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, Any]:
    """The loop that components run on."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
async def platform(house: Any, bucket: str, tmp_path: Path) -> str:
    """URL of the gateway of a whole platform, without the image worker."""
    file = tmp_path / "snapshot.json"
    slots = {name: [Slot(f"{name}-0", urlsplit(house.urls[name]).netloc)] for name in ROUTED}
    file.write_bytes(encode(Snapshot("default/test", 1, slots)))
    for component in COMPONENTS:
        if component.name not in {"gateway", "image-worker"}:
            await house.start(component.name)
    gateway = await house.start("gateway", snapshot_source=f"file:{file}")
    return str(gateway.base_url)
