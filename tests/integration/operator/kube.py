"""The tests' own way to the API server."""

from __future__ import annotations

import base64
import secrets
import ssl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml

Manifest = dict[str, Any]
PLURALS = {
    "Namespace": ("api/v1", "namespaces"),
    "Secret": ("api/v1", "secrets"),
    "Service": ("api/v1", "services"),
    "ConfigMap": ("api/v1", "configmaps"),
    "Pod": ("api/v1", "pods"),
    "Event": ("api/v1", "events"),
    "ServiceAccount": ("api/v1", "serviceaccounts"),
    "PersistentVolumeClaim": ("api/v1", "persistentvolumeclaims"),
    "Deployment": ("apis/apps/v1", "deployments"),
    "StatefulSet": ("apis/apps/v1", "statefulsets"),
    "Job": ("apis/batch/v1", "jobs"),
    "HorizontalPodAutoscaler": ("apis/autoscaling/v2", "horizontalpodautoscalers"),
    "PodDisruptionBudget": ("apis/policy/v1", "poddisruptionbudgets"),
    "NetworkPolicy": ("apis/networking.k8s.io/v1", "networkpolicies"),
    "EndpointSlice": ("apis/discovery.k8s.io/v1", "endpointslices"),
    "Role": ("apis/rbac.authorization.k8s.io/v1", "roles"),
    "RoleBinding": ("apis/rbac.authorization.k8s.io/v1", "rolebindings"),
    "ClusterRole": ("apis/rbac.authorization.k8s.io/v1", "clusterroles"),
    "ClusterRoleBinding": ("apis/rbac.authorization.k8s.io/v1", "clusterrolebindings"),
    "CustomResourceDefinition": ("apis/apiextensions.k8s.io/v1", "customresourcedefinitions"),
    "Platform": ("apis/fanfold.dev/v1alpha1", "platforms"),
    "PlatformService": ("apis/fanfold.dev/v1alpha1", "platformservices"),
    "HashRing": ("apis/fanfold.dev/v1alpha1", "hashrings"),
    "LoadTest": ("apis/fanfold.dev/v1alpha1", "loadtests"),
    "ScaledObject": ("apis/keda.sh/v1alpha1", "scaledobjects"),
    "HTTPRoute": ("apis/gateway.networking.k8s.io/v1", "httproutes"),
}
CLUSTER_WIDE = {"Namespace", "CustomResourceDefinition", "ClusterRole", "ClusterRoleBinding"}


class Kube:
    """A client of its own for the tests, so that the operator's is not tested by itself."""

    def __init__(self, kubeconfig: Path) -> None:
        loaded = yaml.safe_load(kubeconfig.read_text())
        cluster, user = loaded["clusters"][0]["cluster"], loaded["users"][0]["user"]
        with tempfile.NamedTemporaryFile() as file:
            for name in ("client-certificate-data", "client-key-data"):
                file.write(base64.b64decode(user[name]))
            file.flush()
            authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
            context = ssl.create_default_context(cadata=authority)
            context.load_cert_chain(file.name)
        self.client = httpx.Client(base_url=cluster["server"], verify=context, timeout=30, trust_env=False)

    def call(self, method: str, path: str, body: Any = None, content: str = "application/json", **query: str) -> Any:
        answer = self.client.request(method, path, json=body, params=query, headers={"Content-Type": content})
        assert answer.status_code < 300, answer.json()["message"]
        return answer.json()

    def path(self, kind: str, namespace: str, name: str = "") -> str:
        prefix, plural = PLURALS[kind]
        middle = "" if kind in CLUSTER_WIDE else f"/namespaces/{namespace}"
        return f"/{prefix}{middle}/{plural}" + (f"/{name}" if name else "")

    def get(self, kind: str, namespace: str, name: str) -> Manifest | None:
        answer = self.client.get(self.path(kind, namespace, name))
        return None if answer.status_code == 404 else answer.raise_for_status().json()

    def list(self, kind: str, namespace: str) -> list[Manifest]:
        items: list[Manifest] = self.call("GET", self.path(kind, namespace))["items"]
        return items

    def apply(self, manifest: Manifest, namespace: str = "", manager: str = "tests", **query: str) -> Manifest:
        name = manifest["metadata"]["name"]
        path = self.path(manifest["kind"], namespace, name)
        content = "application/apply-patch+yaml"
        answer: Manifest = self.call("PATCH", path, manifest, content, fieldManager=manager, **query)
        return answer

    def patch(self, kind: str, namespace: str, name: str, body: Any, subresource: str = "", **query: str) -> Manifest:
        path = self.path(kind, namespace, name) + subresource
        answer: Manifest = self.call("PATCH", path, body, "application/merge-patch+json", **query)
        return answer

    def delete(self, kind: str, namespace: str, name: str) -> None:
        self.call("DELETE", self.path(kind, namespace, name), {"propagationPolicy": "Background"})


@contextmanager
def made_namespace(kube: Kube) -> Iterator[str]:
    """One that nobody else uses; its deletion is begun at the end, and not waited for."""
    name = f"test-{secrets.token_hex(4)}"
    kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    yield name
    kube.delete("Namespace", "", name)
