"""What every pod of the platform has in common: no privileges, a read-only root, secrets as files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from fanfold.contracts.resources import Quantity, SecretFile

USER: Final = 65532
"""The images' only user, `nonroot` of the distroless images."""
SECRETS_DIR: Final = "/run/fanfold/secrets"

CONTAINER_SECURITY: Final[dict[str, Any]] = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
POD_SECURITY: Final[dict[str, Any]] = {
    "runAsNonRoot": True,
    "runAsUser": USER,
    "runAsGroup": USER,
    "fsGroup": USER,
    "fsGroupChangePolicy": "OnRootMismatch",
    "seccompProfile": {"type": "RuntimeDefault"},
}


def resources(requests: Mapping[str, Quantity], limits: Mapping[str, Quantity]) -> dict[str, Any]:
    """Requests and limits of a container."""
    return {"requests": dict(requests), "limits": dict(limits)}


def secrets_volume(files: Iterable[SecretFile]) -> dict[str, Any]:
    """A folder of exactly these secrets, whichever Secrets they come from; readable by the pod's group only."""
    by_secret: dict[str, list[dict[str, str]]] = {}
    for one in files:
        by_secret.setdefault(one.secret, []).append({"key": one.key, "path": one.file})
    sources = [{"secret": {"name": name, "items": items}} for name, items in by_secret.items()]
    return {"name": "secrets", "projected": {"defaultMode": 0o440, "sources": sources}}


def scratch(size: str) -> dict[str, Any]:
    """The pod's own /tmp."""
    return {"name": "tmp", "emptyDir": {"sizeLimit": size}}


MOUNTS: Final[list[dict[str, Any]]] = [
    {"name": "secrets", "mountPath": SECRETS_DIR, "readOnly": True},
    {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - a path in the pod, on a volume of its own
]


def pod_template(
    labels: Mapping[str, str], container: Mapping[str, Any], volumes: list[dict[str, Any]], **spec: Any
) -> dict[str, Any]:
    """A pod with one container, shut in as far as it goes; `spec` holds further fields of the pod."""
    return {
        "metadata": {"labels": dict(labels)},
        "spec": {
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": POD_SECURITY,
            "containers": [{**container, "securityContext": CONTAINER_SECURITY}],
            "volumes": volumes,
            **spec,
        },
    }
