"""The embedded backing stores: one StatefulSet, Service and NetworkPolicy each. For demonstrations and development."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from fanfold.contracts.resources import PLATFORM_LABEL, REPORTS_LABEL, SEEDS_LABEL, Quantity, SecretFile
from fanfold_operator.differences import quantity
from fanfold_operator.kinds import NETWORK_POLICY, SERVICE, STATEFUL_SET
from fanfold_operator.resources import meta
from fanfold_operator.resources.pods import MOUNTS, SECRETS_DIR, pod_template, resources, scratch, secrets_volume

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fanfold.contracts.resources import EmbeddedCache, EmbeddedDatabase, EmbeddedObjectStore
    from fanfold_operator.kinds import Manifest

DATABASE: Final = "fanfold"
DATABASE_USER: Final = "fanfold"
BUCKET: Final = "fanfold"
REGION: Final = "us-east-1"
PORTS: Final = {meta.POSTGRESQL: 5432, meta.VALKEY: 6379, meta.OBJECT_STORE: 9000}
VOLUME: Final = "data"


@dataclass(frozen=True, slots=True)
class Store:
    """What one store's pod differs in. `probe` is the action of its probes, `files` the secrets it reads."""

    name: str
    image: str
    pull_policy: str
    files: tuple[str, ...]
    env: Mapping[str, str]
    probe: Mapping[str, Any]
    resources: Mapping[str, Any]
    storage: Quantity
    storage_class: str | None
    args: tuple[str, ...] = ()


def endpoint(platform: str, store: str) -> str:
    """``host:port`` of a store's Service."""
    return f"{meta.child_name(platform, store)}:{PORTS[store]}"


def claim_name(platform: str, store: str) -> str:
    """The volume claim of a store's only pod, as the StatefulSet controller names it."""
    return f"{VOLUME}-{meta.child_name(platform, store)}-0"


def postgresql(image: str, pull_policy: str, spec: EmbeddedDatabase) -> Store:
    """PostgreSQL 17 with the database and user ``fanfold``."""
    return Store(
        meta.POSTGRESQL,
        image,
        pull_policy,
        files=("database_password",),
        env={
            "POSTGRES_USER": DATABASE_USER,
            "POSTGRES_DB": DATABASE,
            "POSTGRES_PASSWORD_FILE": f"{SECRETS_DIR}/database_password",
        },
        probe={"exec": {"command": ["pg_isready", "--quiet", "--host=127.0.0.1", f"--username={DATABASE_USER}"]}},
        resources=resources({"cpu": "100m", "memory": "192Mi"}, {"memory": "1Gi"}),
        storage=spec.storage,
        storage_class=spec.storage_class_name,
    )


def valkey(image: str, pull_policy: str, spec: EmbeddedCache) -> Store:
    """Valkey, bounded by ``--maxmemory``; its file's rewrite may copy all of it, so the container gets twice that."""
    data = int(quantity(spec.max_memory))
    return Store(
        meta.VALKEY,
        image,
        pull_policy,
        files=("valkey_password",),
        env={"VALKEY_PASSWORD_FILE": f"{SECRETS_DIR}/valkey_password"},
        probe={"exec": {"command": ["healthy"]}},
        resources=resources({"cpu": "50m", "memory": "64Mi"}, {"memory": str(2 * data + (64 << 20))}),
        storage=spec.storage,
        storage_class=spec.storage_class_name,
        args=("--maxmemory", str(data)),
    )


def object_store(image: str, pull_policy: str, spec: EmbeddedObjectStore) -> Store:
    """An S3 server over files."""
    return Store(
        meta.OBJECT_STORE,
        image,
        pull_policy,
        files=("s3_access_key", "s3_secret_key"),
        env={
            "S3_ACCESS_KEY_FILE": f"{SECRETS_DIR}/s3_access_key",
            "S3_SECRET_KEY_FILE": f"{SECRETS_DIR}/s3_secret_key",
            "S3_REGION": REGION,
        },
        probe={"httpGet": {"path": "/healthz", "port": "store"}},
        resources=resources({"cpu": "25m", "memory": "64Mi"}, {"memory": "256Mi"}),
        storage=spec.storage,
        storage_class=spec.storage_class_name,
    )


def manifests(owner: Manifest, store: Store, *, retain: bool) -> list[Manifest]:
    """All objects of one store. `retain`: whether its volume outlives the Platform."""
    platform = owner["metadata"]["name"]
    name = meta.child_name(platform, store.name)
    labels = meta.selector(platform, store.name)

    def build(kind: Any, **spec: Any) -> Manifest:
        return meta.manifest(kind, owner, name, platform=platform, component=store.name, spec=spec)

    port = PORTS[store.name]
    service = build(
        SERVICE,
        clusterIP="None",
        selector=labels,
        ports=[{"name": "store", "port": port, "protocol": "TCP", "targetPort": "store"}],
    )
    policy = build(
        NETWORK_POLICY,
        podSelector={"matchLabels": labels},
        policyTypes=["Ingress"],
        ingress=[
            {
                "from": [{"podSelector": {"matchLabels": one}} for one in _callers(platform, store.name)],
                "ports": [{"protocol": "TCP", "port": port}],
            }
        ],
    )
    stateful = build(
        STATEFUL_SET,
        replicas=1,
        serviceName=name,
        selector={"matchLabels": labels},
        # With one replica a restart fails requests: a new operator's image must not cause one by itself.
        updateStrategy={"type": "OnDelete"},
        persistentVolumeClaimRetentionPolicy={"whenDeleted": "Retain" if retain else "Delete", "whenScaled": "Retain"},
        template=_pod(platform, store),
        volumeClaimTemplates=[_claim(store, labels)],
    )
    return [service, policy, stateful]


def _callers(platform: str, store: str) -> list[dict[str, str]]:
    """Labels of the pods that may reach a store: the platform's, and runs of load tests that leave something there."""
    runs = {meta.OBJECT_STORE: REPORTS_LABEL, meta.POSTGRESQL: SEEDS_LABEL}
    return [{PLATFORM_LABEL: platform}, *([{runs[store]: platform}] if store in runs else [])]


def _pod(platform: str, store: Store) -> dict[str, Any]:
    secret = meta.credentials_name(platform)
    files = [SecretFile(file=name, secret=secret, key=name) for name in store.files]
    container = {
        "name": store.name,
        "image": store.image,
        "imagePullPolicy": store.pull_policy,
        "args": list(store.args),
        "env": [{"name": name, "value": value} for name, value in store.env.items()],
        "ports": [{"name": "store", "containerPort": PORTS[store.name], "protocol": "TCP"}],
        "resources": store.resources,
        # Ten minutes: a database recovers from its log, a cache reads its file back.
        "startupProbe": {**store.probe, "periodSeconds": 1, "timeoutSeconds": 5, "failureThreshold": 600},
        "readinessProbe": {**store.probe, "periodSeconds": 5, "timeoutSeconds": 5, "failureThreshold": 3},
        "livenessProbe": {**store.probe, "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 6},
        "volumeMounts": [*MOUNTS, {"name": VOLUME, "mountPath": "/data"}],
    }
    labels = meta.labels(platform, store.name)
    volumes = [secrets_volume(files), scratch("256Mi")]
    return pod_template(labels, container, volumes, terminationGracePeriodSeconds=60)


def _claim(store: Store, labels: Mapping[str, str]) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": store.storage}},
    }
    if store.storage_class:
        spec["storageClassName"] = store.storage_class
    return {"metadata": {"name": VOLUME, "labels": dict(labels)}, "spec": spec}
