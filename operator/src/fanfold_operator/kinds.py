"""The Kubernetes kinds the operator reads and writes: one row each, with their paths in the API."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from fanfold.contracts.resources import GROUP, PAUSED_ANNOTATION, PLATFORM_LABEL, VERSION

Manifest = dict[str, Any]
"""A Kubernetes object as plain JSON."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One namespaced kind.

    Attributes:
        group: API group, empty for the core group.
        version: API version.
        kind: Name in manifests.
        plural: Name in paths.
        watched: Whether the operator keeps a copy of all it owns; the others are read when needed.
    """

    group: str
    version: str
    kind: str
    plural: str
    watched: bool = True

    @property
    def api_version(self) -> str:
        """``group/version``, or the version alone for the core group."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def custom(self) -> bool:
        """Whether it is one of ours."""
        return self.group == GROUP

    @property
    def label_selector(self) -> str:
        """What to list and watch: of our own kinds everything, of the others what belongs to a platform."""
        return "" if self.custom else PLATFORM_LABEL

    def path(self, namespace: str | None, name: str | None = None, subresource: str | None = None) -> str:
        """Path of the collection (of one namespace, or of all), of an object, or of its subresource."""
        root = f"/apis/{self.api_version}" if self.group else f"/api/{self.version}"
        parts = [root, *(["namespaces", namespace] if namespace else []), self.plural]
        return "/".join([*parts, *(part for part in (name, subresource) if part)])


PLATFORM: Final = Kind(GROUP, VERSION, "Platform", "platforms")
PLATFORM_SERVICE: Final = Kind(GROUP, VERSION, "PlatformService", "platformservices")
HASH_RING: Final = Kind(GROUP, VERSION, "HashRing", "hashrings")
LOAD_TEST: Final = Kind(GROUP, VERSION, "LoadTest", "loadtests")
CUSTOM: Final = (PLATFORM, PLATFORM_SERVICE, HASH_RING, LOAD_TEST)

CONFIG_MAP: Final = Kind("", "v1", "ConfigMap", "configmaps")
SERVICE: Final = Kind("", "v1", "Service", "services")
SERVICE_ACCOUNT: Final = Kind("", "v1", "ServiceAccount", "serviceaccounts")
SECRET: Final = Kind("", "v1", "Secret", "secrets", watched=False)
EVENT: Final = Kind("events.k8s.io", "v1", "Event", "events", watched=False)
POD: Final = Kind("", "v1", "Pod", "pods", watched=False)
VOLUME_CLAIM: Final = Kind("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", watched=False)
DEPLOYMENT: Final = Kind("apps", "v1", "Deployment", "deployments")
STATEFUL_SET: Final = Kind("apps", "v1", "StatefulSet", "statefulsets")
JOB: Final = Kind("batch", "v1", "Job", "jobs")
AUTOSCALER: Final = Kind("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers")
DISRUPTION_BUDGET: Final = Kind("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets")
NETWORK_POLICY: Final = Kind("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies")
ENDPOINT_SLICE: Final = Kind("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices")
ROLE: Final = Kind("rbac.authorization.k8s.io", "v1", "Role", "roles")
ROLE_BINDING: Final = Kind("rbac.authorization.k8s.io", "v1", "RoleBinding", "rolebindings")

SCALED_OBJECT: Final = Kind("keda.sh", "v1alpha1", "ScaledObject", "scaledobjects", watched=False)
HTTP_ROUTE: Final = Kind("gateway.networking.k8s.io", "v1", "HTTPRoute", "httproutes", watched=False)
"""Of APIs that a cluster may not serve: see `discovery`."""

ALL: Final = (
    *CUSTOM,
    CONFIG_MAP,
    SERVICE,
    SERVICE_ACCOUNT,
    SECRET,
    EVENT,
    POD,
    VOLUME_CLAIM,
    DEPLOYMENT,
    STATEFUL_SET,
    JOB,
    AUTOSCALER,
    DISRUPTION_BUDGET,
    NETWORK_POLICY,
    ENDPOINT_SLICE,
    ROLE,
    ROLE_BINDING,
    SCALED_OBJECT,
    HTTP_ROUTE,
)
LEASE: Final = Kind("coordination.k8s.io", "v1", "Lease", "leases", watched=False)
"""Which operator writes: no platform has one."""
WATCHED: Final = tuple(kind for kind in ALL if kind.watched)
_BY_TYPE: Final = {(kind.api_version, kind.kind): kind for kind in ALL}
_BY_NAME: Final = {kind.kind: kind for kind in (*ALL, LEASE)}


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """Which object: kind, namespace and name."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"

    @property
    def type(self) -> Kind:
        """The row of this kind."""
        return _BY_NAME[self.kind]


def kind_of(manifest: Manifest) -> Kind:
    """The row of a manifest's kind.

    Raises:
        KeyError: A kind the operator does not know.
    """
    return _BY_TYPE[manifest["apiVersion"], manifest["kind"]]


def key_of(manifest: Manifest) -> Key:
    """The key of a manifest that names its namespace."""
    metadata = manifest["metadata"]
    return Key(manifest["kind"], metadata["namespace"], metadata["name"])


def is_paused(platform: Manifest) -> bool:
    """Whether nothing of a Platform may be changed."""
    return bool((platform["metadata"].get("annotations") or {}).get(PAUSED_ANNOTATION) == "true")


def platform_of(manifest: Manifest) -> str | None:
    """Name of the Platform that an object belongs to by its label, or, a LoadTest, by what it tests."""
    name: str | None = manifest["metadata"].get("labels", {}).get(PLATFORM_LABEL)
    if manifest["kind"] == LOAD_TEST.kind:
        name = manifest["spec"].get("platformRef", {}).get("name")
    return name


def owner_of(manifest: Manifest) -> Key | None:
    """The custom resource of ours that controls this object."""
    for reference in manifest["metadata"].get("ownerReferences", ()):
        if reference.get("controller") and reference["apiVersion"].partition("/")[0] == GROUP:
            return Key(reference["kind"], manifest["metadata"]["namespace"], reference["name"])
    return None
