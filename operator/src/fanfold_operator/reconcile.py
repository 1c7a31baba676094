"""One reconcile of each kind: observe, plan, bring about, tell. The decisions are in `planning`."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from fanfold.contracts.resources import HashRingSpec, PlatformServiceSpec, parse
from fanfold_operator import kinds, metrics
from fanfold_operator.api import ApiError
from fanfold_operator.apply import PLATFORM_MANAGER, RING_MANAGER, SERVICE_MANAGER
from fanfold_operator.autoscale.report import scaled
from fanfold_operator.conditions import is_true
from fanfold_operator.credentials import Credentials
from fanfold_operator.kinds import Key, Manifest, is_paused, key_of, owner_of
from fanfold_operator.planning import acts, components, loadtest, platform, ring, service, summary
from fanfold_operator.planning.actions import Images, View
from fanfold_operator.planning.upgrade import UNDER_WAY, WATCHED, recorded
from fanfold_operator.resources import meta
from fanfold_operator.ring.endpoints import pods_behind

if TYPE_CHECKING:
    from fanfold_operator.api import Api
    from fanfold_operator.apply import Writer
    from fanfold_operator.autoscale.report import State
    from fanfold_operator.autoscale.scaler import Autoscaler
    from fanfold_operator.discovery import Discovery
    from fanfold_operator.error_rate import ErrorWatch
    from fanfold_operator.events import Recorder
    from fanfold_operator.planning.upgrade import ErrorRate
    from fanfold_operator.reconcile_loadtest import LoadTests
    from fanfold_operator.ring.acks import AckTracker
    from fanfold_operator.ring.releases import Releases
    from fanfold_operator.store import Store

UNREADY_SECONDS: Final = 10.0
"""A platform that is not ready is looked at this often: what it waits for may be a Secret, which is not watched."""

UPGRADE_SECONDS: Final = 2.0
"""One that is being upgraded: what it waits for may be time."""

OPTIONAL_SECONDS: Final = 30.0
"""Objects of APIs that a cluster may not serve are not watched, but looked at this often."""


class Reconciler:
    """Called by the work queue with a key; answers after how many seconds it wants to be called again, if so."""

    def __init__(  # noqa: PLR0913 - the composition root hands over what it made, by keyword
        self,
        *,
        api: Api,
        store: Store,
        writer: Writer,
        recorder: Recorder,
        acks: AckTracker,
        releases: Releases,
        discovery: Discovery,
        autoscaler: Autoscaler,
        errors: ErrorWatch,
        load_tests: LoadTests,
        images: Images,
        admin_service: str = "",
    ) -> None:
        self._api = api
        self._store = store
        self._writer = writer
        self._recorder = recorder
        self._acks = acks
        self._releases = releases
        self._discovery = discovery
        self._autoscaler = autoscaler
        self._errors = errors
        self._load_tests = load_tests
        self._images = images
        self._admin_service = admin_service
        self._credentials = Credentials(api, writer)
        self._ring_maps: dict[Key, Manifest] = {}
        self._node_addresses: dict[str, str] = {}

    async def __call__(self, key: Key) -> float | None:
        """Reconcile one custom resource."""
        resource = self._store.get(key)
        if resource is None or "deletionTimestamp" in resource["metadata"]:
            self._forget(key)
            return None
        reconcile = {
            kinds.PLATFORM.kind: self._platform,
            kinds.PLATFORM_SERVICE.kind: self._service,
            kinds.HASH_RING.kind: self._ring,
            kinds.LOAD_TEST.kind: self._load_tests.reconcile,
        }
        try:
            return await reconcile[key.kind](resource)
        except ApiError as error:
            if error.namespace_ends:
                return None
            raise

    async def _platform(self, resource: Manifest) -> float | None:
        view = View(
            resource,
            self._store.children(resource),
            _now(),
            paused=is_paused(resource),
            operator=self._admin_service,
        )
        stages = platform.Stages(view, self._images)
        lost: tuple[str, ...] = ()
        if not view.paused:
            lost = await self._credentials.ensure(resource, stages.embedded, retain=stages.retains)
        secrets = await self._external_secrets(stages)
        errors, template = self._error_rate(stages), self._gate_template(stages)
        view = replace(view, secrets=secrets, lost_volumes=lost, errors=errors, gate_template=template)
        tests = self._store.of_platform(kinds.LOAD_TEST, view.namespace, view.name)
        view = replace(view, pinned=acts.pinned(test for test in tests if not loadtest.ended(test)))
        actions = platform.plan(platform.Stages(view, self._images))
        conflicts = await self._writer.bring_about(actions, PLATFORM_MANAGER)
        view = replace(
            view,
            children=self._store.children(resource),
            conflicts=conflicts,
            node_address=await self._node_address(view),
        )
        gateway = Key(kinds.SERVICE.kind, view.namespace, meta.child_name(view.name, ring.GATEWAY))
        status = summary.status(platform.Stages(view, self._images), self._store.get(gateway))
        await self._tell(resource, status)
        if upgrade := recorded(status):
            metrics.tell_upgrade(key_of(resource), upgrade.phase, datetime.fromisoformat(upgrade.since))
            if upgrade.phase in UNDER_WAY and not view.paused:
                return UPGRADE_SECONDS
        return None if is_true({"status": status}, "Ready") else UNREADY_SECONDS

    def _gate_template(self, stages: platform.Stages) -> Manifest | None:
        gate = stages.spec.upgrade.gate
        return self._store.get(Key(kinds.LOAD_TEST.kind, stages.view.namespace, gate.load_test)) if gate else None

    def _error_rate(self, stages: platform.Stages) -> ErrorRate | None:
        """Of the gateways, while services are rolled."""
        key, upgrade = key_of(stages.view.resource), stages.upgrade
        if upgrade and upgrade.phase in WATCHED and not stages.view.paused:
            return self._errors.follow(key)
        self._errors.forget(key)
        return None

    async def _service(self, resource: Manifest) -> float | None:
        paused, apis = self._belongs_to_paused(resource), await self._discovery.apis()
        view = View(resource, self._store.children(resource), _now(), paused=paused, apis=apis)
        live = await self._optional(view)
        view = replace(view, children={**view.children, **live}, scaling=self._scaling(view))
        conflicts = await self._writer.bring_about(service.plan(view), SERVICE_MANAGER, live)
        view = replace(view, children={**self._store.children(resource), **live}, conflicts=conflicts)
        status = service.status(view)
        await self._tell(resource, status)
        if note := scaled(resource.get("status", {}).get("autoscaling", {}), status["autoscaling"]):
            await self._recorder.tell(resource, "Scaled", note, action="Scale")
        metrics.tell_scaling(
            key_of(resource), status["autoscaling"].get("desired"), frozen=service.scaling(view).frozen
        )
        return OPTIONAL_SECONDS if service.optional(view) else None

    async def _optional(self, view: View) -> dict[Key, Manifest]:
        """Live objects of this service that are not watched."""
        found = {}
        for key in service.optional(view):
            try:
                one = await self._api.get(key)
            except ApiError as error:
                if not error.missing:
                    raise
            else:
                if owner_of(one) == key_of(view.resource):
                    found[key] = one
        return found

    def _scaling(self, view: View) -> State | None:
        key = key_of(view.resource)
        if service.scales(view):
            return self._autoscaler.follow(key)
        self._autoscaler.forget(key)
        return None

    async def _ring(self, resource: Manifest) -> float | None:
        key = key_of(resource)
        spec = parse(HashRingSpec, resource)
        map_key = Key(kinds.CONFIG_MAP.kind, key.namespace, meta.snapshot_name(spec.platform))
        view = ring.RingView(
            resource,
            # A map that was deleted by hand comes back as it was, so that no key moves.
            self._store.get(map_key) or self._ring_maps.get(key),
            self._store.of_platform(kinds.ENDPOINT_SLICE, key.namespace, spec.platform),
            self._store.of_platform(kinds.PLATFORM_SERVICE, key.namespace, spec.platform),
            _now(),
            self._store.get(Key(kinds.PLATFORM.kind, key.namespace, spec.platform)),
            self._acks.newest(key),
        )
        now = ring.advance_ring(view)
        config_map = ring.config_map(view, now)
        await self._writer.apply(config_map, RING_MANAGER)
        self._ring_maps[key] = config_map
        metrics.ring_epoch.labels(key.namespace, spec.platform).set(now.snapshot.epoch)
        gateways, parting = ring.gateways(view), ring.parting_gateways(view)
        acks = self._acks.follow(key, now.snapshot.epoch, gateways, parting, fresh=now.changed)
        self._releases.follow(key, now.snapshot.epoch, ring.leaving(view, now), acks.least)
        if acks.asked:  # soon: until then, after a restart for example, nothing is known that is worth a write
            await self._writer.status(resource, ring.status(view, now, acks))
        return float(spec.snapshot_refresh_seconds)

    async def _tell(self, resource: Manifest, status: dict[str, object]) -> None:
        if await self._writer.status(resource, status):
            await self._recorder.record(resource, status["conditions"])  # type: ignore[arg-type]

    def _belongs_to_paused(self, resource: Manifest) -> bool:
        spec = parse(PlatformServiceSpec, resource)
        owner = self._store.get(Key(kinds.PLATFORM.kind, resource["metadata"]["namespace"], spec.platform))
        return owner is not None and is_paused(owner)

    async def _external_secrets(self, stages: platform.Stages) -> dict[str, frozenset[str] | None]:
        """Keys of the Secrets the Platform refers to."""
        names = {secret for secret, _ in components.secret_sources(stages.spec).values()}
        found: dict[str, frozenset[str] | None] = {}
        for name in sorted(names):
            try:
                secret = await self._api.get(Key(kinds.SECRET.kind, stages.view.namespace, name))
                found[name] = frozenset(secret.get("data") or {})
            except ApiError as error:
                if not error.missing:
                    raise
                found[name] = None
        return found

    async def _node_address(self, view: View) -> str | None:
        """Address of the node of the first gateway pod; asked once per pod."""
        slices = self._store.of_platform(kinds.ENDPOINT_SLICE, view.namespace, view.name)
        pods = pods_behind(slices, ring.GATEWAY)
        if not pods:
            return None
        key = Key(kinds.POD.kind, view.namespace, pods[0])
        if str(key) not in self._node_addresses:
            try:
                address = (await self._api.get(key)).get("status", {}).get("hostIP")
            except ApiError as error:
                if not error.missing:
                    raise
                address = None
            if address is None:
                return None
            self._node_addresses[str(key)] = address
        return self._node_addresses[str(key)]

    def _forget(self, key: Key) -> None:
        # A ring that was deleted by hand comes back with its slots. They are forgotten with the Platform of its name.
        platform = replace(key, kind=kinds.PLATFORM.kind)
        if self._store.get(platform) is None:
            self._ring_maps.pop(replace(key, kind=kinds.HASH_RING.kind), None)
        self._acks.forget(key)
        self._autoscaler.forget(key)
        self._errors.forget(key)
        self._load_tests.forget(key)
        metrics.forget(key)
        self._releases.forget(key)


def _now() -> datetime:
    return datetime.now(UTC)
