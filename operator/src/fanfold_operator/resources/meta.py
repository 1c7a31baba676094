"""Names, labels and owner references, one rule for all objects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fanfold.contracts.resources import PLATFORM_LABEL, SERVICE_LABEL

if TYPE_CHECKING:
    from fanfold_operator.kinds import Kind, Manifest

MANAGER: Final = "fanfold-operator"
MIGRATIONS: Final = "migrations"
POSTGRESQL: Final = "postgresql"
VALKEY: Final = "valkey"
OBJECT_STORE: Final = "objectstore"
PROMETHEUS: Final = "prometheus"
LOAD_TEST: Final = "loadtest"
CANARY: Final = "canary"
"""Of the chart, not of the operator: it only names it to Prometheus."""
SEED: Final = "seed"
GATE: Final = "gate"


def child_name(platform: str, component: str) -> str:
    """``<platform>-<component>``: Deployment, Service, PlatformService and the rest of one component."""
    return f"{platform}-{component}"


def credentials_name(platform: str) -> str:
    """The Secret with everything the operator generated."""
    return child_name(platform, "credentials")


def snapshot_name(platform: str) -> str:
    """The ConfigMap with the snapshot."""
    return child_name(platform, "snapshot")


def selector(platform: str, component: str) -> dict[str, str]:
    """The labels that select a component's pods; never changed, for selectors are immutable."""
    return {PLATFORM_LABEL: platform, SERVICE_LABEL: component}


def labels(platform: str, component: str, version: str | None = None) -> dict[str, str]:
    """Recommended labels of Kubernetes, and our own."""
    recommended = {
        "app.kubernetes.io/name": "fanfold",
        "app.kubernetes.io/instance": platform,
        "app.kubernetes.io/component": component,
        "app.kubernetes.io/part-of": "fanfold",
        "app.kubernetes.io/managed-by": MANAGER,
    }
    if version:
        recommended["app.kubernetes.io/version"] = version
    return recommended | selector(platform, component)


def owner_reference(owner: Manifest) -> dict[str, Any]:
    """Makes Kubernetes delete the child with its owner."""
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def manifest(  # noqa: PLR0913 - all that an object's head is made of, by keyword
    kind: Kind,
    owner: Manifest,
    name: str,
    *,
    platform: str,
    component: str,
    version: str | None = None,
    owned: bool = True,
    **body: Any,
) -> Manifest:
    """An object of `owner` in its namespace."""
    metadata: dict[str, Any] = {
        "name": name,
        "namespace": owner["metadata"]["namespace"],
        "labels": labels(platform, component, version),
    }
    if owned:
        metadata["ownerReferences"] = [owner_reference(owner)]
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata, **body}
