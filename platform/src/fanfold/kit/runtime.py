"""How every component starts, tells its health, drains and stops.

A room's ``app.py`` (or ``worker.py``) names its ``SETTINGS`` class and has one function
``async def build(runtime: Runtime[Settings]) -> ASGIApp | None``: it takes what it needs from the runtime, registers
background work, and returns the app to serve on the traffic port (workers return None). `run` does the rest.
"""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Final, Generic, cast

import uvicorn
import uvloop
from prometheus_client import REGISTRY

from fanfold.kit import logging as logs
from fanfold.kit import metrics
from fanfold.kit.admin import admin_app
from fanfold.kit.asgi import Edge
from fanfold.kit.cluster import connect, connect_redis
from fanfold.kit.compression import Compression
from fanfold.kit.db import Database
from fanfold.kit.hot import HotProtocol, HotRoute, HotRoutes
from fanfold.kit.identity import IdentitySigner
from fanfold.kit.outbox import Relay
from fanfold.kit.peers import Peers
from fanfold.kit.settings import Configured, SettingsError, load
from fanfold.kit.valkey import Valkey

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
    from socket import socket

    from redis.asyncio import Redis
    from starlette.types import ASGIApp

log = logs.get_logger(__name__)

CHECK_SECONDS: Final = 2.0
"""A readiness check that takes longer has failed."""
KEEP_ALIVE_SECONDS: Final = 75
"""Longer than the gateway keeps idle connections, so that the gateway is the one who closes them."""

NEW_OBJECTS: Final = 5_000
"""Container objects between two collections of garbage; Python's default is 700."""


class ListenError(Exception):
    """A port cannot be had: the message names it."""


class Runtime(Generic[Configured]):
    """What a component is given: settings and, on first use, its connections. Closed in reverse order."""

    def __init__(self, settings: Configured) -> None:
        self.settings = settings
        self.admin = admin_app(self)
        self.registry = REGISTRY
        self.draining = False
        self._released = asyncio.Event()
        self._stack = AsyncExitStack()
        self._checks: dict[str, Callable[[], Awaitable[Any]]] = {}
        self._background: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {}
        self._drains: list[Callable[[], Awaitable[None]]] = []
        self._hot: list[HotRoute] = []

    @cached_property
    def signer(self) -> IdentitySigner:
        """Signs and verifies identities between services."""
        return IdentitySigner(self.settings.secrets.read("identity_key"))

    @cached_property
    def database(self) -> Database:
        """PostgreSQL; also a readiness check. A read replica is none: without it the primary is read."""
        database = Database.connect(self.settings)
        self.check("database", database.ping)
        if database.replica is not None:
            self.background("replica", database.replica.watch)
        self._stack.push_async_callback(database.close)
        return database

    @cached_property
    def valkey(self) -> Valkey:
        """The auto-pipelining client for hot paths; also a readiness check."""
        valkey = connect(self.settings.secrets.read("valkey_url"))
        self.check("valkey", lambda: valkey.execute("PING"))
        self._stack.push_async_callback(valkey.close)
        return valkey

    @cached_property
    def redis(self) -> Redis:
        """redis-py, for streams and publish/subscribe."""
        redis: Redis = connect_redis(self.settings.secrets.read("valkey_url"))
        self._stack.push_async_callback(redis.aclose)
        return redis

    @cached_property
    def peers(self) -> Peers:
        """The other services."""
        peers = Peers(self.settings.peers, self.signer, self.settings.service)
        self._stack.push_async_callback(peers.close)
        return peers

    def relay_outbox(self, schema: str) -> None:
        """Relay the outbox of ``schema`` in the background of this process."""
        relay = Relay(schema=schema, database_url=self.settings.secrets.read("database_url"), redis=self.redis)
        self.background(f"relay-{schema}", relay.run)

    def background(self, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run ``work`` beside the server until shutdown. If it ends or fails before, the process exits with 1."""
        self._background[name] = work

    def hot(self, route: HotRoute) -> None:
        """Answer this route in front of the app that `build` returns."""
        self._hot.append(route)

    def check(self, name: str, probe: Callable[[], Awaitable[Any]]) -> None:
        """Add to readiness: ``probe`` raises when the part cannot be used."""
        self._checks[name] = probe

    def on_drain(self, callback: Callable[[], Awaitable[None]]) -> None:
        """Call at shutdown, after readiness failed and the drain time passed, before servers stop."""
        self._drains.append(callback)

    def on_close(self, callback: Callable[[], Awaitable[Any]]) -> None:
        """Call when all else has stopped."""
        self._stack.push_async_callback(callback)

    async def unready(self) -> dict[str, str]:
        """Why the component cannot serve now, by check; empty when it can."""
        if self.draining:
            return {"draining": "shutting down"}
        reasons: dict[str, str] = {}
        for name, probe in self._checks.items():
            try:
                async with asyncio.timeout(CHECK_SECONDS):
                    await probe()
            except Exception as error:  # noqa: BLE001 - any failure means not ready, and is told
                reasons[name] = f"{type(error).__name__}: {error}"
        return reasons

    def release(self) -> None:
        """No gateway sends here any more, nor will: a pod that was told to leave may stop."""
        self._released.set()

    async def release_awaited(self) -> bool:
        """Wait until released, at most for ``release_seconds``; whether it was.

        All goes on as before meanwhile: who waits is ready, serves, and tells nobody. Only the API server's word that
        the pod is terminating moves traffic away, so a stranger who calls `/drain` has nothing but a slow answer.
        """
        try:
            async with asyncio.timeout(self.settings.release_seconds):
                await self._released.wait()
        except TimeoutError:
            log.warning("not_released", seconds=self.settings.release_seconds)
        return self._released.is_set()

    @asynccontextmanager
    async def started(
        self, build: Callable[[Runtime[Configured]], Awaitable[ASGIApp | None]]
    ) -> AsyncIterator[list[asyncio.Task[None]]]:
        """Build and serve inside the block, with all servers listening; drain and close after it.

        Yields:
            The tasks of servers and background work. One that ends inside the block has failed.

        Raises:
            ListenError: A port cannot be had.
        """
        async with self._stack:
            metrics.BUILD_INFO.labels(self.settings.version).set(1)
            app = await build(self)
            servers = [_Server(self.admin, self.settings.admin_host, self.settings.admin_port)]
            if app is not None:
                packing = Compression(self.settings.compression, self.settings.compression_bytes)
                edge = Edge(app, self.signer, lambda: self.draining, packing)
                hot = HotRoutes(self._hot, self.signer, lambda: self.draining, packing)
                servers.append(_Server(edge, self.settings.traffic_host, self.settings.traffic_port, hot))
            tasks = [asyncio.create_task(server.serve(), name="server") for server in servers]
            work: list[asyncio.Task[None]] = []
            try:
                await _listening(servers, tasks)
                work += [asyncio.create_task(make(), name=name) for name, make in self._background.items()]
                yield [*tasks, *work]
            finally:
                await self._drain(servers, tasks, work)

    async def serve(self, build: Callable[[Runtime[Configured]], Awaitable[ASGIApp | None]]) -> int:
        """Build, serve until SIGTERM or SIGINT or a background failure, drain, close; the exit code."""
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        async with self.started(build) as tasks:
            waiter = asyncio.create_task(stop.wait())
            _settle_garbage_collection()
            log.info("started", version=self.settings.version)
            await asyncio.wait([waiter, *tasks], return_when=asyncio.FIRST_COMPLETED)
            failed = _report_failures(tasks) if not stop.is_set() else False
            waiter.cancel()
        log.info("stopped")
        return 1 if failed else 0

    async def _drain(self, servers: list[_Server], tasks: list[asyncio.Task[None]], work: list[Any]) -> None:
        """Wait for what nobody acknowledges, then end.

        Kube-proxy and load balancers turn away; who keeps a connection is told with the next answer to close it.
        """
        self.draining = True
        self.release()  # a hook that still waits has nothing to wait for
        log.info("draining", seconds=self.settings.drain_seconds)
        await asyncio.sleep(self.settings.drain_seconds)
        for callback in self._drains:
            await callback()
        for server in servers:
            server.should_exit = True
        for task in work:
            task.cancel()
        _, late = await asyncio.wait([*tasks, *work], timeout=self.settings.grace_seconds)
        for task in late:
            log.warning("cut_off", task=task.get_name())
            task.cancel()


def _settle_garbage_collection() -> None:
    """Never look again at what the start made, and less often at what requests make.

    Modules, routes and schemas are some hundred thousand objects that live as long as the process: each full collection
    would pass over all of them, while requests wait. What a request makes is freed by reference counts as it ends; a
    collection every 700 new objects, Python's default, finds nothing in it.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(NEW_OBJECTS, *gc.get_threshold()[1:])


class _Server(uvicorn.Server):
    """uvicorn under our own signal handling: several servers share one loop."""

    def __init__(self, app: ASGIApp, host: str, port: int, hot: HotRoutes | None = None) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                host=host,
                port=port,
                http="httptools" if hot is None else cast("type[HotProtocol]", partial(HotProtocol, hot)),
                ws="none",
                lifespan="off",
                access_log=False,
                server_header=False,
                log_config=None,
                backlog=4096,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                h11_max_incomplete_event_size=64 << 10,
            )
        )
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket] | None = None) -> None:
        """Bind, and tell who waits for it.

        Raises:
            ListenError: The address cannot be had.
        """
        try:
            await super().startup(sockets)
        except SystemExit as error:  # how uvicorn says that it could not bind
            raise ListenError(f"cannot listen on {self.config.host}:{self.config.port}; is it in use?") from error
        self.listening.set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the runtime's."""
        yield


async def _listening(servers: list[_Server], tasks: list[asyncio.Task[None]]) -> None:
    """Until every server listens.

    Raises:
        ListenError: One cannot.
    """

    async def all_listen() -> None:
        for server in servers:
            await server.listening.wait()

    waiter = asyncio.create_task(all_listen())
    done, _ = await asyncio.wait([waiter, *tasks], return_when=asyncio.FIRST_COMPLETED)
    waiter.cancel()
    for task in done - {waiter}:
        task.result()


def _report_failures(tasks: list[asyncio.Task[None]]) -> bool:
    for task in tasks:
        if task.done() and not task.cancelled():
            log.error("task_ended", task=task.get_name(), exc_info=task.exception())
            return True
    return False


def run(build: Callable[[Runtime[Configured]], Awaitable[ASGIApp | None]], kind: type[Configured]) -> int:
    """Run one component to its end; the exit code (2: the settings cannot be used)."""
    try:
        settings = load(kind)
        logs.configure(settings)
        return uvloop.run(Runtime(settings).serve(build))
    except SettingsError as error:
        print(f"fanfold: {error}", file=sys.stderr)  # noqa: T201 - a command's last word goes to its user
        return 2
    except ListenError as error:
        print(f"fanfold: {error}", file=sys.stderr)  # noqa: T201 - as above
        return 1
