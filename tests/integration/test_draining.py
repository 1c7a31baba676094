"""A component that leaves: what its preStop hook waits for, and what it says to those who keep connections."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import httpx
import pytest

from fanfold.dev.process import free_ports

if TYPE_CHECKING:
    from tests.integration.conftest import House

pytestmark = pytest.mark.integration


async def test_the_hook_waits_until_the_pod_is_released_and_the_pod_serves_meanwhile(house: House) -> None:
    (port,) = free_ports(1)
    follow = await house.start("follow", admin_port=port, release_seconds=20)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as admin:
        hook = asyncio.create_task(admin.get("/drain"))
        await asyncio.sleep(0.2)
        assert not hook.done()
        assert (await admin.get("/readyz")).status_code == 200
        answer = await follow.get("/v1/users/me/following", headers={})
        assert "connection" not in answer.headers, "whoever calls /drain takes nobody's connection away"
        assert (await admin.post("/release")).status_code == 204
        async with asyncio.timeout(30):
            assert (await hook).json() == {"released": True}
        assert (await admin.get("/drain")).json() == {"released": True}, "the word may come before the hook is called"


async def test_the_hooks_wait_is_bounded(house: House) -> None:
    (port,) = free_ports(1)
    await house.start("follow", admin_port=port, release_seconds=0.2)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as admin:
        assert (await admin.get("/drain")).json() == {"released": False}


async def test_while_draining_a_component_serves_but_keeps_no_connection(
    house: House,
) -> None:
    follow = await house.start("follow", drain_seconds=1.0)
    runtime = house.runtimes["follow"]
    assert "connection" not in (await follow.get("/v1/users/me/following")).headers
    runtime.draining = True
    answer = await follow.get("/v1/users/me/following")
    assert answer.status_code == 401
    assert answer.headers["connection"] == "close"
