"""One reconcile of a LoadTest. The decisions are in `planning.loadtest`."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Protocol

from fanfold.contracts.resources import LOADTEST_LABEL, SERVICE_LABEL
from fanfold_operator import kinds
from fanfold_operator.api import ApiError
from fanfold_operator.apply import LOAD_TEST_MANAGER
from fanfold_operator.kinds import Key, Manifest, key_of
from fanfold_operator.planning import acts, loadtest, loadtest_status
from fanfold_operator.planning.outcome import runs
from fanfold_operator.resources import meta
from fanfold_operator.resources.loadtest import references
from fanfold_operator.ring.endpoints import admin_port

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fanfold_operator.api import Api
    from fanfold_operator.apply import Writer
    from fanfold_operator.events import Recorder
    from fanfold_operator.load_runs import LoadRuns
    from fanfold_operator.planning.actions import Images
    from fanfold_operator.planning.outcome import Live
    from fanfold_operator.store import Store

LOOK_SECONDS: Final = 2.0
"""What it waits for is not watched: pods, ConfigMaps of the user's, a Platform that becomes Ready."""


class Masters(Protocol):
    """Admin ports of masters, each ``host:port``."""

    async def cancel(self, pod: str) -> bool:
        """Tell it to end early; whether it heard."""

    async def acts(self, pod: str, done: Sequence[acts.Act]) -> list[acts.Wish]:
        """Tell it what was done for it; what it asks for so far."""


class LoadTests:
    """Reconciles LoadTests. `ports` are the admin ports of their masters."""

    def __init__(  # noqa: PLR0913, PLR0917 - the composition root hands over what it made
        self,
        api: Api,
        store: Store,
        writer: Writer,
        recorder: Recorder,
        followed: LoadRuns,
        ports: Masters,
        images: Images,
    ) -> None:
        self._api = api
        self._store = store
        self._writer = writer
        self._recorder = recorder
        self._followed = followed
        self._ports = ports
        self._images = images

    async def reconcile(self, resource: Manifest) -> float | None:
        """Bring it on, and tell how far it is."""
        run = loadtest.Run(
            resource, self._store.children(resource), _now(), self._images, platform=self._platform(resource)
        )
        if run.waits_for_documents:
            run = replace(run, documents=await self._documents(run))
        elif run.job is not None and not loadtest.ended(resource):
            run = replace(run, pods=await self._pods(run))
        run = replace(run, live=await self._live(run))
        run = replace(run, acts=await self._acts(run))
        await self._writer.bring_about(loadtest.plan(run), LOAD_TEST_MANAGER)
        # Of the same picture as the plan: a Job that has ended since is newer than what is known of its pod.
        status = loadtest_status.status(run)
        if await self._writer.status(resource, status):
            await self._recorder.record(resource, status["conditions"])
        return await self._next(replace(run, resource={**resource, "status": status}))

    def forget(self, key: Key) -> None:
        """It is gone."""
        self._followed.forget(key)

    async def _next(self, run: loadtest.Run) -> float | None:
        """Seconds until it is to be looked at again; deletes it when its time has come."""
        if not loadtest.ended(run.resource):
            return None if run.spec.suspend and run.job is None else LOOK_SECONDS
        left = loadtest.expires_in(run)
        if left is not None and left <= 0:
            await self._writer.delete(run.resource)
            return None
        return left

    async def _live(self, run: loadtest.Run) -> Live | None:
        key, address = key_of(run.resource), (run.master or {}).get("status", {}).get("podIP")
        if not address or not runs(run.master) or loadtest.ended(run.resource):
            self._followed.forget(key)
            return None
        if run.spec.cancel:
            await self._ports.cancel(admin_port(address))
        return self._followed.follow(key, admin_port(address))

    async def _acts(self, run: loadtest.Run) -> list[acts.Act]:
        """Go on with what the run has done to its Platform; the record as it should read now."""
        known, address = acts.of(run.before), (run.master or {}).get("status", {}).get("podIP")
        if not run.spec.acts or not address or not runs(run.master) or loadtest.ended(run.resource):
            return known
        wishes = await self._ports.acts(admin_port(address), known)
        if not wishes:
            return known
        scene = await self._scene(run, acts.losing(wishes, known))
        await self._writer.do(acts.deeds(known, scene))
        return acts.advance(known, wishes, scene)

    async def _scene(self, run: loadtest.Run, losing: set[str]) -> acts.Scene:
        name = run.spec.platform_ref.name if run.spec.platform_ref else ""

        def parts(kind: kinds.Kind) -> dict[str, Manifest]:
            found = self._store.of_platform(kind, run.namespace, name)
            return {one["metadata"]["labels"][SERVICE_LABEL]: one for one in found}

        pods = {}
        for service in losing:
            labels = ",".join(f"{label}={value}" for label, value in meta.selector(name, service).items())
            pods[service] = (await self._api.list(kinds.POD, run.namespace, labels))["items"]
        paused = run.platform is not None and kinds.is_paused(run.platform)
        services, deployments = parts(kinds.PLATFORM_SERVICE), parts(kinds.DEPLOYMENT)
        return acts.Scene(run.platform, paused, services, deployments, pods, run.now)

    def _platform(self, resource: Manifest) -> Manifest | None:
        name = resource["spec"].get("platformRef", {}).get("name")
        return self._store.get(Key(kinds.PLATFORM.kind, resource["metadata"]["namespace"], name)) if name else None

    async def _pods(self, run: loadtest.Run) -> list[Manifest]:
        """Those of its Jobs; they are not watched."""
        answer = await self._api.list(kinds.POD, run.namespace, f"{LOADTEST_LABEL}={run.name}")
        found: list[Manifest] = answer["items"]
        return found

    async def _documents(self, run: loadtest.Run) -> dict[str, frozenset[str] | None]:
        """Keys of the ConfigMaps it refers to."""
        found: dict[str, frozenset[str] | None] = {}
        for _, reference in references(run.spec):
            try:
                config = await self._api.get(Key(kinds.CONFIG_MAP.kind, run.namespace, reference.name))
                found[reference.name] = frozenset(config.get("data") or {})
            except ApiError as error:
                if not error.missing:
                    raise
                found[reference.name] = None
        return found


def _now() -> datetime:
    return datetime.now(UTC)
