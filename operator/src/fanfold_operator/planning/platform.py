"""A Platform: backing stores, then migrations, then services and ring; each step waits for the one before.

`plan` says what to bring about now, `status` what to tell; both look at the same `Stages`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Final

import xxhash

from fanfold.contracts.components import COMPONENTS, ROUTED, Component
from fanfold.contracts.resources import (
    HashRingSpec,
    PlatformServiceSpec,
    PlatformSpec,
    Replicas,
    Scaling,
    parse,
)
from fanfold_operator.conditions import Condition, find, is_true
from fanfold_operator.kinds import JOB, LOAD_TEST
from fanfold_operator.planning import components, environment, loadtest
from fanfold_operator.planning.actions import Actions, Images, View, superfluous
from fanfold_operator.planning.upgrade import (
    Gate,
    Phase,
    Release,
    Service,
    Situation,
    Upgrade,
    adopted,
    observed,
    recorded,
    releases,
)
from fanfold_operator.resources import custom, meta, migration, monitoring, stores

if TYPE_CHECKING:
    from fanfold_operator.kinds import Manifest

RETRY_MIGRATION: Final = timedelta(seconds=60)
"""A failed migrations Job is made again after this long: what failed may have been the database, not the migration."""


def platform_spec(resource: Manifest) -> PlatformSpec:
    """The spec of a Platform."""
    return parse(PlatformSpec, resource)


@dataclass(frozen=True)
class Stages:
    """How far a platform has come, as conditions; a stage is passed when its condition is True."""

    view: View
    images: Images

    @cached_property
    def spec(self) -> PlatformSpec:
        """The Platform's spec."""
        return platform_spec(self.view.resource)

    @property
    def wanted(self) -> Release:
        """The release that the spec asks for."""
        version = self.spec.version or self.images.version
        return Release(version, self.spec.image or self.images.reference("fanfold", version))

    @cached_property
    def parts(self) -> dict[str, Service]:
        """Every component as it is."""
        found = {}
        for component in COMPONENTS:
            name = meta.child_name(self.view.name, component.name)
            found[component.name] = observed(self.view.child("PlatformService", name))
        return found

    @cached_property
    def upgrade(self) -> Upgrade | None:
        """How far the last upgrade is; None while the platform is being installed."""
        status = self.view.resource.get("status", {})
        return recorded(status) or adopted(status.get("version"), self.parts.values(), self.view.now)

    @cached_property
    def runs(self) -> Release:
        """The release whose migrations are to be done."""
        return self.upgrade.runs if self.upgrade else self.wanted

    @cached_property
    def situation(self) -> Situation:
        """What an upgrade depends on."""
        refused = self.migrations.message if self.migrations.reason == "SchemaRefused" else ""
        return Situation(
            wanted=self.wanted,
            services=self.parts,
            rules=self.spec.upgrade,
            now=self.view.now,
            migrated=bool(self.migrations.status and self.cache.status),
            refused=refused,
            stuck=self._stuck(),
            errors=self.view.errors,
            next_gate=self._next_gate(),
            gate=self._gate(),
        )

    def _next_gate(self) -> str:
        digest = xxhash.xxh3_64_hexdigest(f"{self.wanted} {self.view.now}".encode())[:6]
        return meta.child_name(self.view.name, f"{meta.GATE}-{digest}")

    def _gate(self) -> Gate:
        """What the LoadTest that decides on the version came to; it is made from the template once."""
        if self.upgrade is None or not self.upgrade.gate:
            return Gate()
        test, name = self.view.child(LOAD_TEST.kind, self.upgrade.gate), self.upgrade.gate
        if test is None:
            wanted = self.spec.upgrade.gate
            if self.view.gate_template is None and wanted:
                return Gate(passed=False, message=f"LoadTest {wanted.load_test}, the gate of upgrades, does not exist")
            return Gate(message=f"LoadTest {name} is about to begin")
        status = test.get("status", {})
        said = f"LoadTest {name}: {status.get('verdict', status.get('phase', 'it is new'))}"
        said += f": {status['message']}" if status.get("message") else ""
        return Gate(is_true(test, "Passed") if loadtest.ended(test) else None, said)

    @cached_property
    def store_specs(self) -> dict[str, stores.Store | None]:
        """The embedded stores, None for those that are external."""
        spec, pull = self.spec, self.spec.image_pull_policy
        database, cache, objects = spec.database.embedded, spec.cache.embedded, spec.object_store.embedded
        image = self.images.reference
        return {
            meta.POSTGRESQL: stores.postgresql(image("postgresql"), pull, database) if database else None,
            meta.VALKEY: stores.valkey(image("valkey"), pull, cache) if cache else None,
            meta.OBJECT_STORE: stores.object_store(image("objectstore"), pull, objects) if objects else None,
        }

    @property
    def embedded(self) -> tuple[str, ...]:
        """Names of the embedded stores."""
        return tuple(name for name, store in self.store_specs.items() if store)

    @property
    def retains(self) -> bool:
        """Whether data, and the credentials it was made with, outlive the Platform."""
        return self.spec.deletion_policy == "Retain" and bool(self.embedded)

    @cached_property
    def database(self) -> Condition:
        """Whether the database can be used."""
        return self._store("DatabaseReady", meta.POSTGRESQL, ("database_url", "database_read_url"))

    @cached_property
    def cache(self) -> Condition:
        """Whether the cache can be used."""
        return self._store("CacheReady", meta.VALKEY, ("valkey_url",))

    @cached_property
    def object_store(self) -> Condition:
        """Whether the object store can be used."""
        return self._store("ObjectStoreReady", meta.OBJECT_STORE, ("s3_access_key", "s3_secret_key"))

    @cached_property
    def job(self) -> Manifest:
        """The migrations wanted."""
        spec = self.spec
        return migration.migration(
            self.view.resource,
            version=self.runs.version,
            image=self.runs.image,
            pull_policy=spec.image_pull_policy,
            env=environment.object_store(self.view.name, spec) | {"FANFOLD_LOG_LEVEL": spec.log_level},
            files=components.secret_files(meta.MIGRATIONS, self.view.name, spec),
        )

    @cached_property
    def migrations(self) -> Condition:
        """Whether the schemas and the bucket serve the version that is to run."""
        waiting = [one for one in (self.database, self.object_store) if not one.status]
        job = self.view.child("Job", self.job["metadata"]["name"])
        kind = "MigrationsComplete"
        if is_true(job, "Complete"):
            message = f"schemas and bucket serve version {self.runs.version}"
            return Condition(kind, status=True, reason="Complete", message=message)
        if waiting:
            return Condition(kind, status=False, reason="Waiting", message=f"waits for {_names(waiting)}")
        failed = find(job, "Failed")
        if failed and failed["status"] == "True":
            name = self.job["metadata"]["name"]
            if failed.get("reason") == migration.REFUSED:
                message = f"version {self.runs.version} cannot work with the schemas: see kubectl logs job/{name}"
                return Condition(kind, status=False, reason="SchemaRefused", message=message)
            message = f"{failed['message']}; see kubectl logs job/{name}. Tried again every {RETRY_MIGRATION.seconds} s"
            return Condition(kind, status=False, reason="MigrationFailed", message=message)
        name = self.job["metadata"]["name"]
        return Condition(kind, status=False, reason="Migrating", message=f"Job {name} is running")

    def _stuck(self) -> str:
        """Why the migrations' pod does not run, if it had time to: its image may not exist."""
        name, limit = self.job["metadata"]["name"], self.spec.upgrade.progress_deadline_seconds
        state = (self.view.child("Job", name) or {}).get("status", {})
        begun = state.get("startTime")
        if not begun or not state.get("active") or state.get("ready"):
            return ""
        waited = self.view.now - datetime.fromisoformat(begun)
        if waited < timedelta(seconds=limit):
            return ""
        return f"the pod of Job {name} did not start within {limit} s: see kubectl describe pods of it"

    @cached_property
    def releases(self) -> dict[str, Release]:
        """What each component is to run now, once the platform is installed."""
        return releases(self.upgrade, self.situation) if self.upgrade else {}

    @cached_property
    def services(self) -> Condition:
        """Whether every service has enough replicas."""
        kind, waiting = "ServicesReady", []
        for component in COMPONENTS:
            service = self.view.child("PlatformService", meta.child_name(self.view.name, component.name))
            if not is_true(service, "Ready"):
                waiting.append(f"{component.name} ({(service or {}).get('status', {}).get('ready', 'not made yet')})")
        if not waiting:
            return Condition(kind, status=True, reason="Available", message="every service has enough replicas")
        blocked = [one for one in (self.migrations, self.cache) if not one.status]
        if blocked and len(waiting) == len(COMPONENTS):
            return Condition(kind, status=False, reason="Waiting", message=f"waits for {_names(blocked)}")
        return Condition(kind, status=False, reason="ServicesNotReady", message=f"not ready: {', '.join(waiting)}")

    @cached_property
    def prometheus(self) -> Condition | None:
        """Whether the embedded Prometheus runs, if there is to be one. Nobody waits for it."""
        kind, wanted = "PrometheusReady", self.spec.monitoring.prometheus
        if wanted is None or wanted.embedded is None:
            return None
        if not self.view.operator:
            message = "the operator does not run where pods reach it (--admin-service): nobody would name the targets"
            return Condition(kind, status=False, reason="NoTargets", message=message)
        name = meta.child_name(self.view.name, meta.PROMETHEUS)
        child = self.view.child("Deployment", name) or {}
        if child.get("status", {}).get("availableReplicas", 0) >= 1:
            message = f"{monitoring.url(self.view.name)}: kubectl port-forward service/{name} {monitoring.PORT}"
            return Condition(kind, status=True, reason="Available", message=message)
        return Condition(kind, status=False, reason="PodNotReady", message=f"waits for the pod of Deployment {name}")

    @cached_property
    def ring(self) -> Condition:
        """Whether every gateway uses the newest ring."""
        ring = self.view.child("HashRing", self.view.name)
        synced = find(ring, "Synced")
        if synced is None:
            return Condition("RingSynced", status=False, reason="Waiting", message="the ring is not made yet")
        return Condition(
            "RingSynced", status=synced["status"] == "True", reason=synced["reason"], message=synced["message"]
        )

    def _store(self, kind: str, name: str, files: tuple[str, ...]) -> Condition:
        store = self.store_specs[name]
        if store is None:
            return self._external(kind, files)
        claim = stores.claim_name(self.view.name, name)
        if claim in self.view.lost_volumes:
            secret = meta.credentials_name(self.view.name)
            message = (
                f"Secret {secret} is gone, but volume claim {claim} holds data made with it: "
                "restore the Secret from a backup, or delete the claim and its data"
            )
            return Condition(kind, status=False, reason="CredentialsLost", message=message)
        child = self.view.child("StatefulSet", meta.child_name(self.view.name, name))
        state = (child or {}).get("status", {})
        if state.get("readyReplicas", 0) >= 1:
            message = f"embedded {name} is ready"
            if state.get("updateRevision") and not state.get("updatedReplicas"):
                pod = f"{meta.child_name(self.view.name, name)}-0"
                message += f"; its pod is not of the newest image and settings: kubectl delete pod {pod} restarts it"
            return Condition(kind, status=True, reason="Available", message=message)
        message = f"waits for the pod of StatefulSet {meta.child_name(self.view.name, name)}"
        return Condition(kind, status=False, reason="PodNotReady", message=message)

    def _external(self, kind: str, files: tuple[str, ...]) -> Condition:
        sources = components.secret_sources(self.spec)
        for secret, key in (sources[name] for name in files if name in sources):
            keys = self.view.secrets.get(secret)
            if keys is None:
                message = f"Secret {secret} does not exist in namespace {self.view.namespace}: create it with key {key}"
                return Condition(kind, status=False, reason="SecretMissing", message=message)
            if key not in keys:
                there = ", ".join(sorted(keys)) or "none"
                message = f"Secret {secret} has no key {key} (it has: {there}): add it, or name another in the spec"
                return Condition(kind, status=False, reason="SecretKeyMissing", message=message)
        return Condition(kind, status=True, reason="External", message="external, its Secret is there")


def plan(stages: Stages) -> Actions:
    """What to bring about now. Nothing is removed before what takes its place can work."""
    view = stages.view
    if view.paused:
        return Actions()
    objects: list[Manifest] = []
    if not view.lost_volumes:
        for store in stages.store_specs.values():
            if store is not None:
                objects += stores.manifests(view.resource, store, retain=stages.retains)
    prometheus = stages.spec.monitoring.prometheus
    if prometheus and prometheus.embedded and view.operator:
        image, pull = stages.images.reference(meta.PROMETHEUS), stages.spec.image_pull_policy
        objects += monitoring.manifests(view.resource, image, pull, prometheus.embedded, view.operator)
    objects.append(custom.hash_ring(view.resource, _ring(stages)))
    job = view.child("Job", stages.job["metadata"]["name"])
    retried = (job,) if job is not None and _retry_due(job, view.now) else ()
    if not retried and (job is not None or (stages.database.status and stages.object_store.status)):
        objects.append(stages.job)
    objects += _services(stages)
    if gate := _gate(stages):
        objects.append(gate)
    stale = tuple(one for one in superfluous(view, objects) if not _decides(one, stages.upgrade))
    if not stages.situation.migrated:
        # Migrations of a release that is not to run any more must not be done, whatever else waits.
        stale = tuple(one for one in stale if one["kind"] == JOB.kind)
    return Actions(tuple(objects), retried or stale)


def _gate(stages: Stages) -> Manifest | None:
    """The LoadTest to make: once, for it cannot be changed, and its template may."""
    upgrade, template = stages.upgrade, stages.view.gate_template
    if upgrade is None or upgrade.phase is not Phase.GATING or template is None:
        return None
    if stages.view.child(LOAD_TEST.kind, upgrade.gate):
        return None
    return custom.gate(stages.view.resource, upgrade.gate, template)


def _decides(child: Manifest, upgrade: Upgrade | None) -> bool:
    """Whether it is the newest gate's LoadTest, which stays to be looked at unless it is of no use any more."""
    if child["kind"] != LOAD_TEST.kind or upgrade is None or child["metadata"]["name"] != upgrade.gate:
        return False
    return upgrade.phase is Phase.GATING or loadtest.ended(child)


def _retry_due(job: Manifest, now: datetime) -> bool:
    failed = find(job, "Failed")
    if failed is None or failed["status"] != "True" or failed.get("reason") == migration.REFUSED:
        return False
    return now - datetime.fromisoformat(failed["lastTransitionTime"]) >= RETRY_MIGRATION


def _ring(stages: Stages) -> HashRingSpec:
    ring = stages.spec.ring
    return HashRingSpec(
        platform=stages.view.name,
        services=sorted(ROUTED),
        virtual_nodes=ring.virtual_nodes,
        bounded_load=ring.bounded_load,
        snapshot_refresh_seconds=ring.snapshot_refresh_seconds,
    )


def _services(stages: Stages) -> list[Manifest]:
    """One PlatformService per component, of the release that it is to run now."""
    return [
        custom.platform_service(stages.view.resource, _service(stages, component, release))
        for component in COMPONENTS
        if (release := _release(stages, component))
    ]


def _release(stages: Stages, component: Component) -> Release | None:
    """None: it is not time yet to make it."""
    if stages.upgrade:
        return stages.releases[component.name]
    return stages.wanted if stages.situation.migrated else stages.parts[component.name].release


def _service(stages: Stages, component: Component, release: Release) -> PlatformServiceSpec:
    view, spec = stages.view, stages.spec
    entry = component.name == "gateway"
    scaling = components.scaling(component.name, spec)
    replicas = components.replicas(component.name, scaling)
    if pin := view.pinned.get(component.name):
        replicas = Replicas(min=pin, max=pin)
    return PlatformServiceSpec(
        platform=view.name,
        component=component.name,
        version=release.version,
        image=release.image,
        image_pull_policy=spec.image_pull_policy,
        scaling=Scaling(min=replicas.min, max=replicas.max, target_cpu_percent=scaling.target_cpu_percent),
        autoscaling=scaling.autoscaling,
        resources=components.resources(component.name, scaling),
        env=environment.of_component(component.name, view.namespace, view.name, release.version, spec),
        secrets=components.secret_files(component.name, view.name, spec),
        serves=component.serves,
        routed=component.routed,
        exposure=spec.gateway.exposure if entry else None,
        snapshot=meta.snapshot_name(view.name) if entry else None,
        grace_seconds=environment.GRACE_SECONDS,
        progress_deadline_seconds=spec.upgrade.progress_deadline_seconds,
    )


def _names(waiting: list[Condition]) -> str:
    return " and ".join(one.type for one in waiting)
