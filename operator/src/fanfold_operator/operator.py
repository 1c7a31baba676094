"""The composition root: puts the parts together and runs them until told to stop."""

from __future__ import annotations

import asyncio
import threading
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import kopf
import structlog

from fanfold_operator import admin
from fanfold_operator.api import Api, ApiError, login
from fanfold_operator.apply import Writer
from fanfold_operator.events import Recorder
from fanfold_operator.handlers import watching
from fanfold_operator.handlers.observer import Observer
from fanfold_operator.planning.actions import Images
from fanfold_operator.reconcile import Reconciler
from fanfold_operator.ring.acks import AckTracker
from fanfold_operator.ring.ports import AdminPorts
from fanfold_operator.ring.releases import Releases
from fanfold_operator.store import Store
from fanfold_operator.workqueue import WorkQueue

if TYPE_CHECKING:
    from fanfold_operator.ring.acks import Ask

log = structlog.stdlib.get_logger(__name__)

RETRY_SECONDS: Final = 5.0
STUCK_SECONDS: Final = 300.0
"""A due key that waited longer for a worker means the workers are stuck: the pod is to be restarted."""


class NotInstalledError(Exception):
    """The custom resource definitions are not there."""


@dataclass(frozen=True, slots=True)
class Options:
    """How to run.

    Attributes:
        namespace: The only namespace to serve; None for all.
        images: Where images come from.
        admin_host: Address of health and metrics.
        admin_port: Their port; 0 picks one.
        workers: Custom resources reconciled at once.
        resync_seconds: Between full listings, which find what a broken watch missed.
    """

    images: Images
    namespace: str | None = None
    admin_host: str = "127.0.0.1"
    admin_port: int = 9000
    workers: int = 8
    resync_seconds: float = 300.0


class Operator:
    """One running operator. `ready` is set when everything has been listed and reconciles begin.

    `ask` says which epoch a gateway uses; by default its admin port is asked.
    """

    def __init__(self, options: Options, ask: Ask | None = None) -> None:
        self._options = options
        self._ask = ask
        self._synced_at: float | None = None
        self.ready = threading.Event()
        self.store = Store()
        self.queue = WorkQueue()

    async def run(self, stop: threading.Event | None = None) -> None:
        """Serve until SIGTERM, SIGINT or `stop`.

        Raises:
            LoginError: No access to Kubernetes.
            NotInstalledError: The custom resource definitions are not there.
            ApiError: The first listing was refused, for lack of rights for example.
        """
        async with AsyncExitStack() as stack:
            api = Api(await login())
            stack.push_async_callback(api.close)
            ports = AdminPorts()
            stack.push_async_callback(ports.close)
            acks, releases = AckTracker(self._ask or ports.epoch, self.queue.add), Releases(ports.release)
            stack.callback(acks.close)
            stack.callback(releases.close)
            observer = Observer(self.store, self.queue.add)
            writer = Writer(api, self.store, observer.observe)
            reconciler = Reconciler(
                api=api,
                store=self.store,
                writer=writer,
                recorder=Recorder(api),
                acks=acks,
                releases=releases,
                images=self._options.images,
            )
            await self._first_listing(observer, api)
            options = self._options
            port = await stack.enter_async_context(
                admin.serving(options.admin_host, options.admin_port, self._why_dead, self._why_unready)
            )
            log.info("started", namespace=options.namespace or "all", admin_port=port, version=options.images.version)
            await self._serve(reconciler, observer, api, stop)
        log.info("stopped")

    async def _serve(self, work: Reconciler, observer: Observer, api: Api, stop: threading.Event | None) -> None:
        tasks = [
            asyncio.create_task(self.queue.run(work, self._options.workers), name="queue"),
            asyncio.create_task(self._resync_forever(observer, api), name="resync"),
        ]
        namespace = self._options.namespace
        watch = asyncio.create_task(
            kopf.operator(
                registry=watching.registry(observer),
                settings=watching.settings(),
                standalone=True,
                clusterwide=namespace is None,
                namespaces=[namespace] if namespace else [],
                stop_flag=stop,
            ),
            name="watches",
        )
        self.ready.set()
        try:
            done, _ = await asyncio.wait([watch, *tasks], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in (watch, *tasks):
                task.cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.gather(watch, *tasks, return_exceptions=True)

    async def _first_listing(self, observer: Observer, api: Api) -> None:
        """Before the first reconcile: a plan from half of the picture would undo the other half."""
        while True:
            try:
                await observer.resync(api, self._options.namespace)
                break
            except ApiError as error:
                if error.missing:
                    raise NotInstalledError(
                        "the custom resource definitions of fanfold.dev are not installed: "
                        "kubectl apply --server-side -f crds/"
                    ) from error
                if error.status in {401, 403}:
                    raise
                log.warning("waiting_for_the_api_server", error=str(error))
                await asyncio.sleep(RETRY_SECONDS)
        self._synced_at = asyncio.get_running_loop().time()

    async def _resync_forever(self, observer: Observer, api: Api) -> None:
        delay = self._options.resync_seconds
        while True:
            await asyncio.sleep(delay)
            try:
                await observer.resync(api, self._options.namespace)
                delay = self._options.resync_seconds
            except ApiError as error:
                log.warning("resync_failed", error=str(error))
                delay = RETRY_SECONDS
            self._synced_at = asyncio.get_running_loop().time()

    def _why_dead(self) -> str | None:
        now = asyncio.get_running_loop().time()
        if self.queue.oldest_seconds() > STUCK_SECONDS:
            return f"a reconcile has waited {self.queue.oldest_seconds():.0f} s for a worker"
        if self._synced_at is not None and now - self._synced_at > self._options.resync_seconds + STUCK_SECONDS:
            return f"the last attempt to list everything was {now - self._synced_at:.0f} s ago"
        return None

    def _why_unready(self) -> str | None:
        return None if self.ready.is_set() else "nothing has been listed yet"
