"""What a load test has done to its Platform while it runs: scale a service, evict a pod, restart all. Pure.

The run asks (`Wish`), for its pods have no rights; the record stands in the LoadTest's ``status.acts``. An act is done
when it stands there: an operator that dies at any write leaves its successor where to go on. Nothing is done that the
autoscaler, a drained node or an upgrade could not do: replicas stay within the Platform's bounds, disruption budgets
count, and services restart in the order of an upgrade. Replicas count while the run lasts, so nothing has to be put
back.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from fanfold.contracts.components import BY_NAME
from fanfold.contracts.resources import PlatformSpec, Record, parse
from fanfold_operator.conditions import timestamp
from fanfold_operator.kinds import DEPLOYMENT, POD, Key
from fanfold_operator.planning import components
from fanfold_operator.planning.service import rolled_out
from fanfold_operator.planning.upgrade import ORDER, UNDER_WAY, recorded

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from fanfold_operator.kinds import Manifest

EFFECT: Final = timedelta(seconds=240)
"""For what was asked for to be so; of a restart of all, each service."""
RESTARTED: Final = "kubectl.kubernetes.io/restartedAt"
MOST: Final = 64
"""Acts of one run: a status is no log."""

Does = Literal["scale", "restart-pod", "restart-all"]


class Wish(msgspec.Struct, frozen=True):
    """What the run asks for, as its admin port tells it. `number` counts from 0."""

    number: int
    does: Does
    service: str = ""
    by: int = 0


class Act(Record, frozen=True, kw_only=True):
    """What is done, and how far it is.

    Attributes:
        since: When it came to what `message` says, RFC 3339.
        service: The component; of a restart of all the one whose turn it is.
        replicas: What a service is scaled to.
        pod: What is evicted.
    """

    number: int
    does: Does
    state: Literal["Begun", "Done", "Failed"]
    since: str
    message: str = ""
    service: str = ""
    replicas: int | None = None
    pod: str = ""


@dataclass(frozen=True, slots=True)
class Scene:
    """What acts are decided on.

    Attributes:
        platform: The Platform, None if it is gone.
        paused: Whether nothing of it may be changed.
        services: Its PlatformServices by component.
        deployments: Their Deployments by component.
        pods: Of the components that are to lose one.
        now: The time.
    """

    platform: Manifest | None
    paused: bool
    services: Mapping[str, Manifest]
    deployments: Mapping[str, Manifest]
    pods: Mapping[str, Sequence[Manifest]]
    now: datetime


@dataclass(frozen=True, slots=True)
class Deeds:
    """Pods to evict; Deployments to restart, and the stamp of each."""

    evict: tuple[Key, ...] = ()
    restart: tuple[tuple[Key, str], ...] = ()


def of(status: Mapping[str, Any]) -> list[Act]:
    """The record of a LoadTest's status."""
    return msgspec.convert(status.get("acts", []), list[Act])


def losing(wishes: Iterable[Wish], acts: Iterable[Act]) -> set[str]:
    """Components whose pods must be known."""
    over = {act.number for act in acts if act.state != "Begun"}
    return {wish.service for wish in wishes if wish.does == "restart-pod" and wish.number not in over}


def pinned(tests: Iterable[Manifest]) -> dict[str, int]:
    """Replicas by component, as these LoadTests have them: those that last count, and the newest act of each."""
    acts = (act for test in tests for act in of(test.get("status", {})))
    return {act.service: act.replicas for act in acts if act.replicas and act.state != "Failed"}


def advance(acts: Sequence[Act], wishes: Sequence[Wish], scene: Scene) -> list[Act]:
    """The record as it should read now."""
    known = {act.number: act for act in acts}
    for wish in wishes[:MOST]:
        act = known.get(wish.number)
        known[wish.number] = _progress(act, scene) if act else _begin(wish, scene)
    return [known[number] for number in sorted(known)]


def deeds(acts: Iterable[Act], scene: Scene) -> Deeds:
    """What is to be done now, of acts that stand in the status. To scale is the Platform's: see `pinned`."""
    if scene.platform is None or scene.paused:
        return Deeds()
    namespace = scene.platform["metadata"]["namespace"]
    begun = [act for act in acts if act.state == "Begun"]
    evict = tuple(Key(POD.kind, namespace, act.pod) for act in begun if act.pod and _alive(act, scene))
    restart = tuple(
        (Key(DEPLOYMENT.kind, namespace, one["metadata"]["name"]), act.since)
        for act in begun
        if act.does == "restart-all" and (one := scene.deployments.get(act.service)) and _stamp(one) != act.since
    )
    return Deeds(evict, restart)


def _begin(wish: Wish, scene: Scene) -> Act:
    try:
        fields: dict[str, Any] = {"state": "Begun"} | _order(wish, scene)
    except _RefusedError as error:
        fields = {"state": "Failed", "message": str(error), "service": wish.service}
    return Act(number=wish.number, does=wish.does, since=timestamp(scene.now), **fields)


class _RefusedError(Exception):
    """It may not or cannot be done; the message says why."""


def _order(wish: Wish, scene: Scene) -> dict[str, Any]:
    """What an act begins with."""
    if scene.platform is None:
        raise _RefusedError("the Platform is gone")
    if scene.paused:
        raise _RefusedError("the Platform is paused: nothing of it is changed")
    if wish.does == "restart-all":
        if (upgrade := recorded(scene.platform.get("status", {}))) and upgrade.phase in UNDER_WAY:
            raise _RefusedError(f"an upgrade to {upgrade.target.version} is under way")
        first = ORDER[0].name
        return {"service": first, "message": f"{first} restarts"}
    service = wish.service
    if service not in BY_NAME:
        raise _RefusedError(f"{service} is no service; there are: {', '.join(sorted(BY_NAME))}")
    if wish.does == "restart-pod":
        alive = sorted(pod["metadata"]["name"] for pod in scene.pods.get(service, ()) if _stays(pod))
        if not alive:
            raise _RefusedError(f"{service} has no pod to restart")
        return {"service": service, "pod": alive[0], "message": f"a pod of {service} is to go"}
    wanted = scene.services.get(service, {}).get("status", {}).get("replicas", 0) + wish.by
    bounds = components.replicas(service, components.scaling(service, parse(PlatformSpec, scene.platform)))
    if not bounds.min <= wanted <= bounds.max:
        allowed = f"{bounds.min} to {bounds.max} replicas of {service}"
        raise _RefusedError(f"Platform {scene.platform['metadata']['name']} allows {allowed}, it would be {wanted}")
    return {"service": service, "replicas": wanted, "message": f"{service} to {wanted} replicas"}


def _progress(act: Act, scene: Scene) -> Act:
    if act.state != "Begun":
        return act
    late = scene.now - datetime.fromisoformat(act.since) > EFFECT
    news = _news(act, scene)
    if not news and late:
        news = {"state": "Failed", "message": f"{act.message}: that was not so within {EFFECT.seconds} s"}
    return msgspec.structs.replace(act, since=timestamp(scene.now), **news) if news else act


def _news(act: Act, scene: Scene) -> dict[str, Any]:
    """What has become of an act; empty: nothing yet."""
    if act.does == "scale":
        status = scene.services.get(act.service, {}).get("status", {})
        if status.get("replicas") == act.replicas and status.get("ready") == f"{act.replicas}/{act.replicas}":
            return {"state": "Done", "message": f"{act.service} has {act.replicas}"}
    elif act.does == "restart-pod":
        if not _alive(act, scene):
            return {"state": "Done", "message": f"a pod of {act.service} goes"}
    elif _restarted(act, scene.deployments.get(act.service)):
        names = [one.name for one in ORDER]
        left = names[names.index(act.service) + 1 :]
        if not left:
            return {"state": "Done", "message": "all are restarted"}
        return {"service": left[0], "message": f"{left[0]} restarts"}
    return {}


def _alive(act: Act, scene: Scene) -> bool:
    return any(pod["metadata"]["name"] == act.pod and _stays(pod) for pod in scene.pods.get(act.service, ()))


def _stays(pod: Manifest) -> bool:
    return "deletionTimestamp" not in pod["metadata"]


def _stamp(deployment: Manifest) -> str:
    annotations = deployment["spec"]["template"].get("metadata", {}).get("annotations") or {}
    return str(annotations.get(RESTARTED, ""))


def _restarted(act: Act, deployment: Manifest | None) -> bool:
    """Whether every pod is of the template with this act's stamp, as `kubectl rollout status` judges."""
    return deployment is not None and _stamp(deployment) == act.since and rolled_out(deployment)
