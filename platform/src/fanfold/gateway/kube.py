"""One object of the Kubernetes API, read and watched. A client library for all of it takes 26 MB and two seconds.

In a pod the service account's token and certificate authority are files, which the kubelet renews; elsewhere a
kubeconfig says where the API server is and who asks.
"""

from __future__ import annotations

import base64
import os
import ssl
import tempfile
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import httpx
import msgspec

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
WATCH_SECONDS: Final = 300
"""The API server ends a watch after this; a new one begins at once."""
SILENCE_SECONDS: Final = 75.0
"""The API server sends a bookmark every minute; a watch without any is dead, however open its connection looks."""
API_SECONDS: Final = 5.0
_ERROR_BYTES: Final = 500


class KubeError(Exception):
    """The API server refused, or there is no way to it; the message says why."""


class ConfigMap(msgspec.Struct, frozen=True):
    """What is read of a ConfigMap."""

    data: dict[str, str] | None = None


class _Event(msgspec.Struct, frozen=True):
    type: str
    object: msgspec.Raw


@dataclass(frozen=True, slots=True)
class Access:
    """How to reach the API server.

    Attributes:
        server: Base URL.
        context: With its certificate authority and, if there is one, our certificate.
        token: The bearer token as it is now; empty for none.
    """

    server: str
    context: ssl.SSLContext
    token: Callable[[], str]

    @classmethod
    def find(cls) -> Self:
        """Of the pod, unless ``KUBECONFIG`` or no pod says otherwise.

        Raises:
            KubeError: There is neither.
        """
        host = os.environ.get("KUBERNETES_SERVICE_HOST")
        if host and "KUBECONFIG" not in os.environ:
            return cls._of_pod(host, os.environ.get("KUBERNETES_SERVICE_PORT", "443"))
        path = Path(os.environ.get("KUBECONFIG") or Path.home() / ".kube" / "config")
        try:
            return cls._of_kubeconfig(path)
        except (OSError, KeyError, TypeError, ValueError, StopIteration) as error:
            raise KubeError(f"not in a pod, and {path} is no usable kubeconfig: {error!r}") from error

    @classmethod
    def _of_pod(cls, host: str, port: str) -> Self:
        address = f"[{host}]" if ":" in host else host
        try:
            context = ssl.create_default_context(cafile=str(SERVICE_ACCOUNT / "ca.crt"))
        except OSError as error:
            raise KubeError(f"no certificate authority in {SERVICE_ACCOUNT}: {error}") from error
        # Read for each call: a file of the page cache, renewed before it expires.
        return cls(f"https://{address}:{port}", context, (SERVICE_ACCOUNT / "token").read_text)

    @classmethod
    def _of_kubeconfig(cls, path: Path) -> Self:
        import yaml  # noqa: PLC0415 - for development; a gateway in a pod has no use for it

        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
        wanted = _named(loaded["contexts"], loaded["current-context"])["context"]
        cluster = _named(loaded["clusters"], wanted["cluster"])["cluster"]
        user = _named(loaded["users"], wanted["user"])["user"]
        if "exec" in user or "auth-provider" in user:
            raise ValueError("this reader knows tokens and certificates, no login programs")
        authority = _content(cluster, "certificate-authority", path)
        context = ssl.create_default_context(cadata=authority.decode() if authority else None)
        certificate, key = _content(user, "client-certificate", path), _content(user, "client-key", path)
        if certificate and key:
            with tempfile.NamedTemporaryFile() as file:  # mode 0600; OpenSSL takes keys from files only
                file.write(certificate + b"\n" + key)
                file.flush()
                context.load_cert_chain(file.name)
        token = user.get("token", "")
        return cls(cluster["server"], context, lambda: token)


class ConfigMapApi:
    """One ConfigMap. Needs ``get`` and ``watch`` on that one name (RBAC ``resourceNames``).

    A watch with the field selector ``metadata.name`` is authorized by name. Without a resource version it begins with
    the object as it is, so there is nothing to list, and no version that could be too old.
    """

    def __init__(self, access: Access, namespace: str, name: str) -> None:
        self._token = access.token
        self._path = f"/api/v1/namespaces/{namespace}/configmaps"
        self._name = name
        self._client = httpx.AsyncClient(
            base_url=access.server, verify=access.context, timeout=API_SECONDS, trust_env=False
        )

    async def read(self) -> ConfigMap:
        """As it is now.

        Raises:
            KubeError: The API server refused.
            httpx.TransportError: It could not be reached.
        """
        answer = await self._client.get(f"{self._path}/{self._name}", headers=self._headers())
        if answer.is_error:
            raise KubeError(_refusal(answer.status_code, answer.content))
        return msgspec.json.decode(answer.content, type=ConfigMap)

    async def watch(self) -> AsyncIterator[ConfigMap | None]:
        """As it is and after each change, None when it was deleted; ends when the API server ends the watch.

        Raises:
            KubeError: The API server refused, or broke the watch off.
            httpx.TransportError: It could not be reached, or fell silent.
        """
        async with self._stream() as answer:
            async for line in answer.aiter_lines():
                event = msgspec.json.decode(line, type=_Event)
                if event.type in {"ADDED", "MODIFIED"}:
                    yield msgspec.json.decode(event.object, type=ConfigMap)
                elif event.type == "DELETED":
                    yield None
                elif event.type == "ERROR":
                    raise KubeError(_refusal(answer.status_code, bytes(event.object)))

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    @asynccontextmanager
    async def _stream(self) -> AsyncIterator[httpx.Response]:
        query = {
            "watch": "true",
            "fieldSelector": f"metadata.name={self._name}",
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(WATCH_SECONDS),
        }
        patience = httpx.Timeout(API_SECONDS, read=SILENCE_SECONDS)
        headers = self._headers()
        async with self._client.stream("GET", self._path, params=query, headers=headers, timeout=patience) as answer:
            if answer.is_error:
                raise KubeError(_refusal(answer.status_code, await answer.aread()))
            yield answer

    def _headers(self) -> dict[str, str]:
        # The API server compresses watches too, and an event then waits in the compressor for the next one.
        plain = {"accept-encoding": "identity"}
        token = self._token().strip()
        return plain | {"authorization": f"Bearer {token}"} if token else plain


def _named(entries: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return next(entry for entry in entries if entry["name"] == name)


def _content(entry: dict[str, str], field: str, kubeconfig: Path) -> bytes | None:
    """A certificate or key that stands in the kubeconfig, or in a file it names."""
    if f"{field}-data" in entry:
        return base64.b64decode(entry[f"{field}-data"])
    return (kubeconfig.parent / entry[field]).read_bytes() if field in entry else None


def _refusal(status: int, body: bytes) -> str:
    try:
        message = msgspec.json.decode(body)["message"]
    except (msgspec.DecodeError, KeyError, TypeError):
        message = body[:_ERROR_BYTES].decode(errors="replace")
    return f"the API server answers {status}: {message}"
