"""Replicas come and go under load: no request fails, and none reaches a pod after its preStop hook has let it go.

The gateway, the replicas' runtime, the slots, the acknowledgements and the releases are the real ones; the kubelet
(hook, then SIGTERM) and the API server (a file in the ConfigMap's place) are played.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from fastapi import FastAPI

from fanfold.contracts.components import ROUTED
from fanfold.contracts.ids import new_id
from fanfold.contracts.resources import HashRingSpec
from fanfold.dev.process import free_ports
from fanfold.kit.runtime import Runtime
from fanfold.kit.settings import Settings
from fanfold_operator.kinds import Key
from fanfold_operator.ring.acks import AckTracker
from fanfold_operator.ring.ports import AdminPorts
from fanfold_operator.ring.releases import Releases
from fanfold_operator.ring.slots import Endpoint
from fanfold_operator.ring.snapshot import Memory, advance, recall
from tests.waiting import eventually

if TYPE_CHECKING:
    from tests.integration.conftest import SettingsFor
    from tests.integration.gateway.conftest import Rig

pytestmark = pytest.mark.integration

KEY = Key("HashRing", "default", "test")
REPLICAS = 2
HOOK_SECONDS = 60
LINGER_SECONDS = 0.4
"""Twice what the gateway needs to look at its snapshot: whoever is still sent to after the hook notices it."""


@dataclass
class Pod:
    """One replica: its ports, when it was asked for something, and when its hook let it go."""

    traffic: int
    admin: int
    stack: AsyncExitStack
    asked: list[float] = field(default_factory=list)
    released: float | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.traffic}"

    async def served(self) -> bool:
        return bool(self.asked)


class Play:
    """Kubernetes and the operator, as far as this test needs them."""

    def __init__(self, rig: Rig, settings_for: SettingsFor, tell: Callable[[str], Awaitable[bool]]) -> None:
        self._rig = rig
        self._settings_for = settings_for
        self._ports = AdminPorts()
        self._changed = asyncio.Event()
        self._acks = AckTracker(self._ports.epoch, lambda _: self._changed.set())
        self._releases = Releases(tell)
        self._data: dict[str, str] | None = None
        self.pods: list[Pod] = []
        self.left: list[Pod] = []

    async def start(self) -> Pod:
        traffic, admin = free_ports(2)
        pod = Pod(traffic, admin, AsyncExitStack())

        async def build(_: Runtime[Any]) -> FastAPI:
            app = FastAPI()

            @app.api_route("/{path:path}", methods=["GET", "POST"])
            async def answer(path: str) -> dict[str, str]:
                pod.asked.append(time.monotonic())
                await asyncio.sleep(0.005)
                return {"path": path}

            return app

        settings = self._settings_for(
            "post", kind=Settings, traffic_port=traffic, admin_port=admin, release_seconds=HOOK_SECONDS,
            drain_seconds=LINGER_SECONDS,
        )  # fmt: skip
        await pod.stack.enter_async_context(Runtime(settings).started(build))
        self.pods.append(pod)
        return pod

    def reconcile(self, *leaving: Pod) -> None:
        """As the operator does: slots, snapshot, who uses it, who may go."""
        endpoints = [Endpoint(pod.address, ready=pod not in leaving, leaving=pod in leaving) for pod in self.pods]
        ring = advance(
            recall({"data": self._data}) if self._data else Memory(None, {}),
            platform="default/test",
            spec=HashRingSpec(platform="test", services=list(ROUTED)),
            endpoints=dict.fromkeys(ROUTED, endpoints),
            wanted=dict.fromkeys(ROUTED, REPLICAS),
            least_epoch=0,
        )
        if ring.changed:
            self._data = ring.data()
            partial = self._rig.file.with_suffix(".partial")
            partial.write_text(self._data["snapshot.json"])
            partial.replace(self._rig.file)
        epoch, gateways = ring.snapshot.epoch, [f"127.0.0.1:{self._rig.admin_port}"]
        acks = self._acks.follow(KEY, epoch, gateways, fresh=ring.changed)
        self._releases.follow(KEY, epoch, [f"127.0.0.1:{pod.admin}" for pod in leaving], acks.least)

    async def replace(self, old: Pod) -> None:
        """A rollout's step: the successor is ready, the old one is deleted, waits in its hook, and is told to stop."""
        await self.start()
        self.reconcile()
        self.reconcile(old)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{old.admin}", timeout=HOOK_SECONDS + 5) as kubelet:
            hook = asyncio.create_task(kubelet.get("/drain"))
            while not hook.done():
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), timeout=0.05)
                self._changed.clear()
                self.reconcile(old)
            old.released = time.monotonic() if hook.result().json() == {"released": True} else None
        await old.stack.aclose()
        self.pods.remove(old)
        self.left.append(old)
        self.reconcile()

    async def close(self) -> None:
        self._acks.close()
        self._releases.close()
        await self._ports.close()
        for pod in self.pods:
            await pod.stack.aclose()


async def _load(rig: Rig, statuses: list[int], stop: asyncio.Event) -> None:
    """One client that keeps its connection and never pauses: reads and writes, each time as somebody else."""
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{rig.port}", timeout=60) as client:
        while not stop.is_set():
            headers = rig.bearer(user=new_id())
            statuses.append((await client.get("/v1/feed", headers=headers)).status_code)
            answer = await client.post(f"/v1/posts/{rig.user}/comments", json={"text": "x"}, headers=headers)
            statuses.append(answer.status_code)


async def _roll(rig: Rig, play: Play) -> list[int]:
    """Replace every replica twice under load; the statuses clients saw."""
    for _ in range(REPLICAS):
        await play.start()
    play.reconcile()
    await rig.start()
    statuses: list[int] = []
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as clients:
        for _ in range(4):
            clients.create_task(_load(rig, statuses, stop))
        try:
            for _ in range(2):
                for old in list(play.pods):
                    await eventually(old.served)
                    await play.replace(old)
        finally:
            stop.set()
    return statuses


def _late(play: Play) -> int:
    return sum(at > pod.released for pod in play.left if pod.released for at in pod.asked)


async def test_replicas_are_replaced_under_load_without_a_failed_request_or_one_too_late(
    rig: Rig, settings_for: SettingsFor
) -> None:
    async with AsyncExitStack() as stack:
        ports = AdminPorts()
        stack.push_async_callback(ports.close)
        play = Play(rig, settings_for, ports.release)
        stack.push_async_callback(play.close)
        statuses = await _roll(rig, play)
        assert len(statuses) > 100
        assert set(statuses) == {200}
        assert all(pod.released for pod in play.left), "each was released, none waited its time out"
        assert not _late(play), "nobody was sent to after the hook"
