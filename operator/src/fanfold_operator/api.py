"""The Kubernetes API over the official asynchronous client: plain JSON in and out, every call counted and bounded."""

from __future__ import annotations

import asyncio
import os
import re
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import aiohttp
import msgspec
from kubernetes.aio import config
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration

from fanfold_operator import metrics
from fanfold_operator.fencing import Fence, FencedRest, NotLeadingError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from fanfold_operator.kinds import Key, Kind, Manifest

TIMEOUT_SECONDS: Final = 15.0
"""Most time one call may take; the reconcile is then tried again with backoff."""
RETRY_AFTER_SECONDS: Final = 60.0
"""Most that a ``Retry-After`` is heeded."""
PAGE: Final = 250
"""Objects listed with one call."""
APPLY: Final = "application/apply-patch+yaml"
MERGE: Final = "application/merge-patch+json"
_CONFLICT: Final = re.compile(r'conflict with "([^"]+)"')


class ApiError(Exception):
    """The API server refused, or could not be reached (`status` 0)."""

    def __init__(
        self,
        status: int,
        reason: str,
        message: str,
        details: Mapping[str, Any] | None = None,
        retry_after: float = 0.0,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message
        self.details = details or {}
        self.retry_after = retry_after
        """Seconds for which the server wants to be left alone."""

    @property
    def missing(self) -> bool:
        """Whether there is no such object."""
        return self.status == 404

    @property
    def namespace_ends(self) -> bool:
        """Whether nothing can be made because the namespace is being deleted."""
        return any(cause.get("reason") == "NamespaceTerminating" for cause in self.details.get("causes", ()))

    def conflicting_managers(self) -> dict[str, str]:
        """Fields another manager owns and that manager's name, of a refused server-side apply."""
        managers = {}
        for cause in self.details.get("causes", ()):
            found = _CONFLICT.search(cause.get("message", ""))
            if cause.get("reason") == "FieldManagerConflict" and found:
                managers[cause.get("field", "")] = found.group(1)
        return managers


class LoginError(Exception):
    """No usable way to the API server: the message says what was tried."""


async def login(kubeconfig: str | None = None, context: str | None = None) -> ApiClient:
    """A client from the pod's service account, or else from a kubeconfig.

    Args:
        kubeconfig: A file; then the service account does not count. Default: ``KUBECONFIG``, ``~/.kube/config``.
        context: Which context of it, if not the current one.

    Raises:
        LoginError: Neither is there or usable.
    """
    configuration = Configuration()
    named = kubeconfig or os.environ.get("KUBECONFIG")
    file = named or str(Path.home() / ".kube" / "config")
    try:
        if "KUBERNETES_SERVICE_HOST" in os.environ and not named and not context:
            config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        else:
            await config.load_kube_config(file, context, client_configuration=configuration)  # type: ignore[no-untyped-call]
    except config.ConfigException as error:
        raise LoginError(
            f"no access to Kubernetes: not in a pod, and {file} is no usable kubeconfig: {error}"
        ) from error
    return ApiClient(configuration)


class Api:
    """Calls that return what the server answered, or raise `ApiError`. Its writes pass the `fence`, if it has one."""

    def __init__(self, client: ApiClient, fence: Fence | None = None, user_agent: str | None = None) -> None:
        self._client = client
        self._fence = fence or Fence.open()
        if fence:
            client.rest_client = FencedRest(client.configuration, fence)
        if user_agent:
            client.user_agent = user_agent

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()  # type: ignore[no-untyped-call]

    async def get(self, key: Key) -> Manifest:
        """One object."""
        return await self._call("GET", key.type.path(key.namespace, key.name), key.kind)

    async def list(self, kind: Kind, namespace: str | None, selector: str | None = None) -> Manifest:
        """A list of what the operator may care about of one kind, in one namespace or in all (None).

        `selector` is a label selector in place of the kind's own.
        """
        pages = [page async for page in self.pages(kind, namespace, selector)]
        return {**pages[-1], "items": [item for page in pages for item in page["items"]]}

    async def pages(self, kind: Kind, namespace: str | None, selector: str | None = None) -> AsyncIterator[Manifest]:
        """The same in pages, all as of one version: a thousand Deployments at once are 100 MB of Python's objects."""
        chosen = selector or kind.label_selector
        query = {"limit": str(PAGE)} | ({"labelSelector": chosen} if chosen else {})
        while True:
            page = await self._call("GET", kind.path(namespace), kind.kind, query=query)
            yield page
            token = page["metadata"].get("continue")
            if not token:
                return
            query["continue"] = token

    async def resources(self, api_version: str) -> frozenset[str]:
        """Names of the resources that ``group/version`` has; none if it is not served."""
        try:
            answer = await self._call("GET", f"/apis/{api_version}", "APIResourceList")
        except ApiError as error:
            if error.missing:
                return frozenset()
            raise
        return frozenset(one["name"] for one in answer.get("resources") or ())

    async def create(self, key: Key, body: Manifest, manager: str) -> Manifest:
        """Create; 409 if it is there."""
        return await self._call("POST", key.type.path(key.namespace), key.kind, {"fieldManager": manager}, body)

    async def apply(
        self, key: Key, body: Manifest, manager: str, *, force: bool = False, subresource: str | None = None
    ) -> Manifest:
        """Server-side apply; 409 with the conflicting fields if another manager owns one and not `force`."""
        query = {"fieldManager": manager, "force": str(force).lower()}
        path = key.type.path(key.namespace, key.name, subresource)
        return await self._call("PATCH", path, key.kind, query, body, APPLY)

    async def merge(self, key: Key, body: Manifest, manager: str, subresource: str | None = None) -> Manifest:
        """JSON merge patch (RFC 7396); 409 if the body has a resourceVersion that is not the object's any more."""
        path = key.type.path(key.namespace, key.name, subresource)
        return await self._call("PATCH", path, key.kind, {"fieldManager": manager}, body, MERGE)

    async def replace(self, key: Key, body: Manifest, manager: str) -> Manifest:
        """Put in its place what `body` says; 409 if the object is not of the body's resourceVersion any more."""
        return await self._call(
            "PUT", key.type.path(key.namespace, key.name), key.kind, {"fieldManager": manager}, body
        )

    async def delete(self, key: Key, uid: str, *, propagation: str = "Background") -> None:
        """Delete this very object, and what it owns: in the background, or first (Foreground). Gone already is fine."""
        body = {"propagationPolicy": propagation, "preconditions": {"uid": uid}}
        try:
            await self._call("DELETE", key.type.path(key.namespace, key.name), key.kind, body=body)
        except ApiError as error:
            if not error.missing:
                raise

    async def evict(self, pod: Key) -> None:
        """Have a pod go as a drained node has it. Gone already is fine; 429: its disruption budget says no."""
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod.name}}
        path = pod.type.path(pod.namespace, pod.name, "eviction")
        try:
            await self._call("POST", path, pod.kind, body=body)
        except ApiError as error:
            if not error.missing:
                raise

    @asynccontextmanager
    async def open(self, path: str, seconds: float | None, **query: str) -> AsyncIterator[aiohttp.ClientResponse]:
        """GET what is no JSON, or has no end: its body is read as it comes, within `seconds` in all (None: no limit).

        Raises:
            ApiError: Refused, not reached, or broken off.
        """
        request = await self._client.param_serialize(
            "GET", quote(path), query_params=list(query.items()), header_params={}, auth_settings=["BearerToken"]
        )
        timeout = aiohttp.ClientTimeout(total=seconds, sock_connect=TIMEOUT_SECONDS)
        try:
            answer = await self._client.call_api(*request, _request_timeout=timeout)
            async with answer.response as response:
                if not 200 <= response.status < 300:
                    raise _error(response.status, await response.read())
                yield response
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ApiError(0, "Unreachable", f"GET {path}: {type(error).__name__}: {error}") from error

    async def _call(  # noqa: PLR0913, PLR0917 - private, and all that a request consists of
        self,
        method: str,
        path: str,
        kind: str,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
    ) -> Manifest:
        request = await self._client.param_serialize(
            method,
            quote(path),
            query_params=list((query or {}).items()),
            header_params={"Accept": "application/json", "Content-Type": content_type},
            body=body,
            auth_settings=["BearerToken"],
        )
        try:
            with nullcontext(TIMEOUT_SECONDS) if method == "GET" else self._fence.writing() as seconds:
                async with asyncio.timeout(min(seconds, TIMEOUT_SECONDS)):
                    response = await self._client.call_api(*request, _request_timeout=TIMEOUT_SECONDS)
                    data: bytes = await response.read()  # type: ignore[no-untyped-call]
        except NotLeadingError as error:
            raise ApiError(0, "NotLeading", f"{method} {path}: {error}") from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            metrics.api_calls.labels(method, kind, "0").inc()
            raise ApiError(0, "Unreachable", f"{method} {path}: {type(error).__name__}: {error}") from error
        metrics.api_calls.labels(method, kind, str(response.status)).inc()
        if not 200 <= response.status < 300:
            raise _error(response.status, data, response.headers.get("Retry-After", ""))
        answer: Manifest = msgspec.json.decode(data)
        return answer


def _error(status: int, data: bytes, retry_after: str = "") -> ApiError:
    pause = min(float(retry_after), RETRY_AFTER_SECONDS) if retry_after.isdecimal() else 0.0
    try:
        answer = msgspec.json.decode(data)
        return ApiError(status, answer.get("reason", ""), answer.get("message", ""), answer.get("details"), pause)
    except (msgspec.DecodeError, AttributeError):
        return ApiError(status, "", data[:500].decode(errors="replace"), retry_after=pause)
