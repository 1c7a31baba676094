"""The way to the cluster, as kubectl goes it, and refusals in one line that says what to do."""

from __future__ import annotations

import asyncio
import difflib
import os
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
from kubernetes.aio import config

from fanfold.contracts.components import ADMIN_PORT
from fanfold.contracts.resources import PAUSED_ANNOTATION, PLATFORM_LABEL
from fanfold_operator import kinds
from fanfold_operator.api import Api, ApiError, LoginError, login
from fanfold_operator.companion.tree import Observed
from fanfold_operator.kinds import Key, Manifest
from fanfold_operator.resources import meta
from fanfold_operator.scrape import Scrape, parse

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection

MANAGER: Final = "kubectl-fanfold"
"""Field manager of the pause annotation when it is set from here."""
CONCURRENCY: Final = 16
METRICS_SECONDS: Final = 5.0
_IN_POD: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_NOT_INSTALLED: Final = (
    "this cluster has no custom resources of fanfold.dev: install the operator (helm install fanfold charts/fanfold), "
    "or choose another --context"
)


class CompanionError(Exception):
    """It cannot be done; the message is one line and says what to do."""


@dataclass(frozen=True, slots=True)
class Where:
    """Which cluster and namespace, by the options kubectl has too."""

    namespace: str | None = None
    all_namespaces: bool = False
    context: str | None = None
    kubeconfig: str | None = None


@asynccontextmanager
async def connected(where: Where) -> AsyncIterator[Cluster]:
    """The cluster for the time of the block.

    Raises:
        CompanionError: No access, or a call in the block was refused.
    """
    if not _in_pod(where) and not any(map(os.path.isfile, _kubeconfig(where).split(os.pathsep))):
        raise CompanionError(f"there is no kubeconfig {_kubeconfig(where)}: name one with --kubeconfig or KUBECONFIG")
    try:
        api = Api(await login(where.kubeconfig, where.context))
    except LoginError as error:
        raise CompanionError(str(error)) from error
    try:
        yield Cluster(api, None if where.all_namespaces else _namespace(where))
    except ApiError as error:
        raise CompanionError(advice(error)) from error
    finally:
        await api.close()


def advice(error: ApiError) -> str:
    """What to do about a refusal."""
    if error.status == 0:
        return f"no answer from the API server ({error.message}): is the cluster up, and the context the right one?"
    if error.status == 401:
        return "the API server does not know you (401): log in again, or choose another --context"
    if error.status == 403:
        return f"{error.message}: docs/cli.md has a Role with what each subcommand needs"
    return f"the API server refused ({error.status}): {error.message}"


class Cluster:
    """What is read and written; `namespace` None means all."""

    def __init__(self, api: Api, namespace: str | None) -> None:
        self._api = api
        self.namespace = namespace

    async def observe(self, name: str | None = None) -> Observed:
        """Platforms, one or all, with everything of them that is shown.

        Raises:
            CompanionError: The one is not there, or there are no custom resources at all.
        """
        if name is None:
            platforms, selector = await self.platforms(), PLATFORM_LABEL
        else:
            platforms, selector = [await self.platform(name)], f"{PLATFORM_LABEL}={name}"
        read = (kinds.PLATFORM_SERVICE, kinds.HASH_RING, kinds.POD)
        services, rings, pods = await asyncio.gather(*(self._list(kind, selector) for kind in read))
        return Observed(platforms, services, rings, pods)

    async def platform(self, name: str | None) -> Manifest:
        """A Platform by its name; without one the only one.

        Raises:
            CompanionError: Not there, or not the only one; the names there are, are given.
        """
        if name is not None and self.namespace is not None:
            try:
                return await self._api.get(Key(kinds.PLATFORM.kind, self.namespace, name))
            except ApiError as error:
                if not error.missing:
                    raise
        platforms = await self.platforms()
        fitting = [one for one in platforms if name in {None, one["metadata"]["name"]}]
        if len(fitting) == 1:
            return fitting[0]
        raise CompanionError(self._which(name, platforms, fitting))

    async def pods(self, platform: Manifest) -> list[Manifest]:
        """All pods of a platform."""
        metadata = platform["metadata"]
        selector = f"{PLATFORM_LABEL}={metadata['name']}"
        return _items(await self._api.list(kinds.POD, metadata["namespace"], selector), kinds.POD.kind)

    async def snapshot_map(self, platform: Manifest) -> Manifest | None:
        """The ConfigMap with the ring's snapshot."""
        metadata = platform["metadata"]
        try:
            name = meta.snapshot_name(metadata["name"])
            return await self._api.get(Key(kinds.CONFIG_MAP.kind, metadata["namespace"], name))
        except ApiError as error:
            if error.missing:
                return None
            raise

    async def again(self, platform: Manifest) -> Manifest:
        """The same Platform as it is now."""
        return await self._api.get(kinds.key_of(platform))

    async def set_paused(self, platform: Manifest, *, paused: bool) -> Manifest:
        """Write the pause annotation, or remove it."""
        value = "true" if paused else None
        body = {"metadata": {"annotations": {PAUSED_ANNOTATION: value}}}
        return await self._api.merge(kinds.key_of(platform), body, MANAGER)

    async def usage(self, platform: Manifest) -> Manifest:
        """PodMetrics of a platform's pods; empty where the cluster has no metrics API or it may not be read."""
        metadata = platform["metadata"]
        path = f"/apis/metrics.k8s.io/v1beta1/namespaces/{metadata['namespace']}/pods"
        try:
            selector = f"{PLATFORM_LABEL}={metadata['name']}"
            async with self._api.open(path, METRICS_SECONDS, labelSelector=selector) as answer:
                found: Manifest = msgspec.json.decode(await answer.read())
                return found
        except ApiError as error:
            if error.status in {403, 404, 503}:
                return {}
            raise

    async def metrics(self, namespace: str, pods: Collection[str], names: Collection[str]) -> dict[str, Scrape]:
        """The metrics of pods by their names, through the API server's proxy. A pod that does not answer says why."""
        turns = asyncio.Semaphore(CONCURRENCY)

        async def one(pod: str) -> Scrape:
            path = f"/api/v1/namespaces/{namespace}/pods/{pod}:{ADMIN_PORT}/proxy/metrics"
            try:
                async with turns, self._api.open(path, METRICS_SECONDS) as answer:
                    return Scrape(pod, parse(await answer.text(), names))
            except ApiError as error:
                if error.reason == "Forbidden":  # by the API server, for this pod as for all
                    raise
                return Scrape(pod, error=error.message.strip() or f"status {error.status}")
            except ValueError as error:
                return Scrape(pod, error=str(error))

        return dict(zip(pods, await asyncio.gather(*map(one, pods)), strict=True))

    @asynccontextmanager
    async def log(self, namespace: str, pod: str, **query: str) -> AsyncIterator[AsyncIterator[bytes]]:
        """Lines of a pod's log, with timestamps, as the API's query parameters ask for them."""
        path = f"/api/v1/namespaces/{namespace}/pods/{pod}/log"
        seconds = None if query.get("follow") else 60.0
        async with self._api.open(path, seconds, timestamps="true", **query) as answer:
            yield _lines(answer.content.iter_any())

    async def platforms(self) -> list[Manifest]:
        """All Platforms where we look.

        Raises:
            CompanionError: There are no custom resources of ours at all.
        """
        try:
            return await self._list(kinds.PLATFORM, None)
        except ApiError as error:
            if error.missing:
                raise CompanionError(_NOT_INSTALLED) from error
            raise

    async def _list(self, kind: kinds.Kind, selector: str | None) -> list[Manifest]:
        # Our own kinds are all read: few carry no label, and a label may be edited away.
        chosen = None if kind.custom else selector
        return _items(await self._api.list(kind, self.namespace, chosen), kind.kind)

    def _which(self, name: str | None, platforms: list[Manifest], fitting: list[Manifest]) -> str:
        place = f"namespace {self.namespace}" if self.namespace else "any namespace"
        names = sorted(one["metadata"]["name"] for one in platforms)
        if fitting:
            homes = ", ".join(f"{one['metadata']['namespace']}/{one['metadata']['name']}" for one in fitting)
            return f"there are several Platforms ({homes}): name one, and its namespace with -n"
        if not names:
            return f"there is no Platform in {place}: choose another with -n, or look at all with status -A"
        near = difflib.get_close_matches(name or "", names, 3) or names[:5]
        return f"there is no Platform {name!r} in {place}: did you mean {' or '.join(near)}?"


def _namespace(where: Where) -> str:
    """As kubectl: what is asked for, else the context's, else ``default``."""
    if where.namespace:
        return where.namespace
    if _in_pod(where):
        return _IN_POD.read_text().strip()
    contexts, active = config.list_kube_config_contexts(_kubeconfig(where))  # type: ignore[no-untyped-call]
    chosen = next((one for one in contexts if one["name"] == where.context), active)
    return str(chosen["context"].get("namespace") or "default")


def _in_pod(where: Where) -> bool:
    """Whether the way is a pod's service account, by the rule of `login`."""
    named = where.kubeconfig or where.context or os.environ.get("KUBECONFIG")
    return not named and "KUBERNETES_SERVICE_HOST" in os.environ and _IN_POD.exists()


def _kubeconfig(where: Where) -> str:
    return where.kubeconfig or os.environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")


def _items(listing: Manifest, kind: str) -> list[Manifest]:
    """Items of a list do not name their kind."""
    row = Key(kind, "", "").type
    return [{"apiVersion": row.api_version, "kind": kind, **item} for item in listing["items"]]


async def _lines(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Whole lines of any length: aiohttp's own reader refuses long ones."""
    rest = b""
    async for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line
    if rest:
        yield rest
