"""A component's life in this process: it ends with its background work, and has settled by then."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from fanfold.dev.process import free_ports
from fanfold.kit.runtime import NEW_OBJECTS, Runtime
from fanfold.kit.settings import Settings


@pytest.fixture
def collecting() -> Iterator[None]:
    """Garbage is collected afterwards as it was before."""
    thresholds = gc.get_threshold()
    yield
    gc.set_threshold(*thresholds)
    gc.unfreeze()


@pytest.mark.usefixtures("collecting")
async def test_what_the_start_made_is_never_looked_at_again(tmp_path: Path) -> None:
    (tmp_path / "identity_key").write_text("ab" * 32)
    seen: dict[str, int] = {}

    async def look() -> None:
        seen.update(frozen=gc.get_freeze_count(), threshold=gc.get_threshold()[0])

    async def build(runtime: Runtime[Settings]) -> None:
        runtime.background("look", look)

    (admin,) = free_ports(1)
    settings = Settings(secrets_dir=tmp_path, admin_host="127.0.0.1", admin_port=admin, drain_seconds=0)
    assert await Runtime(settings).serve(build) == 1, "background work that ends is a failure"
    assert seen["frozen"] > 10_000
    assert seen["threshold"] == NEW_OBJECTS
