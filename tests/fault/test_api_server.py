"""The API server is away for a minute, without a word, and people go on; a gateway that starts meanwhile serves too."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.fault.links import Link
from tests.integration.gateway.control_plane import BINARY, NAME, ControlPlane, as_gateway, control_plane  # noqa: F401
from tests.waiting import eventually

if TYPE_CHECKING:
    from tests.fault.conftest import Scene

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(400),
    pytest.mark.skipif(not BINARY.exists(), reason="the control plane is not built: run cluster/build.sh"),
]

AWAY_SECONDS = 60.0
PAUSE = 0.2


def server_of(kubeconfig: Path) -> str:
    """Host and port of the API server."""
    server: str = json.loads(kubeconfig.read_text())["clusters"][0]["cluster"]["server"]
    return server.removeprefix("https://")


def lead_through(link: Link, kubeconfig: Path) -> None:
    """Lead the account's way to the API server over the link."""
    config = json.loads(kubeconfig.read_text())
    config["clusters"][0]["cluster"]["server"] = f"https://{link.address}"
    kubeconfig.write_text(json.dumps(config))


async def test_a_minute_without_the_api_server_is_not_noticed(
    scene: Scene,
    control_plane: ControlPlane,  # noqa: F811
    as_gateway: Path,  # noqa: F811
) -> None:
    async with Link(server_of(as_gateway)).open() as link:
        lead_through(link, as_gateway)
        await asyncio.to_thread(control_plane.write, scene.snapshot(5))
        scene.settings = {"snapshot_source": f"configmap:default/{NAME}"}
        await scene.restart_gateway()

        async def in_force(epoch: int) -> bool:
            return bool((await scene.gateway.snapshot())["epoch"] == epoch)

        await eventually(lambda: in_force(5), "the snapshot from the API server")
        journey = scene.journey(PAUSE)
        async with journey.under_way() as outcomes:
            await link.freeze()
            await asyncio.to_thread(control_plane.write, scene.snapshot(6))  # which nobody hears of
            await asyncio.sleep(AWAY_SECONDS)
            assert await in_force(5)
            assert (await scene.gateway.snapshot())["age_seconds"] > AWAY_SECONDS - 15
        assert outcomes.failed == {}
        assert outcomes.answered > AWAY_SECONDS

        await scene.restart_gateway()
        await eventually(scene.gateway.ready, "a gateway that begins with its disk")
        assert (await scene.gateway.snapshot())["source"] == "disk"
        journey = scene.journey()
        async with journey.under_way() as outcomes:
            await journey.more(20)
            link.thaw()
            await eventually(lambda: in_force(6), "what was written meanwhile")
            await journey.more(20)
        assert outcomes.failed == {}
