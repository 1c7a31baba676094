"""Who may leave, and when: no gateway may send to a pod that has stopped."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime

import pytest
from aiohttp import web

from fanfold_operator.kinds import Key, Manifest
from fanfold_operator.planning.ring import RingView, advance_ring, gateways, leaving, parting_gateways
from fanfold_operator.ring.acks import AckTracker
from fanfold_operator.ring.ports import AdminPorts
from fanfold_operator.ring.releases import Releases

RING = Key("HashRing", "prod", "demo")
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
READY = {"ready": True, "serving": True, "terminating": False}
LEAVING = {"ready": False, "serving": True, "terminating": True}
UNREADY = {"ready": False, "serving": False, "terminating": False}


def part(service: str, **endpoints: dict[str, bool]) -> Manifest:
    labels = {"fanfold.dev/service": service, "fanfold.dev/platform": "demo"}
    listed = [{"addresses": [f"10.0.0.{name[1:]}"], "conditions": one} for name, one in endpoints.items()]
    return {"metadata": {"name": service, "labels": labels}, "addressType": "IPv4", "endpoints": listed}


@pytest.fixture
def view(resource: Callable[..., Manifest]) -> Callable[..., RingView]:
    def make(*slices: Manifest, replicas: int = 2) -> RingView:
        ring = resource("HashRing", spec={"platform": "demo", "services": ["feed"]}, status={})
        scaling = {"min": 0, "max": 9}
        feed = {"platform": "demo", "component": "feed", "version": "1", "image": "x", "replicas": replicas}
        return RingView(
            ring, None, slices, [resource("PlatformService", "demo-feed", feed | {"scaling": scaling})], NOW
        )

    return make


def test_a_terminating_pod_whose_keys_others_serve_may_leave(view: Callable[..., RingView]) -> None:
    seen = view(part("feed", p1=READY, p2=LEAVING, p3=UNREADY))
    assert leaving(seen, advance_ring(seen)) == ["10.0.0.2:9000"]


def test_the_last_pod_of_a_service_stays_for_its_successor(view: Callable[..., RingView]) -> None:
    seen = view(part("feed", p1=LEAVING, p2=UNREADY), replicas=1)
    assert not leaving(seen, advance_ring(seen)), "all slots drain: gateways go on sending to it"
    replaced = view(part("feed", p1=LEAVING, p2=READY), replicas=1)
    assert leaving(replaced, advance_ring(replaced)) == ["10.0.0.1:9000"]


def test_the_last_pod_of_a_service_nobody_wants_may_leave(view: Callable[..., RingView]) -> None:
    seen = view(part("feed", p1=LEAVING), replicas=0)
    assert leaving(seen, advance_ring(seen)) == ["10.0.0.1:9000"]


def test_gateways_that_leave_or_are_unwell_are_told_apart(view: Callable[..., RingView]) -> None:
    seen = view(part("gateway", p1=READY, p2=LEAVING, p3=UNREADY))
    assert gateways(seen) == ["10.0.0.1:9000"]
    assert parting_gateways(seen) == ["10.0.0.2:9000", "10.0.0.3:9000"]


class Told:
    """Pods that were released, and how many calls fail first."""

    def __init__(self, failures: int = 0) -> None:
        self.pods: list[str] = []
        self.failures = failures
        self.calls = 0

    async def __call__(self, pod: str) -> bool:
        self.calls += 1
        if self.calls <= self.failures:
            return False
        self.pods.append(pod)
        return True


async def _settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_pod_is_released_once_every_gateway_uses_the_epoch_it_left_in() -> None:
    told = Told()
    releases = Releases(told)
    releases.follow(RING, 7, ["a"], least=6)
    await _settle()
    assert not told.pods
    releases.follow(RING, 9, ["a", "b"], least=7)
    await _settle()
    assert told.pods == ["a"], "a left in 7, b in 9: under churn nobody waits for the newest epoch"
    releases.follow(RING, 9, ["a", "b"], least=9)
    releases.follow(RING, 9, ["a", "b"], least=9)
    await _settle()
    assert told.pods == ["a", "b"], "and nobody is told twice"


async def test_a_pod_that_did_not_hear_is_told_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fanfold_operator.ring.releases.FIRST_RETRY_SECONDS", 0.0)
    told = Told(failures=2)
    Releases(told).follow(RING, 7, ["a"], least=7)
    for _ in range(20):
        await asyncio.sleep(0)
    assert (told.pods, told.calls) == (["a"], 3)


async def test_what_is_remembered_is_bounded_by_who_is_leaving() -> None:
    releases = Releases(Told())
    for serial in range(100):
        releases.follow(RING, serial, [f"pod-{serial}"], least=serial)
        await _settle()
    assert len(releases._told) == 1
    releases.forget(RING)
    assert not releases._told


@pytest.fixture
async def pod() -> AsyncIterator[tuple[str, list[str]]]:
    """A pod's admin port, and what was posted to it."""
    heard: list[str] = []

    async def hear(request: web.Request) -> web.Response:
        heard.append(request.path)
        return web.Response(status=204)

    app = web.Application()
    app.router.add_post("/release", hear)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"127.0.0.1:{runner.addresses[0][1]}", heard
    await runner.cleanup()


async def test_releases_go_over_http_and_who_is_gone_is_no_error(pod: tuple[str, list[str]]) -> None:
    address, heard = pod
    ports = AdminPorts()
    assert await ports.release(address)
    assert heard == ["/release"]
    assert not await ports.release("127.0.0.1:1")
    await ports.close()


async def _told_of(epochs: dict[str, int], gateways: list[str], parting: list[str], epoch: int) -> tuple[int, int, int]:
    """(acked, gateways, least) after each was asked once."""
    asked = asyncio.Event()

    async def ask(gateway: str) -> int:
        return epochs.get(gateway, -1)

    tracker = AckTracker(ask, lambda _: asked.set())
    tracker.follow(RING, epoch, gateways, parting, fresh=True)
    async with asyncio.timeout(30):
        await asked.wait()
    acks = tracker.follow(RING, epoch, gateways, parting, fresh=False)
    tracker.close()
    return acks.acked, acks.gateways, acks.least


async def test_a_leaving_gateway_counts_for_releases_but_not_as_acked() -> None:
    assert await _told_of({"a": 5, "b": 4}, ["a"], ["b"], 5) == (1, 1, 4)


async def test_a_leaving_gateway_that_does_not_answer_is_gone() -> None:
    assert await _told_of({"a": 5}, ["a"], ["b"], 5) == (1, 1, 5)


async def test_a_gateway_that_is_to_stay_and_does_not_answer_may_use_anything() -> None:
    assert await _told_of({"a": 5}, ["a", "b"], [], 5) == (1, 2, 0)


async def test_under_churn_what_gateways_use_is_remembered_from_epoch_to_epoch() -> None:
    asked = asyncio.Event()

    async def ask(_: str) -> int:
        return 5

    tracker = AckTracker(ask, lambda _: asked.set())
    tracker.follow(RING, 6, ["a"], fresh=True)
    async with asyncio.timeout(30):
        await asked.wait()
    assert tracker.follow(RING, 7, ["a"], fresh=True).least == 5
    tracker.close()


async def test_without_gateways_nobody_sends() -> None:
    tracker = AckTracker(Told(), lambda _: None)
    acks = tracker.follow(RING, 3, [], fresh=True)
    assert (acks.asked, acks.least) == (True, 3)
