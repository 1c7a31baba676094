"""The composition root: puts the parts together and runs them until told to stop."""

from __future__ import annotations

import asyncio
import signal
import threading
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import kopf
import structlog

from fanfold_operator import admin, kinds, metrics
from fanfold_operator.api import Api, ApiError, login
from fanfold_operator.apply import Writer
from fanfold_operator.autoscale.scaler import Autoscaler
from fanfold_operator.discovery import Discovery
from fanfold_operator.error_rate import ErrorWatch
from fanfold_operator.events import Recorder
from fanfold_operator.fencing import Fence
from fanfold_operator.handlers import watching
from fanfold_operator.handlers.observer import Observer
from fanfold_operator.leadership import ApiLeases, Elector
from fanfold_operator.load_runs import LoadRuns
from fanfold_operator.planning.actions import Images
from fanfold_operator.reconcile import Reconciler
from fanfold_operator.reconcile_loadtest import LoadTests
from fanfold_operator.ring.acks import AckTracker
from fanfold_operator.ring.ports import AdminPorts
from fanfold_operator.ring.releases import Releases
from fanfold_operator.scrape import Scraper
from fanfold_operator.store import Store
from fanfold_operator.targets import targets
from fanfold_operator.workqueue import WorkQueue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fanfold_operator.autoscale.scaler import Measure
    from fanfold_operator.kinds import Key, Kind
    from fanfold_operator.leadership import Election
    from fanfold_operator.reconcile_loadtest import Masters
    from fanfold_operator.ring.acks import Ask

log = structlog.stdlib.get_logger(__name__)

RETRY_SECONDS: Final = 5.0
STUCK_SECONDS: Final = 300.0
"""A due key that waited longer for a worker means the workers are stuck: the pod is to be restarted."""
SETTLE_SECONDS: Final = 1.0
"""Watches begin anew together, after the start or an outage: one listing for all of them."""
REMEMBERED: Final = (*kinds.CUSTOM, kinds.CONFIG_MAP)
"""Where an operator keeps what it cannot compute anew: in status and in the snapshot. A new leader lists them."""


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
        admin_service: DNS name of the headless Service in front of it, by which pods reach it; empty: there is none.
        workers: Custom resources reconciled at once.
        resync_seconds: Between full listings, which find what a broken watch missed.
        election: None: no other operator runs, this one leads at once.
    """

    images: Images
    namespace: str | None = None
    admin_host: str = "127.0.0.1"
    admin_port: int = 9000
    admin_service: str = ""
    workers: int = 8
    resync_seconds: float = 300.0
    election: Election | None = None


class Operator:
    """One running operator. `ready` is set when everything has been listed: it can lead, or take over.

    `ask` says which epoch a gateway uses, `measure` reads metrics of pods, `masters` lead load tests; by default their
    admin ports are asked.
    """

    def __init__(
        self, options: Options, ask: Ask | None = None, measure: Measure | None = None, masters: Masters | None = None
    ) -> None:
        self._options = options
        self._ask = ask
        self._measure = measure
        self._masters = masters
        self._queue: WorkQueue | None = None
        self._synced_at: float | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = asyncio.Event()
        self.ready = threading.Event()
        self.store = Store()
        self.observer = Observer(self.store, self._enqueue)

    def stop(self) -> None:
        """Make `run` end, from any thread."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._stopping.set)

    async def run(self) -> None:
        """Serve until SIGTERM, SIGINT or `stop`.

        Raises:
            LoginError: No access to Kubernetes.
            NotInstalledError: The custom resource definitions are not there.
            ApiError: The first listing was refused, or the Lease, for lack of rights for example.
        """
        self._loop = asyncio.get_running_loop()
        async with AsyncExitStack() as stack:
            options = self._options
            fence = Fence() if options.election else Fence.open()
            api = await self._login(stack, fence)
            await self._list(api, kinds.WATCHED)
            metrics.queue_oldest.set_function(self._oldest_seconds)
            port = await stack.enter_async_context(
                admin.serving(options.admin_host, options.admin_port, self._why_dead, self._why_unready, self._targets)
            )
            log.info("started", serves=options.namespace or "all", admin_port=port, version=options.images.version)
            await self._serve(api, await self._elector(stack, fence))
        log.info("stopped")

    async def _login(self, stack: AsyncExitStack, fence: Fence | None) -> Api:
        election = self._options.election
        who = f" {election.identity}" if election else ""
        api = Api(await login(), fence, f"fanfold-operator/{self._options.images.version}{who}")
        stack.push_async_callback(api.close)
        return api

    async def _elector(self, stack: AsyncExitStack, fence: Fence) -> Elector | None:
        election = self._options.election
        if election is None:
            return None
        leases = ApiLeases(await self._login(stack, None), election.lease)
        return Elector(leases, election.identity, fence, election.timing)

    async def _serve(self, api: Api, elector: Elector | None) -> None:
        """Runs the watches, the listings and, first to stop, the reconciles."""
        watches_stop = asyncio.Event()
        watches = asyncio.create_task(self._watch(watches_stop), name="watches")
        resync = asyncio.create_task(self._resync_forever(api), name="resync")
        # Kopf cancels whatever runs in the loop when it stops, so what may write has to have ended by then.
        lead = elector.run(lambda: self._lead(api)) if elector else self._lead(api)
        work = asyncio.create_task(lead, name="lead")
        stopping = asyncio.create_task(self._stopping.wait(), name="stop")
        self.ready.set()
        ends = (stopping, work, resync, watches)
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            failed = [end for end in ends if end.done()]
        finally:
            for task in (work, resync, stopping):
                task.cancel()
                with suppress(asyncio.CancelledError, Exception):
                    await task
            watches_stop.set()
            with suppress(asyncio.CancelledError, Exception):
                await watches
        for task in failed:
            task.result()

    async def _watch(self, stop: asyncio.Event) -> None:
        namespace = self._options.namespace
        known = asyncio.all_tasks()
        tasks = await kopf.spawn_tasks(
            registry=watching.registry(self.observer),
            settings=watching.settings(),
            standalone=True,
            clusterwide=namespace is None,
            namespaces=[namespace] if namespace else [],
            stop_flag=stop,
        )
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):  # in place of Kopf's: the lease is to be given up first
                asyncio.get_running_loop().add_signal_handler(number, self._stopping.set)
        await kopf.run_tasks(tasks, ignored=known)

    async def _lead(self, api: Api) -> None:
        """Reconcile until cancelled. All that a term knows beyond the store is made anew for it."""
        await self._list(api, REMEMBERED)
        self._queue = queue = WorkQueue()
        try:
            async with AsyncExitStack() as stack:
                work = self.reconciler(stack, api, queue.add)
                for kind in kinds.CUSTOM:
                    for key in self.store.keys(kind):
                        queue.add(key)
                await queue.run(work, self._options.workers)
        finally:
            self._queue = None

    def reconciler(self, stack: AsyncExitStack, api: Api, enqueue: Callable[[Key], None]) -> Reconciler:
        """What reconciles one key, over this operator's store; the stack is to close what it needs."""
        ports = AdminPorts()
        stack.push_async_callback(ports.close)
        acks, releases = AckTracker(self._ask or ports.epoch, enqueue), Releases(ports.release)
        stack.callback(acks.close)
        stack.callback(releases.close)
        scraper = Scraper()
        stack.push_async_callback(scraper.close)
        measure = self._measure or scraper.scrape
        autoscaler = Autoscaler(api, self.store, measure, enqueue)
        stack.push_async_callback(autoscaler.close)
        errors = ErrorWatch(self.store, measure, enqueue)
        stack.push_async_callback(errors.close)
        stack.callback(metrics.forget_all)
        runs = LoadRuns(measure, enqueue)
        stack.push_async_callback(runs.close)
        writer, recorder = Writer(api, self.store, self.observer.observe), Recorder(api)
        return Reconciler(
            api=api,
            store=self.store,
            writer=writer,
            recorder=recorder,
            acks=acks,
            releases=releases,
            discovery=Discovery(api),
            autoscaler=autoscaler,
            errors=errors,
            load_tests=LoadTests(api, self.store, writer, recorder, runs, self._masters or ports, self._options.images),
            images=self._options.images,
            admin_service=self._options.admin_service,
        )

    async def _list(self, api: Api, which: Iterable[Kind]) -> None:
        """Before the first reconcile: a plan from half of the picture would undo the other half."""
        while True:
            try:
                await self.observer.resync(api, self._options.namespace, which)
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

    async def _resync_forever(self, api: Api) -> None:
        delay = self._options.resync_seconds
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self.observer.begun_anew.wait()
                    await asyncio.sleep(SETTLE_SECONDS)
            self.observer.begun_anew.clear()
            try:
                await self.observer.resync(api, self._options.namespace)
                delay = self._options.resync_seconds
            except ApiError as error:
                log.warning("resync_failed", error=str(error))
                delay = RETRY_SECONDS
            self._synced_at = asyncio.get_running_loop().time()

    def _enqueue(self, key: Key, after: float) -> None:
        """Who stands by lets it be: a term begins with everything."""
        if self._queue is not None:
            self._queue.add(key, after)

    def _targets(self, namespace: str, platform: str) -> list[dict[str, Any]]:
        """Whoever stands by knows them as well."""
        return targets(self.store.of_platform(kinds.ENDPOINT_SLICE, namespace, platform), namespace, platform)

    def _oldest_seconds(self) -> float:
        return self._queue.oldest_seconds() if self._queue else 0.0

    def _why_dead(self) -> str | None:
        now, resync = asyncio.get_running_loop().time(), self._options.resync_seconds
        if self._oldest_seconds() > STUCK_SECONDS:
            return f"a reconcile has waited {self._oldest_seconds():.0f} s for a worker"
        if self._synced_at is not None and now - self._synced_at > resync + STUCK_SECONDS:
            return f"the last attempt to list everything was {now - self._synced_at:.0f} s ago"
        if self.observer.silent_seconds() > resync + STUCK_SECONDS:
            return f"the watches have not told of a change for {self.observer.silent_seconds():.0f} s"
        return None

    def _why_unready(self) -> str | None:
        return None if self.ready.is_set() else "nothing has been listed yet"
