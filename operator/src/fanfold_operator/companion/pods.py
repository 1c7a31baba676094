"""Why a pod is not ready, in a few words. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from fanfold.contracts.resources import SERVICE_LABEL

if TYPE_CHECKING:
    from fanfold_operator.kinds import Manifest

_STARTING: Final = frozenset({"ContainerCreating", "PodInitializing"})
"""Reasons of a start that goes its way."""


@dataclass(frozen=True, slots=True)
class Pod:
    """One pod.

    Attributes:
        service: Value of the service label: a component, or the name of an embedded store.
        address: Its IP address, None before it has one.
        ready: Whether it gets traffic.
        state: One word: ``Ready``, ``Starting``, ``Leaving``, a phase, or the reason why it waits.
        why: What the kubelet or the scheduler say about it; empty if there is nothing to say.
        restarts: Of all its containers.
        last_exit: Why the container that ended last did, and when: ``OOMKilled 2026-01-02T03:04:05Z``.
    """

    name: str
    service: str
    node: str | None
    address: str | None
    ready: bool
    state: str
    why: str
    restarts: int
    last_exit: str | None
    created: str


def read(manifest: Manifest) -> Pod:
    """A pod as the API server tells of it."""
    metadata, status = manifest["metadata"], manifest.get("status", {})
    containers = [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]
    ready = _condition(status, "Ready").get("status") == "True" and "deletionTimestamp" not in metadata
    state, why = ("Ready", "") if ready else _waiting(manifest, containers)
    return Pod(
        name=metadata["name"],
        service=metadata.get("labels", {}).get(SERVICE_LABEL, ""),
        node=manifest.get("spec", {}).get("nodeName"),
        address=status.get("podIP"),
        ready=ready,
        state=state,
        why=one_line(why),
        restarts=sum(one.get("restartCount", 0) for one in containers),
        last_exit=_last_exit(containers),
        created=metadata.get("creationTimestamp", ""),
    )


def finished(manifest: Manifest) -> bool:
    """Whether it has done its work, as a Job's pod does."""
    return bool(manifest.get("status", {}).get("phase") == "Succeeded")


def _waiting(manifest: Manifest, containers: list[dict[str, Any]]) -> tuple[str, str]:
    """State and reason of a pod that is not ready: what keeps it first."""
    status = manifest.get("status", {})
    if "deletionTimestamp" in manifest["metadata"]:
        return "Leaving", f"being deleted since {manifest['metadata']['deletionTimestamp']}"
    if status.get("phase") == "Failed":
        return status.get("reason") or "Failed", status.get("message") or _ended(containers)
    scheduled = _condition(status, "PodScheduled")
    if scheduled.get("status") == "False":
        return scheduled.get("reason", "Unscheduled"), scheduled.get("message", "")
    for one in containers:
        waiting = one.get("state", {}).get("waiting", {})
        if waiting.get("reason") and waiting["reason"] not in _STARTING:
            return waiting["reason"], waiting.get("message", "")
    if any(one.get("state", {}).get("waiting") for one in containers) or not containers:
        return "Starting", "" if containers else "no container was made yet"
    return "NotReady", _condition(status, "Ready").get("message", "its readiness probe does not succeed")


def _ended(containers: list[dict[str, Any]]) -> str:
    ends = [one["state"]["terminated"] for one in containers if "terminated" in one.get("state", {})]
    bad = [end for end in ends if end.get("exitCode")]
    return f"exit code {bad[-1]['exitCode']}" if bad else ""


def _last_exit(containers: list[dict[str, Any]]) -> str | None:
    ends = [one["lastState"]["terminated"] for one in containers if "terminated" in one.get("lastState", {})]
    if not ends:
        return None
    last = max(ends, key=lambda end: end.get("finishedAt") or "")
    return f"{last.get('reason', 'Error')} {last.get('finishedAt') or ''}".strip()


def _condition(status: dict[str, Any], kind: str) -> dict[str, Any]:
    return next((one for one in status.get("conditions", ()) if one["type"] == kind), {})


def one_line(text: str) -> str:
    """Of bounded length: messages of container runtimes and autoscalers hold whole stack traces."""
    text = " ".join(text.split())
    return text if len(text) <= 200 else text[:199] + "…"
