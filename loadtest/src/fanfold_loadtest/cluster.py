"""What a scenario does to the platform that it loads: scale a service, restart a pod, upgrade. Through Kubernetes.

Everything is asked for as a person would, on the Platform or on pods; the operator does it. What was changed for the
run is put back at its end; an upgrade stays.
"""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

import msgspec

from fanfold_loadtest.recording import Mark
from fanfold_loadtest.scenario import RestartPod, Scale

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from fanfold_loadtest.scenario import ClusterEvent

GROUP: Final = "/apis/fanfold.dev/v1alpha1"
PLATFORM_LABEL: Final = "fanfold.dev/platform"
SERVICE_LABEL: Final = "fanfold.dev/service"
RESTARTED: Final = "kubectl.kubernetes.io/restartedAt"
MANAGER: Final = "fanfold-loadtest"
MERGE: Final = "application/merge-patch+json"
GATEWAY: Final = "gateway"
CALL_SECONDS: Final = 10.0
EFFECT_SECONDS: Final = 240.0
"""For a service to run what was asked for; an upgrade has as long as the load lasts."""
LOOK_SECONDS: Final = 1.0
_IN_POD: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


class Tell(Protocol):
    """Called with each step; `at` when it was taken, in Unix time, if not now."""

    def __call__(self, what: str, at: float | None = None) -> None:
        """Take note."""


class Actor(Protocol):
    """Who does to the platform what a scenario asks for. An async context manager."""

    async def __aenter__(self) -> Self:
        """Be ready.

        Raises:
            ClusterError: It cannot act.
        """

    async def __aexit__(self, *_: object) -> None:
        """Put back what was changed for the run."""

    async def act(self, event: ClusterEvent, tell: Tell) -> None:
        """Do it and wait for its effect; each step is told.

        Raises:
            ClusterError: Refused, or without effect in time.
        """


class ClusterError(Exception):
    """The cluster cannot be reached, or refused; the message is one line and says what to do."""


@dataclass(frozen=True, slots=True)
class Target:
    """The Platform to act on.

    Attributes:
        platform: ``NAME`` or ``NAMESPACE/NAME``.
        kubeconfig: A file; without one, the pod's service account, ``KUBECONFIG`` or ``~/.kube/config``.
        version: What an upgrade goes to; empty: every service is restarted instead, one after the other.
    """

    platform: str
    kubeconfig: str | None = None
    version: str = ""


@dataclass(slots=True)
class Cluster:
    """One Platform in its cluster. An async context manager, which looks for the Platform first.

    Raises:
        ClusterError: No client library, no access, or no such Platform.
    """

    target: Target
    _client: Any = None
    _namespace: str = ""
    _name: str = ""
    _original: dict[str, Any] = field(default_factory=dict)

    async def __aenter__(self) -> Self:
        self._client, namespace = await _login(self.target.kubeconfig)
        place, _, self._name = self.target.platform.rpartition("/")
        self._namespace = place or namespace
        try:
            await self._platform()
        except ClusterError:
            await self._client.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            await self.restore()
        finally:
            await self._client.close()

    async def act(self, event: ClusterEvent, tell: Tell) -> None:
        """Do it and wait for its effect; each step is told.

        Raises:
            ClusterError: Refused, or without effect in time.
        """
        if isinstance(event, Scale):
            await self._scale(event.service, event.by, tell)
        elif isinstance(event, RestartPod):
            await self._restart_pod(event.service, tell)
        elif self.target.version:
            await self._upgrade(self.target.version, tell)
        else:
            await self._restart_all(tell)

    async def restore(self) -> None:
        """Put back the replicas that there were."""
        while self._original:
            service, replicas = self._original.popitem()
            await self._set_replicas(service, replicas)

    async def _scale(self, service: str, by: int, tell: Tell) -> None:
        now = (await self._service(service)).get("status", {}).get("replicas", 0)
        wanted = max(1, now + by)
        platform = await self._platform()
        self._original.setdefault(service, _part(platform["spec"], service).get("replicas"))
        await self._set_replicas(service, {"min": wanted, "max": wanted})
        tell(f"{service} to {wanted} replicas")

        async def there() -> bool:
            status = (await self._service(service)).get("status", {})
            return bool(status.get("replicas") == wanted and status.get("ready") == f"{wanted}/{wanted}")

        await _until(there, EFFECT_SECONDS, f"{service} did not run {wanted} replicas")
        tell(f"{service} has {wanted}")

    async def _set_replicas(self, service: str, replicas: Any) -> None:
        body = {"gateway": {"replicas": replicas}}
        if service != GATEWAY:
            body = {"services": {service: {"replicas": replicas}}}
        await self._patch_platform({"spec": body})

    async def _restart_pod(self, service: str, tell: Tell) -> None:
        pods = await self._list(f"/api/v1/namespaces/{self._namespace}/pods", service)
        alive = [pod["metadata"]["name"] for pod in pods if "deletionTimestamp" not in pod["metadata"]]
        if not alive:
            raise ClusterError(f"{service} has no pod to restart")
        await self._call("DELETE", f"/api/v1/namespaces/{self._namespace}/pods/{min(alive)}")
        tell(f"a pod of {service} goes")

    async def _restart_all(self, tell: Tell) -> None:
        """As an upgrade goes: workers, services, the gateway last."""
        path = f"/apis/apps/v1/namespaces/{self._namespace}/deployments"
        found = await self._list(path, None)
        services = {one["metadata"]["labels"][SERVICE_LABEL]: one["metadata"]["name"] for one in found}
        for service in sorted(services, key=lambda name: (name == GATEWAY, not name.endswith("-worker"), name)):
            tell(f"{service} restarts")
            stamp = {RESTARTED: datetime.now(UTC).isoformat()}
            body = {"spec": {"template": {"metadata": {"annotations": stamp}}}}
            await self._call("PATCH", f"{path}/{services[service]}", body)

            async def rolled_out(name: str = services[service]) -> bool:
                return _rolled_out(await self._call("GET", f"{path}/{name}"))

            await _until(rolled_out, EFFECT_SECONDS, f"{service} was not restarted")
        tell("all are restarted")

    async def _upgrade(self, version: str, tell: Tell) -> None:
        before = (await self._platform()).get("status", {}).get("version")
        if before == version:
            raise ClusterError(f"the Platform is at version {version} already")
        await self._patch_platform({"spec": {"version": version}})
        tell(f"upgrade to {version}")
        seen = ""
        while True:
            status = (await self._platform()).get("status", {})
            upgrade = status.get("upgrade", {})
            phase = upgrade.get("phase", "")
            if upgrade.get("to") == version and phase != seen:
                tell(f"upgrade: {phase}")
                seen = phase
            if seen in {"RolledBack", "Refused"}:
                raise ClusterError(f"the upgrade to {version} ended with {seen}: {upgrade.get('message', '')}")
            if seen == "Completed" or status.get("version") == version:
                return
            await asyncio.sleep(LOOK_SECONDS)

    async def _platform(self) -> dict[str, Any]:
        return await self._call("GET", f"{GROUP}/namespaces/{self._namespace}/platforms/{self._name}")

    async def _service(self, service: str) -> dict[str, Any]:
        path = f"{GROUP}/namespaces/{self._namespace}/platformservices/{self._name}-{service}"
        return await self._call("GET", path)

    async def _patch_platform(self, body: dict[str, Any]) -> None:
        await self._call("PATCH", f"{GROUP}/namespaces/{self._namespace}/platforms/{self._name}", body)

    async def _list(self, path: str, service: str | None) -> list[dict[str, Any]]:
        selector = f"{PLATFORM_LABEL}={self._name},{SERVICE_LABEL}" + (f"={service}" if service else "")
        items: list[dict[str, Any]] = (await self._call("GET", path, labelSelector=selector))["items"]
        return items

    async def _call(self, method: str, path: str, body: Any = None, **query: str) -> dict[str, Any]:
        if method == "PATCH":
            query["fieldManager"] = MANAGER
        try:
            async with asyncio.timeout(CALL_SECONDS):
                request = await self._client.param_serialize(
                    method,
                    path,
                    query_params=list(query.items()),
                    header_params={"Accept": "application/json", "Content-Type": MERGE},
                    body=body,
                    auth_settings=["BearerToken"],
                )
                answer = await self._client.call_api(*request, _request_timeout=CALL_SECONDS)
                data = await answer.read()
        except (OSError, TimeoutError) as error:  # aiohttp's are among them
            raise ClusterError(f"no answer from the API server: {error or type(error).__name__}") from error
        if answer.status >= 300:
            raise ClusterError(f"the API server refused ({answer.status}): {_message(data)}")
        content: dict[str, Any] = msgspec.json.decode(data)
        return content


@dataclass(slots=True)
class Acts:
    """What was done, in seconds from the beginning of the load, and what could not be, a sentence each."""

    marks: list[Mark] = field(default_factory=list)
    mishaps: list[str] = field(default_factory=list)


@asynccontextmanager
async def acting(
    actor: Actor | None, events: Sequence[tuple[float, ClusterEvent]], begin_at: float
) -> AsyncIterator[Acts]:
    """Do each event at its time, in seconds from ``begin_at`` (Unix time), while the block lasts."""
    acts = Acts()
    if actor is None:
        yield acts
        return

    def tell(what: str, at: float | None = None) -> None:
        acts.marks.append(Mark(max(0.0, (at or time.time()) - begin_at), what))

    async def one(at: float, event: ClusterEvent) -> None:
        try:
            await asyncio.sleep(max(0.0, begin_at + at - time.time()))
            await actor.act(event, tell)
        except ClusterError as error:
            acts.mishaps.append(f"{_name(event)}: {error}")
        except asyncio.CancelledError:
            acts.mishaps.append(f"{_name(event)}: not done when the load had ended")
            raise

    tasks = [asyncio.create_task(one(at, event)) for at, event in events]
    try:
        yield acts
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _name(event: ClusterEvent) -> str:
    return f"{event.__struct_config__.tag} {getattr(event, 'service', '')}".strip()


async def _login(kubeconfig: str | None) -> tuple[Any, str]:
    """A client, and the namespace that goes without saying."""
    try:
        from kubernetes.aio import config  # noqa: PLC0415 - an extra, 100 MB: most runs need none
        from kubernetes.aio.client.api_client import ApiClient  # noqa: PLC0415
        from kubernetes.aio.client.configuration import Configuration  # noqa: PLC0415
    except ImportError as error:
        raise ClusterError("acting on a cluster needs the extra fanfold-loadtest[cluster]") from error
    configuration = Configuration()
    named = kubeconfig or os.environ.get("KUBECONFIG")
    file = named or str(Path.home() / ".kube" / "config")
    try:
        if "KUBERNETES_SERVICE_HOST" in os.environ and not named and _IN_POD.exists():
            config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
            return ApiClient(configuration), _IN_POD.read_text().strip()
        await config.load_kube_config(file, client_configuration=configuration)  # type: ignore[no-untyped-call]
        _, active = config.list_kube_config_contexts(file)  # type: ignore[no-untyped-call]
    except config.ConfigException as error:
        raise ClusterError(f"no access to Kubernetes by {file}: {error}; give --kubeconfig") from error
    return ApiClient(configuration), str(active["context"].get("namespace") or "default")


def _part(spec: dict[str, Any], service: str) -> dict[str, Any]:
    part = spec.get("gateway") if service == GATEWAY else spec.get("services", {}).get(service)
    return part or {}


def _rolled_out(deployment: dict[str, Any]) -> bool:
    status, wanted = deployment.get("status", {}), deployment["spec"].get("replicas", 1)
    counts = {status.get(name, 0) for name in ("replicas", "updatedReplicas", "availableReplicas")}
    return status.get("observedGeneration", 0) >= deployment["metadata"]["generation"] and counts <= {wanted}


async def _until(holds: Callable[[], Any], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not await holds():
        if time.monotonic() > deadline:
            raise ClusterError(f"{what} within {seconds:g} s")
        await asyncio.sleep(LOOK_SECONDS)


def _message(data: bytes) -> str:
    try:
        return str(msgspec.json.decode(data)["message"])
    except (msgspec.DecodeError, KeyError, TypeError):
        return data[:200].decode(errors="replace")
