"""Real PostgreSQL, Valkey and S3, and components started in-process on real ports.

Fixtures: ``stores`` (session), ``database_url`` (a fresh, migrated database per module), ``secrets_dir``,
``settings_for`` and ``house``, which starts components, knows their addresses and signs identities::

    async def test_somebody_is_found(house: House) -> None:
        profile = await house.start("profile")
        answer = await profile.get("/v1/users/me", headers=house.as_user(user_id))
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import asyncpg
import httpx
import hypothesis  # noqa: F401 - else its plugin loads it at the session's end, where CPython 3.11 may fail parsing it
import pytest
import structlog
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import create_async_engine
from sqlmodel import SQLModel
from starlette.types import ASGIApp

from fanfold.contracts import headers
from fanfold.contracts.components import COMPONENTS, MIGRATED, ROUTED
from fanfold.contracts.ids import new_id
from fanfold.contracts.snapshot import Slot, Snapshot, encode
from fanfold.dev import credentials
from fanfold.dev.process import free_ports
from fanfold.dev.stores import BackingStores
from fanfold.kit.cluster import connect_redis
from fanfold.kit.identity import Identity, IdentitySigner
from fanfold.kit.migrations import upgrade
from fanfold.kit.objects import ensure_bucket
from fanfold.kit.peers import Peers
from fanfold.kit.runtime import Runtime
from fanfold.kit.settings import ObjectStoreSettings, Settings
from tests.integration.valkey_cluster import ValkeyCluster

TEMPLATE = "migrated"
START_SECONDS = 60.0
REQUEST_SECONDS = 60.0
PATIENCE = 20.0
"""Seconds in place of the few that the platform waits for its own parts."""


@pytest.fixture(scope="session", autouse=True)
def _plain_logs() -> None:
    """The default of structlog draws every local variable of a traceback, which takes seconds and hides the message."""
    plain = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(
        processors=[structlog.processors.add_log_level, plain],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        cache_logger_on_first_use=False,
    )


@pytest.fixture(scope="session", autouse=True)
def _patience() -> Iterator[None]:
    """A busy machine stops everything for seconds now and then; what that costs a platform, the fault tests show."""
    seconds = (
        "kit.valkey.CONNECT_SECONDS", "kit.valkey.COMMAND_SECONDS", "kit.fanin.CONNECT_SECONDS",
        "kit.hydrate.OWNER_SECONDS", "kit.replica.ASK_SECONDS", "kit.db.CONNECT_SECONDS",
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        for name in seconds:
            patch.setattr(f"fanfold.{name}", PATIENCE)
        patch.setattr("fanfold.kit.db.STATEMENT_TIMEOUT_MS", int(PATIENCE * 1000))
        patch.setattr("fanfold.kit.peers.TIMEOUT", httpx.Timeout(PATIENCE, connect=PATIENCE / 2))
        yield


@pytest.fixture(scope="session")
def stores() -> Iterator[BackingStores]:
    """The three backing stores of this test session."""
    with BackingStores() as running:
        yield running


@pytest.fixture(scope="session")
def cache_url(stores: BackingStores) -> str:
    """The Valkey that components use. A module that wants another overrides this (`valkey_url` is a plugin's)."""
    return stores.valkey_url


@pytest.fixture(scope="session")
def valkey_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyCluster]:
    """Three masters that share the slots."""
    with ValkeyCluster(tmp_path_factory.mktemp("valkey-cluster")) as running:
        yield running


def _on_server(stores: BackingStores, sql: str) -> None:
    """Run one statement outside any of the tests' databases."""

    async def run() -> None:
        connection = await asyncpg.connect(stores.database_url.replace("+asyncpg", ""), timeout=60)
        try:
            await connection.execute(sql, timeout=120)
        finally:
            await connection.close(timeout=60)

    asyncio.run(run())


def _database(stores: BackingStores, name: str) -> str:
    return f"{stores.database_url.rpartition('/')[0]}/{name}"


@pytest.fixture(scope="session")
def _template(stores: BackingStores) -> str:
    """Name of a database with every room's schema, to be copied."""
    _on_server(stores, f"CREATE DATABASE {TEMPLATE}")
    for room in MIGRATED:
        if (resources.files("fanfold") / room / "migrations" / "env.py").is_file():
            upgrade(room, _database(stores, TEMPLATE))
    return TEMPLATE


@pytest.fixture(scope="module")
def database_url(stores: BackingStores, _template: str) -> Iterator[str]:
    """URL of a database of this test module alone, migrated and empty."""
    name = f"test_{secrets.token_hex(6)}"
    _on_server(stores, f"CREATE DATABASE {name} TEMPLATE {_template}")
    yield _database(stores, name)
    _on_server(stores, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="module")
def secrets_dir(
    stores: BackingStores, cache_url: str, database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Folder with every secret that components read."""
    folder = tmp_path_factory.mktemp("secrets")
    credentials.write(folder, stores)
    (folder / "valkey_url").write_text(cache_url)
    (folder / "database_url").write_text(database_url)
    return folder


SettingsFor = Callable[..., Any]


def _module(component: str) -> Any:
    """``feed-worker`` lives in ``fanfold.feed.worker``, ``feed`` in ``fanfold.feed.app``."""
    room, _, role = component.partition("-")
    return importlib.import_module(f"fanfold.{room}.{role or 'app'}")


@pytest.fixture
def settings_for(stores: BackingStores, secrets_dir: Path) -> SettingsFor:
    """``settings_for("feed", feed_length=5)``: the component's own settings class, with what tests need filled in.

    Give ``kind=`` to have another class than the component's ``SETTINGS``.
    """

    def make(component: str, *, kind: type[Settings] | None = None, **over: Any) -> Settings:
        values: dict[str, Any] = {
            "service": component,
            "instance": f"{component}-{secrets.token_hex(3)}",
            "secrets_dir": secrets_dir,
            "traffic_host": "127.0.0.1",
            "admin_host": "127.0.0.1",
            "traffic_port": 0,
            "admin_port": 0,
            "drain_seconds": 0,
            "grace_seconds": 3,
            "s3_endpoint": stores.s3_endpoint,
            **over,
        }
        return (kind or _module(component).SETTINGS)(**values)

    return make


class House:
    """Components of one test: started on real ports, told each other's addresses beforehand.

    Attributes:
        peers: Calls internal endpoints as the service ``test``.
        redis: redis-py client of the (empty) Valkey of this test; untyped, as its answers are unions.
        urls: Base URL of each service, started or not.
        runtimes: The runtime of each started component, by name: its database, valkey and settings.
    """

    def __init__(self, settings_for: SettingsFor, redis: Any, stack: AsyncExitStack) -> None:
        self._settings_for = settings_for
        self._stack = stack
        serving = [component.name for component in COMPONENTS if component.serves]
        self._ports = dict(zip(serving, free_ports(len(serving)), strict=True))
        self.urls = {name: f"http://127.0.0.1:{port}" for name, port in self._ports.items()}
        settings = settings_for("test", kind=Settings)
        self.secrets = settings.secrets
        self._signer = IdentitySigner(self.secrets.read("identity_key"))
        self.peers = Peers(self.urls, self._signer, "test")
        self.redis = redis
        self.runtimes: dict[str, Runtime[Any]] = {}

    async def start(
        self, component: str, *, build: Callable[[Runtime[Any]], Awaitable[ASGIApp | None]] | None = None, **over: Any
    ) -> httpx.AsyncClient:
        """Start a component as ``fanfold run`` does, in this process; a client of its traffic port.

        It runs until the test ends. ``over``: settings that differ; give ``traffic_port`` to a second replica.
        ``build``: another app in the component's place, where a test wants to see what it is told.
        """
        values = {"traffic_port": self._ports.get(component, 0), "peers": self.urls, **over}
        kind = Settings if build else None
        settings = self._settings_for(component, kind=kind, **values)
        runtime: Runtime[Any] = Runtime(settings)
        async with asyncio.timeout(START_SECONDS):
            await self._stack.enter_async_context(runtime.started(build or _module(component).build))
        self.runtimes[component] = runtime
        url = f"http://127.0.0.1:{settings.traffic_port}"
        return await self._stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=REQUEST_SECONDS))

    def as_user(self, user_id: UUID | str, session_id: UUID | str | None = None, role: str = "") -> dict[str, str]:
        """Headers of a call that the gateway hands on for this user."""
        session = UUID(str(session_id)) if session_id else new_id()
        return self._signed(Identity(user_id=UUID(str(user_id)), session_id=session, role=role))

    def as_service(self, name: str) -> dict[str, str]:
        """Headers of a call by another service."""
        return self._signed(Identity(service=name))

    def anonymous(self) -> dict[str, str]:
        """Headers of a call that the gateway hands on for nobody in particular."""
        return self._signed(Identity())

    def _signed(self, identity: Identity) -> dict[str, str]:
        return {headers.IDENTITY: self._signer.sign(identity)}


@pytest.fixture
async def house(settings_for: SettingsFor, cache_url: str) -> AsyncIterator[House]:
    """Starts components; Valkey is empty when the test begins."""
    async with AsyncExitStack() as stack:
        redis = connect_redis(cache_url)
        stack.push_async_callback(redis.aclose)
        await redis.flushall()
        house = House(settings_for, redis, stack)
        stack.push_async_callback(house.peers.close)
        yield house


@pytest.fixture
async def platform(house: House, bucket: str, tmp_path: Path) -> str:
    """URL of the gateway of a whole platform in this process, without the image worker."""
    file = tmp_path / "snapshot.json"
    slots = {name: [Slot(f"{name}-0", urlsplit(house.urls[name]).netloc)] for name in ROUTED}
    file.write_bytes(encode(Snapshot("default/test", 1, slots)))
    for component in COMPONENTS:
        if component.name not in {"gateway", "image-worker"}:
            await house.start(component.name)
    # Nothing is shed, nor given up, because the machine is busy with other things.
    gateway = await house.start(
        "gateway", snapshot_source=f"file:{file}", request_seconds=60, connect_seconds=PATIENCE, target_seconds=0
    )
    return str(gateway.base_url)


@pytest.fixture(scope="session")
def _bucket_made(stores: BackingStores, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("s3")
    (folder / "s3_access_key").write_text(stores.s3_access_key)
    (folder / "s3_secret_key").write_text(stores.s3_secret_key)
    ensure_bucket(ObjectStoreSettings(secrets_dir=folder, s3_endpoint=stores.s3_endpoint))


@pytest.fixture
def bucket(_bucket_made: None) -> str:
    """Name of the bucket that components use by default; it is there."""
    return str(ObjectStoreSettings.model_fields["s3_bucket"].default)


SchemaDifferences = Callable[[str], Any]


@pytest.fixture
def schema_differences(database_url: str) -> SchemaDifferences:
    """Called with a room: what its models have that its migrations do not make, and the reverse."""

    def compare(connection: Connection, room: str) -> list[Any]:
        options = {
            "include_schemas": True,
            "include_name": lambda name, kind, _: kind != "schema" or name == room,
            "include_object": lambda item, _, kind, *__: kind != "table" or item.schema == room,
            "compare_type": True,
            "version_table_schema": room,
        }
        context = MigrationContext.configure(connection, opts=options)
        return list(compare_metadata(context, SQLModel.metadata))

    async def differences(room: str) -> list[Any]:
        importlib.import_module(f"fanfold.{room}.models")
        engine = create_async_engine(database_url)
        try:
            async with engine.connect() as connection:
                return await connection.run_sync(compare, room)
        finally:
            await engine.dispose()

    return differences
