"""The loop that components run on; they are started by the fixture `platform`."""

from __future__ import annotations

from typing import Any

import pytest
import uvloop


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, Any]:
    """The loop that components run on."""
    return {"uvloop": uvloop.new_event_loop}
