"""The custom resources' specs as types, and the names Kubernetes objects of a platform carry.

The CRDs in ``crds/`` are the source of truth for validation and defaults; a test compares these defaults with theirs.
Unknown fields are ignored: an older reader meets newer resources.
"""

from __future__ import annotations

from typing import Any, Final, Literal, TypeVar

import msgspec

GROUP: Final = "fanfold.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"

PLATFORM_LABEL: Final = "fanfold.dev/platform"
SERVICE_LABEL: Final = "fanfold.dev/service"
LOADTEST_LABEL: Final = "fanfold.dev/loadtest"
"""On the pods of a run: the LoadTest's name. They are not the platform's own, and reach no more of it than clients."""
REPORTS_LABEL: Final = "fanfold.dev/reports-to"
"""On pods of a run that write into a Platform's own object store: that Platform's name."""
SEEDS_LABEL: Final = "fanfold.dev/seeds"
"""On pods of a run that load a graph into a Platform's own database: that Platform's name."""
PAUSED_ANNOTATION: Final = "fanfold.dev/paused"
"""``"true"`` on a Platform: the operator reports its state and changes nothing of it."""

Quantity = str | int
Spec = TypeVar("Spec", bound="Record")


class Record(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Base of all spec types: immutable, fields in camelCase."""


class SecretKeyRef(Record, frozen=True, kw_only=True):
    """One key of a Secret in the platform's namespace."""

    name: str
    key: str


class Replicas(Record, frozen=True, kw_only=True):
    """Bounds of autoscaling, both inclusive."""

    min: int = 1
    max: int = 10


class Resources(Record, frozen=True, kw_only=True):
    """Requests and limits as in a container."""

    requests: dict[str, Quantity] = {}
    limits: dict[str, Quantity] = {}


class Autoscaling(Record, frozen=True, kw_only=True):
    """How replicas follow the load. In mode DryRun it is only told what would be done; in mode Off users scale.

    Attributes:
        target_in_flight: Requests under way per replica; services only, where custom metrics are served.
        target_lag: Messages waiting per replica; workers only.
        target_age_seconds: Age of the oldest waiting message; workers only.
        scale_up_window_seconds: Replicas are added when wanted for so long.
        scale_down_window_seconds: Replicas are removed when not wanted for so long.
    """

    mode: Literal["Auto", "DryRun", "Off"] = "Auto"
    target_in_flight: int = 50
    target_lag: int = 100
    target_age_seconds: int = 10
    scale_up_window_seconds: int = 0
    scale_down_window_seconds: int = 300


class ParentRef(Record, frozen=True, kw_only=True):
    """What an HTTPRoute attaches to: a Gateway, by default of its own namespace, and perhaps one listener of it."""

    name: str
    namespace: str | None = None
    section_name: str | None = None


class Exposure(Record, frozen=True, kw_only=True):
    """How the gateway is reached from outside.

    `node_port` only with type NodePort; `parent_ref` and `hostnames` only with type HTTPRoute.
    """

    type: Literal["NodePort", "LoadBalancer", "ClusterIP", "HTTPRoute"] = "NodePort"
    node_port: int | None = None
    parent_ref: ParentRef | None = None
    hostnames: list[str] | None = None


class ServiceScaling(Record, frozen=True, kw_only=True):
    """Size of one component. None means: as the CRD's default for this component.

    `target_cpu_percent` is percent of one core per replica, not of the request: a replica is one process with one event
    loop, which one core saturates.
    """

    replicas: Replicas | None = None
    target_cpu_percent: int = msgspec.field(default=60, name="targetCPUPercent")
    resources: Resources | None = None
    autoscaling: Autoscaling = Autoscaling()


class GatewaySpec(ServiceScaling, frozen=True, kw_only=True):
    """The entry."""

    exposure: Exposure = Exposure()


class EmbeddedDatabase(Record, frozen=True, kw_only=True):
    """One PostgreSQL with a volume, run by the operator; for demonstrations and development."""

    storage: Quantity = "10Gi"
    storage_class_name: str | None = None


class ExternalDatabase(Record, frozen=True, kw_only=True):
    """A PostgreSQL of the user's: the key holds its URL, ``postgresql://user:password@host:5432/database``.

    `read_secret_ref`: the same for its read replica, or for an address that spreads over several.
    """

    secret_ref: SecretKeyRef
    read_secret_ref: SecretKeyRef | None = None


class DatabaseSpec(Record, frozen=True, kw_only=True):
    """Exactly one of the two."""

    embedded: EmbeddedDatabase | None = None
    external: ExternalDatabase | None = None


class EmbeddedCache(Record, frozen=True, kw_only=True):
    """One Valkey with a volume, run by the operator."""

    max_memory: Quantity = "256Mi"
    storage: Quantity = "2Gi"
    storage_class_name: str | None = None


class ExternalCache(Record, frozen=True, kw_only=True):
    """A Valkey or Redis of the user's: the key holds its URL.

    ``redis://:password@host:6379/0``, or ``redis+cluster://:password@host:6379,host:6379`` for a cluster.
    """

    secret_ref: SecretKeyRef


class CacheSpec(Record, frozen=True, kw_only=True):
    """Exactly one of the two."""

    embedded: EmbeddedCache | None = None
    external: ExternalCache | None = None


class S3SecretRef(Record, frozen=True, kw_only=True):
    """A Secret and which of its keys hold the access key id and the secret access key."""

    name: str
    access_key: str = "access_key"
    secret_key: str = "secret_key"  # noqa: S105 - the name of a key, no secret


class EmbeddedObjectStore(Record, frozen=True, kw_only=True):
    """One S3 server with a volume, run by the operator."""

    storage: Quantity = "20Gi"
    storage_class_name: str | None = None


class ExternalObjectStore(Record, frozen=True, kw_only=True):
    """An S3 service of the user's. `endpoint` is a URL without a path."""

    endpoint: str
    secret_ref: S3SecretRef
    bucket: str = "fanfold"
    region: str = "us-east-1"


class ObjectStoreSpec(Record, frozen=True, kw_only=True):
    """Exactly one of the first two. `public_endpoint`: where clients upload to, if not where services do."""

    embedded: EmbeddedObjectStore | None = None
    external: ExternalObjectStore | None = None
    public_endpoint: str | None = None


class FeedSpec(Record, frozen=True, kw_only=True):
    """`length`: posts a cached feed holds. `own_posts`: whether it shows its user's own, too."""

    length: int = 20
    own_posts: bool = True


class FanoutSpec(Record, frozen=True, kw_only=True):
    """Who counts as a celebrity (followers above the threshold), and how their posts reach feeds."""

    celebrity_threshold: int = 10_000
    celebrity_mode: Literal["pull", "batched"] = "pull"
    timeline_copies: int = 1


class MediaSpec(Record, frozen=True, kw_only=True):
    """`base_url`: prefix of photo URLs, a CDN's or the gateway's own path. `signed`: whose addresses expire."""

    base_url: str = msgspec.field(default="/v1/media", name="baseURL")
    signed: Literal["none", "private", "all"] = "private"


class RingSpec(Record, frozen=True, kw_only=True):
    """The consistent-hash ring over the replicas of each routed service."""

    virtual_nodes: int = 160
    bounded_load: float = 1.25
    snapshot_refresh_seconds: int = 10


class EmbeddedPrometheus(Record, frozen=True, kw_only=True):
    """One Prometheus, run by the operator, whose samples go with its pod; for demonstrations and development."""

    retention_hours: int = 24
    max_memory: Quantity = "512Mi"


class PrometheusRef(Record, frozen=True, kw_only=True):
    """A Prometheus that scrapes the platform."""

    url: str


class PrometheusSpec(Record, frozen=True, kw_only=True):
    """Exactly one of the two."""

    embedded: EmbeddedPrometheus | None = None
    external: PrometheusRef | None = None


class MonitoringSpec(Record, frozen=True, kw_only=True):
    """What watches the platform, as far as the operator is to know of it."""

    prometheus: PrometheusSpec | None = None


class GateSpec(Record, frozen=True, kw_only=True):
    """The LoadTest of the same namespace of which a copy decides on a new version."""

    load_test: str


class UpgradeSpec(Record, frozen=True, kw_only=True):
    """When a new version is taken back.

    Attributes:
        progress_deadline_seconds: A rollout without progress for so long has failed.
        soak_seconds: Between one service's rollout and the next, to see what requests come to.
        max_error_percent: Most requests of the last half minute that may fail while services are rolled.
        gate: What a new version must pass when all services run it; None: nothing.
    """

    progress_deadline_seconds: int = 300
    soak_seconds: int = 10
    max_error_percent: int = 5
    gate: GateSpec | None = None


class PlatformSpec(Record, frozen=True, kw_only=True):
    """What a platform engineer writes. An empty one is a working demonstration."""

    version: str | None = None
    image: str | None = None
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    deletion_policy: Literal["Retain", "Delete"] = "Retain"
    gateway: GatewaySpec = GatewaySpec()
    database: DatabaseSpec = DatabaseSpec(embedded=EmbeddedDatabase())
    cache: CacheSpec = CacheSpec(embedded=EmbeddedCache())
    object_store: ObjectStoreSpec = ObjectStoreSpec(embedded=EmbeddedObjectStore())
    feed: FeedSpec = FeedSpec()
    fanout: FanoutSpec = FanoutSpec()
    media: MediaSpec = MediaSpec()
    ring: RingSpec = RingSpec()
    upgrade: UpgradeSpec = UpgradeSpec()
    monitoring: MonitoringSpec = MonitoringSpec()
    services: dict[str, ServiceScaling] = {}


class EnvVar(Record, frozen=True, kw_only=True):
    """A setting of a component; never a secret."""

    name: str
    value: str


class SecretFile(Record, frozen=True, kw_only=True):
    """A key of a Secret that appears as the file `file` in the component's folder of secrets."""

    file: str
    secret: str
    key: str


class Scaling(Record, frozen=True, kw_only=True):
    """Bounds and target of one service; `target_cpu_percent` is percent of one core per replica."""

    min: int = 1
    max: int = 1
    target_cpu_percent: int = msgspec.field(default=60, name="targetCPUPercent")


class PlatformServiceSpec(Record, frozen=True, kw_only=True):
    """One component of a platform, written by the operator. `replicas` belongs to whoever scales.

    Attributes:
        platform: Name of the Platform.
        component: Name in `fanfold.contracts.components`.
        snapshot: Name of the ConfigMap this component may read, if it watches the snapshot.
        grace_seconds: From SIGTERM to SIGKILL, at the most.
        progress_deadline_seconds: A rollout without progress for so long has failed.
    """

    platform: str
    component: str
    version: str
    image: str
    image_pull_policy: str = "IfNotPresent"
    replicas: int = 1
    scaling: Scaling = Scaling()
    autoscaling: Autoscaling = Autoscaling()
    resources: Resources = Resources()
    env: list[EnvVar] = []
    secrets: list[SecretFile] = []
    serves: bool = True
    routed: bool = False
    exposure: Exposure | None = None
    snapshot: str | None = None
    grace_seconds: int = 60
    progress_deadline_seconds: int = 300


class HashRingSpec(Record, frozen=True, kw_only=True):
    """The ring of one platform: which services have slots, and the gateway whose replicas acknowledge."""

    platform: str
    services: list[str] = []
    virtual_nodes: int = 160
    bounded_load: float = 1.25
    snapshot_refresh_seconds: int = 10


class PlatformRef(Record, frozen=True, kw_only=True):
    """A Platform of the same namespace."""

    name: str


class ConfigMapKeyRef(Record, frozen=True, kw_only=True):
    """One key of a ConfigMap in the same namespace."""

    name: str
    key: str


class Document(Record, frozen=True, kw_only=True):
    """A scenario or objectives: exactly one of these; `name` is of a scenario that comes with the load generator."""

    name: str | None = None
    inline: str | None = None
    config_map_ref: ConfigMapKeyRef | None = None


class ReportSpec(Record, frozen=True, kw_only=True):
    """Where a run's files go; without `object_store` to that of the Platform."""

    object_store: ExternalObjectStore | None = None
    prefix: str = "loadtests"
    summary_only: bool = False


class CrowdSpec(Record, frozen=True, kw_only=True):
    """A graph that is loaded before the run, into the Platform's database.

    Attributes:
        celebrities: Followers of each.
        body: People who follow each other by Zipf's law.
        readers: Followers of the first celebrity whom runs can log in as.
    """

    celebrities: list[int] = msgspec.field(default_factory=lambda: [10_000])
    body: int = 2_000
    readers: int = 1_000


class Toleration(Record, frozen=True, kw_only=True):
    """As in a pod."""

    key: str | None = None
    operator: str | None = None
    value: str | None = None
    effect: str | None = None
    toleration_seconds: int | None = None


class LoadTestSpec(Record, frozen=True, kw_only=True):
    """One run of a load scenario. Exactly one of `platform_ref` and `url` is set.

    Attributes:
        workers: Pods that send the load; with 1 the master does.
        acts: The operator does to the Platform what the scenario asks for.
        deadline_seconds: Longest time it may wait to begin, and longest that its Jobs may take.
        suspend: It does not begin.
        ttl_seconds_after_finished: It is deleted so long after its end; None: never.
    """

    scenario: Document
    platform_ref: PlatformRef | None = None
    url: str | None = None
    profile: Literal["small", "medium", "large"] = "small"
    rate_factor: float = 1
    time_factor: float = 1
    seed: int = 1
    slos: Document | None = None
    crowd: CrowdSpec | None = None
    prometheus: PrometheusRef | None = None
    workers: int = 1
    acts: bool = False
    image: str | None = None
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    resources: Resources = Resources()
    node_selector: dict[str, str] = {}
    tolerations: list[Toleration] = []
    report: ReportSpec = ReportSpec()
    deadline_seconds: int = 14_400
    suspend: bool = False
    cancel: bool = False
    ttl_seconds_after_finished: int | None = None


def parse(kind: type[Spec], resource: dict[str, Any]) -> Spec:
    """The ``spec`` of a custom resource.

    Raises:
        msgspec.ValidationError: Not of this shape; the message names the field.
    """
    return msgspec.convert(resource.get("spec", {}), kind)
