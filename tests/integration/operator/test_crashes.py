"""An operator that dies at any of its writes, and one that comes after it: the end is the same as without a death.

The API server is real, the rest is played: no controller, no node, so that hundreds of Platforms come up in a minute.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from fanfold.contracts.snapshot import SNAPSHOT_KEY, decode
from fanfold_operator import kinds
from fanfold_operator.api import Api, ApiError, login
from fanfold_operator.conditions import is_true
from fanfold_operator.differences import APPLIED_ANNOTATION
from fanfold_operator.kinds import Key, Kind, Manifest
from fanfold_operator.operator import Operator, Options
from fanfold_operator.planning.actions import Images
from tests.integration.operator.loops import complete

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[3]
ROUNDS = 20
NOT_COMPARED = {
    "uid", "resourceVersion", "creationTimestamp", "lastTransitionTime", "clusterIP", "clusterIPs", "nodePort", "data",
    "since", "time", "propagation", "generation", "observedGeneration", APPLIED_ANNOTATION,
    "checksum", "lastChangeTime", "controller-uid", "batch.kubernetes.io/controller-uid", "startTime", "completionTime",
}  # fmt: skip
COMPARED = [one for one in kinds.WATCHED if one is not kinds.ENDPOINT_SLICE] + [kinds.SECRET]


class Death(BaseException):
    """What ends a process: nobody handles it."""


class Mortal(Api):
    """Dies at a write: before it is sent, or when the server has done it and the answer has not been read."""

    def __init__(self, client: Any, at: int | None = None, *, accepted: bool = False) -> None:
        super().__init__(client)
        self.writes = 0
        self._at, self._accepted = at, accepted

    async def _call(self, method: str, *rest: Any, **named: Any) -> Manifest:
        if method == "GET":
            return await super()._call(method, *rest, **named)
        self.writes += 1
        if self.writes == self._at and not self._accepted:
            raise Death
        answer = await super()._call(method, *rest, **named)
        if self.writes == self._at:
            raise Death
        return answer


class Pending(set[Key]):
    """In place of the queue: keys to reconcile, in no hurry."""

    def add(self, key: Key, _: float = 0.0) -> None:
        super().add(key)


async def _measure(*_: Any) -> list[Any]:
    return []


async def live(api: Api, world: World) -> None:
    """An operator from its start until there is nothing left to do."""
    options = Options(images=Images("registry.test/fanfold", "0.1.0"), namespace=world.namespace)

    async def ask(_: str) -> int:
        """Gateways use what there is."""
        snapshot = operator.store.get(Key("ConfigMap", world.namespace, "demo-snapshot"))
        return decode(snapshot["data"][SNAPSHOT_KEY]).epoch if snapshot else -1

    operator = Operator(options, ask, _measure)
    operator._queue = pending = Pending()  # type: ignore[assignment]
    async with AsyncExitStack() as stack:
        work = operator.reconciler(stack, api, pending.add)
        for _ in range(ROUNDS):
            await operator.observer.resync(api, world.namespace)
            before = getattr(api, "writes", 0)
            while pending:
                key = min(pending)
                pending.discard(key)
                await work(key)
                await asyncio.sleep(0)  # for who asks gateways
            if not await world.turn() and getattr(api, "writes", 0) == before:
                return
        pytest.fail("it does not come to rest")


class World:
    """A namespace, and what Kubernetes would do in it."""

    def __init__(self, api: Api, namespace: str) -> None:
        self.namespace = namespace
        self._api = api
        self._played: set[tuple[str, str]] = set()

    async def begin(self) -> None:
        await self._put("/api/v1/namespaces/" + self.namespace, {"apiVersion": "v1", "kind": "Namespace"})
        await self.want()
        for number, service in enumerate(("gateway", "feed"), start=1):
            labels = {"fanfold.dev/platform": "demo", "fanfold.dev/service": service}
            part = {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {"labels": labels},
                "addressType": "IPv4",
                "endpoints": [{"addresses": [f"10.0.{number}.{one}"]} for one in (1, 2)],
            }
            await self._put(kinds.ENDPOINT_SLICE.path(self.namespace, f"demo-{service}-x"), part)

    async def want(self, **spec: Any) -> None:
        """Make the Platform, or change what it is to be."""
        platform = {"apiVersion": "fanfold.dev/v1alpha1", "kind": "Platform", "spec": spec}
        await self._put(kinds.PLATFORM.path(self.namespace, "demo"), platform)

    async def turn(self) -> bool:
        """Let workloads become what they are to be; whether there was one that was not."""
        turned = False
        for kind in (kinds.STATEFUL_SET, kinds.JOB, kinds.DEPLOYMENT):
            for item in (await self._api.list(kind, self.namespace))["items"]:
                metadata = item["metadata"]
                if (metadata["uid"], str(metadata["generation"])) not in self._played:
                    self._played.add((metadata["uid"], str(metadata["generation"])))
                    body = {"apiVersion": kind.api_version, "kind": kind.kind, "status": _done(kind, item)}
                    await self._put(kind.path(self.namespace, metadata["name"], "status"), body, metadata["name"])
                    turned = True
        return turned

    async def end(self) -> dict[str, Any]:
        """What there is, without what may differ."""
        found = {}
        for kind in COMPARED:
            for item in (
                await self._api.list(kind, self.namespace, "fanfold.dev/platform" if not kind.custom else None)
            )["items"]:
                text = json.dumps(_comparable(item)).replace(self.namespace, "NAMESPACE")
                found[f"{kind.kind} {item['metadata']['name']}"] = json.loads(text)
        return found

    async def _put(self, path: str, body: Manifest, name: str | None = None) -> None:
        whole = {**body, "metadata": {**body.get("metadata", {}), "name": name or path.rpartition("/")[2]}}
        query = {"fieldManager": "world", "force": "true"}
        await self._api._call("PATCH", path, body["kind"], query, whole, "application/apply-patch+yaml")


def _done(kind: Kind, item: Manifest) -> Manifest:
    if kind is kinds.JOB:
        now = item["metadata"]["creationTimestamp"]
        ends = [
            {"type": one, "status": "True", "lastTransitionTime": now} for one in ("SuccessCriteriaMet", "Complete")
        ]
        times = {"startTime": now, "completionTime": now}
        return {"succeeded": 1, "conditions": ends, "uncountedTerminatedPods": {}, **times}
    count = item["spec"].get("replicas", 1)
    names = ("replicas", "readyReplicas", "availableReplicas", "updatedReplicas")
    return {"observedGeneration": item["metadata"]["generation"], **dict.fromkeys(names, count)}


def _comparable(node: Any) -> Any:
    if isinstance(node, list):
        return [_comparable(one) for one in node]
    if not isinstance(node, dict):
        return node
    kept = {name: _comparable(value) for name, value in node.items() if name not in NOT_COMPARED}
    if managers := node.get("managedFields"):
        kept["managedFields"] = sorted({f"{one['manager']} {one.get('subresource', '')}" for one in managers})
    if "data" in node:
        kept["keys"] = sorted(node["data"])
    return kept


@asynccontextmanager
async def _api(kubeconfig: Path) -> AsyncIterator[Any]:
    client = await login(str(kubeconfig))
    api = Api(client)
    try:
        yield api
    finally:
        await api.close()


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Kubeconfig of an API server without controllers, with our definitions."""
    state = tmp_path_factory.mktemp("bare") / "state"
    command = [str(ROOT / ".build" / "bin" / "fanfold-cluster"), "control-plane", "run", "--state", str(state)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        kubeconfig = Path(server.stdout.readline().strip().removeprefix("READY kubeconfig="))
        complete(_define(kubeconfig))
        yield kubeconfig
        server.terminate()
        server.wait(30)


async def _define(kubeconfig: Path) -> None:
    async with _api(kubeconfig) as api:
        for file in sorted((ROOT / "crds").glob("*.yaml")):
            body = yaml.safe_load(file.read_text())
            path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{body['metadata']['name']}"
            query = {"fieldManager": "tests"}
            await api._call("PATCH", path, body["kind"], query, body, "application/apply-patch+yaml")
        async with asyncio.timeout(30):
            for kind in kinds.CUSTOM:
                while not await _served(api, kind):
                    await asyncio.sleep(0.1)


async def _served(api: Api, kind: Kind) -> bool:
    try:
        await api.list(kind, None)
    except ApiError:
        return False
    return True


async def _undisturbed(api: Api) -> tuple[int, dict[str, Any]]:
    world = World(api, "undisturbed")
    await world.begin()
    counting = Mortal(api._client)
    await live(counting, world)
    platform = await api.get(Key("Platform", world.namespace, "demo"))
    assert is_true(platform, "Ready"), platform["status"]
    return counting.writes, await world.end()


async def _with_death_at(api: Api, at: int) -> tuple[int, dict[str, Any]]:
    """One death, after write `at` was accepted."""
    world = World(api, f"dies-at-{at}")
    await world.begin()
    with pytest.raises(Death):
        await live(Mortal(api._client, at, accepted=True), world)
    await live(Mortal(api._client), world)
    return at, await world.end()


async def _dying_always(api: Api, world: World) -> tuple[int, dict[str, Any]]:
    """No operator outlives its first write, which is accepted; every tenth dies before it is sent.

    Of one that has sent nothing nothing is left: its successor begins as any after the write before.
    """
    accepted = 0
    for number in range(1000):
        unsent = number % 10 == 9
        try:
            await live(Mortal(api._client, 1, accepted=not unsent), world)
        except Death:
            accepted += not unsent
            continue
        return accepted, await world.end()
    pytest.fail("it does not come to an end")


def _differences(one: Any, other: Any, path: str = "") -> list[str]:
    """Where two ends differ, and how."""
    if isinstance(one, dict) and isinstance(other, dict):
        names = sorted(one.keys() | other.keys())
        return [line for name in names for line in _differences(one.get(name), other.get(name), f"{path}/{name}")]
    return [] if one == other else [f"{path}: {one} != {other}"]


def test_deaths_at_every_write_change_nothing_of_the_end(bare: Path) -> None:
    async def main() -> None:
        async with _api(bare) as api:
            count, expected = await _undisturbed(api)
            assert count > 100
            assert len(expected) > 70
            world = World(api, "dies-always")
            await world.begin()
            moments = range(2, count, count // 4)
            (accepted, end), *others = await asyncio.gather(
                _dying_always(api, world), *(_with_death_at(api, at) for at in moments)
            )
            assert "\n".join(_differences(expected, end)) == ""
            assert accepted >= count * 0.8, "it died at each of them"
            for at, other in others:
                assert "\n".join(_differences(expected, other)) == "", f"death at write {at}"

    complete(main())


async def _before_an_upgrade(api: Api, world: World) -> None:
    await world.begin()
    await live(Mortal(api._client), world)
    await world.want(version="0.2.0", upgrade={"soakSeconds": 0})


def test_deaths_at_every_write_of_an_upgrade_change_nothing_of_its_end(bare: Path) -> None:
    async def main() -> None:
        async with _api(bare) as api:
            worlds = [World(api, name) for name in ("upgrade-lives", "upgrade-dies")]
            await asyncio.gather(*(_before_an_upgrade(api, world) for world in worlds))
            counting = Mortal(api._client)
            await live(counting, worlds[0])
            expected = await worlds[0].end()
            status = expected["Platform demo"]["status"]
            assert (status["version"], status["upgrade"]["phase"]) == ("0.2.0", "Completed")
            accepted, end = await _dying_always(api, worlds[1])
            assert "\n".join(_differences(expected, end)) == ""
            assert accepted >= counting.writes * 0.8, "it died at each of them"

    complete(main())
