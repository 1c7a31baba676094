"""A real gateway before two real replicas of a service with real stores, and a network that can be broken."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import asyncpg
import httpx
import jwt
import msgspec
import pytest
import uvloop

from fanfold.contracts import keys
from fanfold.contracts.blobs import PostBlob, UserBlob
from fanfold.contracts.components import ROUTED
from fanfold.contracts.ids import id_millis, new_id
from fanfold.contracts.ring import Ring, key_of
from fanfold.contracts.snapshot import Slot, Snapshot, encode
from fanfold.dev.process import ChildProcess, free_ports
from fanfold.gateway.app import build
from fanfold.gateway.snapshots import FILE_NAME
from fanfold.kit.runtime import Runtime
from fanfold.kit.settings import Settings
from fanfold.kit.valkey import redis_client
from tests.fault.journey import Journey
from tests.fault.links import Link
from tests.integration.conftest import (  # noqa: F401 - fixtures
    _plain_logs,
    _template,
    cache_url,
    database_url,
    secrets_dir,
    settings_for,
    stores,
)
from tests.waiting import eventually

if TYPE_CHECKING:
    from fanfold.dev.stores import BackingStores
    from tests.integration.conftest import SettingsFor

REPLICAS = 2
PEOPLE = 24
REQUEST_SECONDS = 30.0
"""More than anything takes on a busy machine."""
OUTLIER_ERRORS = 5
HOST = "127.0.0.1"
START_SECONDS = 60.0


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, Any]:
    """The loop that the gateway runs on."""
    return {"uvloop": uvloop.new_event_loop}


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).status_code == 200
    except httpx.TransportError:
        return False


class Replica:
    """One process of the activity service. A killed one is started again on the same port."""

    def __init__(self, number: int, secrets: Path, folder: Path) -> None:
        self.slot = f"activity-{number}"
        port, self._admin = free_ports(2)
        self.address = f"{HOST}:{port}"
        self._log = folder / f"{self.slot}.log"
        self._environment = {
            **os.environ,
            "FANFOLD_INSTANCE": self.slot,
            "FANFOLD_SECRETS_DIR": str(secrets),
            "FANFOLD_TRAFFIC_HOST": HOST,
            "FANFOLD_ADMIN_HOST": HOST,
            "FANFOLD_TRAFFIC_PORT": str(port),
            "FANFOLD_ADMIN_PORT": str(self._admin),
            "FANFOLD_DRAIN_SECONDS": "0",
            "FANFOLD_GRACE_SECONDS": "1",
        }
        self.process = self._start()

    def _start(self) -> ChildProcess:
        command = [sys.executable, "-m", "fanfold", "run", "activity"]
        return ChildProcess(self.slot, command, log=self._log, env=self._environment)

    def wait(self) -> None:
        self.process.wait_until(lambda: answers(f"http://{HOST}:{self._admin}/readyz"), START_SECONDS)

    async def refused_late(self) -> float:
        """Requests that came after their deadline."""
        async with httpx.AsyncClient(timeout=60) as client:
            lines = (await client.get(f"http://{HOST}:{self._admin}/metrics")).text.splitlines()
        wanted = [line for line in lines if line.startswith("fanfold_http_requests_total") and 'status="504"' in line]
        return sum(float(line.rpartition(" ")[2]) for line in wanted)

    def kill(self) -> None:
        self.process.kill()

    def pause(self) -> None:
        os.kill(self.process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.process.pid, signal.SIGCONT)

    async def restart(self) -> None:
        """Start it again after it was killed, until it is ready."""
        self.process = self._start()
        await asyncio.to_thread(self.wait)  # this thread carries the links

    def stop(self) -> None:
        self.resume()
        self.process.stop()


@pytest.fixture(scope="module")
def processes(secrets_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Replica]]:  # noqa: F811
    folder = tmp_path_factory.mktemp("replicas")
    made = [Replica(number, secrets_dir, folder) for number in range(REPLICAS)]
    try:
        for one in made:
            one.wait()
        yield made
    finally:
        for one in made:
            if one.process.running():
                one.stop()


@pytest.fixture
async def replicas(processes: list[Replica]) -> list[Replica]:
    """Two that run, whatever a test before did to them."""
    for one in processes:
        if one.process.running():
            one.resume()
        else:
            await one.restart()
    return processes


class Gateway:
    """A whole gateway, as ``fanfold run gateway`` starts it, on ports of its own."""

    def __init__(self, settings: Any) -> None:
        self.client = httpx.AsyncClient(base_url=f"http://{HOST}:{settings.traffic_port}", timeout=60)
        self.admin = httpx.AsyncClient(base_url=f"http://{HOST}:{settings.admin_port}", timeout=60)
        self._settings = settings
        self._stack = AsyncExitStack()

    async def start(self) -> None:
        for client in (self.client, self.admin):
            await self._stack.enter_async_context(client)
        await self._stack.enter_async_context(Runtime(self._settings).started(build))

    async def stop(self) -> None:
        """As SIGTERM does."""
        await self._stack.aclose()

    async def ready(self) -> bool:
        return (await self.admin.get("/readyz")).status_code == 200

    async def snapshot(self) -> dict[str, Any]:
        found: dict[str, Any] = (await self.admin.get("/snapshot")).json()
        return found

    async def metric(self, name: str, label: str = "") -> float:
        lines = (await self.admin.get("/metrics")).text.splitlines()
        wanted = [line for line in lines if line.startswith(f"fanfold_gateway_{name}") and label in line]
        return sum(float(line.rpartition(" ")[2]) for line in wanted)


class Scene:
    """What a test plays on.

    Attributes:
        links: The network before each replica, in the order of the slots.
        file: The snapshot's source.
        cache: Where gateways keep their last known good.
        settings: Of the next gateway, where they differ.
    """

    def __init__(self, settings: SettingsFor, folder: Path, links: list[Link], redis: Any) -> None:
        self._settings_for = settings
        self._secrets = settings("test", kind=Settings).secrets
        self._redis = redis
        self.links = links
        self.file = folder / "snapshot.json"
        self.cache = folder / "cache"
        self.people = [new_id() for _ in range(PEOPLE)]
        self.post = new_id()
        self.settings: dict[str, Any] = {}
        self.gateway: Gateway

    async def furnish(self) -> None:
        """Users and a post, as their owners would have cached them."""
        for number, person in enumerate(self.people):
            blob = UserBlob(person.bytes, f"person{number}", f"Person {number}", "")
            await self._redis.set(keys.user(person), msgspec.msgpack.encode(blob))
            await self._redis.set(keys.blocks(person), b"")
        post = PostBlob(self.post.bytes, self.people[0].bytes, "", id_millis(self.post), [])
        await self._redis.set(keys.post(self.post), msgspec.msgpack.encode(post))

    def snapshot(self, epoch: int) -> bytes:
        slots = [Slot(f"activity-{number}", link.address) for number, link in enumerate(self.links)]
        return encode(Snapshot("default/test", epoch, {name: slots for name in ROUTED if name == "activity"}))

    def locate(self, data: bytes) -> None:
        """Write the source as a careful writer does."""
        partial = self.file.with_suffix(".partial")
        partial.write_bytes(data)
        partial.replace(self.file)

    async def start_gateway(self) -> None:
        traffic, admin = free_ports(2)
        values = {
            "traffic_port": traffic,
            "admin_port": admin,
            "snapshot_source": f"file:{self.file}",
            "snapshot_cache": self.cache,
            "request_seconds": REQUEST_SECONDS,
            "outlier_errors": OUTLIER_ERRORS,
            "outlier_seconds": 300,
            "connect_seconds": 10,
            "snapshot_confirm_seconds": 60,
            "grace_seconds": 0.3,
            **self.settings,
        }
        self.gateway = Gateway(self._settings_for("gateway", **values))
        await self.gateway.start()

    async def restart_gateway(self) -> None:
        """Another in its place, as a container that is started again on its volume."""
        await self.gateway.stop()
        await self.start_gateway()

    async def lose_patience(self) -> None:
        """Another gateway, which waits for some seconds and no more: for tests of what does not answer."""
        self.settings = {"request_seconds": 4, "connect_seconds": 2}
        await self.restart_gateway()
        await eventually(self.gateway.ready, "a ready gateway")

    async def saved(self) -> bool:
        """Whether the snapshot in force is on disk: it is so soon after."""
        return await asyncio.to_thread((self.cache / FILE_NAME).exists)

    def bearer(self, person: UUID) -> dict[str, str]:
        """The headers of one who is logged in."""
        secrets = self._secrets
        now = int(time.time())
        claims = {"sub": str(person), "sid": str(new_id()), "iat": now - 60, "exp": now + 900, "iss": "fanfold"}
        kid = json.loads(secrets.read("token_jwks"))["keys"][0]["kid"]
        token = jwt.encode(claims, secrets.read("token_private_key"), algorithm="EdDSA", headers={"kid": kid})
        return {"authorization": f"Bearer {token}"}

    def journey(self, pause: float = 0) -> Journey:
        return Journey(self.gateway.client, self.bearer, self.people, self.post, pause)

    def owned_by(self, number: int) -> UUID:
        """Somebody whose slot this is."""
        ring = Ring([Slot(f"activity-{index}", link.address) for index, link in enumerate(self.links)])
        return next(person for person in self.people if ring.owner(key_of(person.bytes)) == number)

    async def comments(self) -> Counter[str]:
        """How often each text was written, whatever anybody was told."""
        url = self._secrets.read("database_url").replace("+asyncpg", "")
        connection = await asyncpg.connect(url, timeout=60)
        try:
            rows = await connection.fetch("SELECT text FROM activity.comment WHERE post_id = $1", self.post)
            return Counter(row["text"] for row in rows)
        finally:
            await connection.close(timeout=60)


@pytest.fixture
async def scene(
    replicas: list[Replica],
    stores: BackingStores,  # noqa: F811
    settings_for: SettingsFor,  # noqa: F811
    tmp_path: Path,
) -> AsyncIterator[Scene]:
    async with AsyncExitStack() as stack:
        redis = redis_client(stores.valkey_url)
        stack.push_async_callback(redis.aclose)
        links = [await stack.enter_async_context(Link(one.address).open()) for one in replicas]
        scene = Scene(settings_for, tmp_path, links, redis)
        await scene.furnish()
        scene.locate(scene.snapshot(1))
        await scene.start_gateway()
        await eventually(scene.gateway.ready, "a ready gateway")
        await eventually(scene.saved, "the copy on disk")
        yield scene
        await scene.gateway.stop()


@pytest.fixture
def executed_once() -> Callable[[Any, Counter[str]], None]:
    """Checks that nothing was done twice, and that all that was acknowledged was done."""

    def check(outcomes: Any, comments: Counter[str]) -> None:
        assert [text for text, number in comments.items() if number > 1] == []
        assert [text for text in outcomes.made if not comments[text]] == []

    return check
