"""What a run of a load test said: its last words, and its figures while it lasts. Pure.

The load generator says the former as JSON in its container's termination message, which the API server keeps with the
pod (4 KiB at most), the latter as metrics of its admin port.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import msgspec

if TYPE_CHECKING:
    from fanfold_operator.kinds import Manifest
    from fanfold_operator.scrape import Scrape

REQUESTS: Final = "fanfold_loadtest_requests_total"
LATENCY: Final = "fanfold_loadtest_latency_seconds"
NOT_PULLED: Final = frozenset({"ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName"})
"""Reasons for which a container waits that its image does not come."""
PROGRESS: Final = "fanfold_loadtest_progress_ratio"
METRICS: Final = (REQUESTS, LATENCY, PROGRESS)


class Objective(msgspec.Struct, frozen=True):
    """What was asked and found; `held` is None where nothing was measured."""

    text: str
    measured: str = ""
    held: bool | None = None


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """What a run came to.

    Attributes:
        reasons: Why not passed.
        per_second: Requests answered a second, over the phases that count.
        p99_ms: Of all their requests, from the intended start; None where nothing was answered well.
        location: URL of the folder with the report; empty: it was not kept, for which `reasons` may say why.
    """

    verdict: Literal["passed", "failed", "void", "broken"]
    reasons: list[str] = []
    interrupted: bool = False
    objectives: list[Objective] = []
    per_second: float = 0.0
    p99_ms: float | None = None
    location: str = ""


def summary_of(pod: Manifest | None) -> tuple[Summary | None, str]:
    """The last words of a master's pod, and them as text. No summary: the text says what else is known of its end."""
    terminated, who = _ended(_seed(pod)), "the seeding"
    if terminated is None or not terminated["exitCode"]:
        terminated, who = _ended(_container(pod)), "the load generator"
    if terminated is None:
        return None, ""
    text = str(terminated.get("message") or "")
    try:
        return msgspec.json.decode(text, type=Summary), text
    except msgspec.DecodeError:
        lines = text.strip().splitlines()
        said = f": {lines[-1]}" if lines else ""
        return None, f"{who} ended with {terminated['exitCode']} ({terminated.get('reason', '')}){said}"


def why_waiting(pod: Manifest | None) -> str:
    """Why a pod does not run yet, as far as it is known."""
    if pod is None:
        return "its pod is not made yet"
    waiting = _waiting(pod)
    if waiting.get("message"):
        told = f"its pod waits: {waiting['reason']}: {waiting['message']}"
        return f"{told}; {_hint(_container(pod).get('image', ''))}" if lacks_image(pod) else told
    for condition in pod.get("status", {}).get("conditions", ()):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return f"its pod is not placed: {condition.get('message', condition.get('reason', ''))}"
    return "its pod is starting"


def _waiting(pod: Manifest | None) -> Manifest:
    """Of the container that is next."""
    of_seed: Manifest = _seed(pod).get("state", {}).get("waiting", {})
    found: Manifest = _container(pod).get("state", {}).get("waiting", {})
    return of_seed if of_seed.get("message") else found


def lacks_image(pod: Manifest | None) -> bool:
    """Whether its image does not come."""
    return _waiting(pod).get("reason") in NOT_PULLED


def _hint(image: str) -> str:
    """How to get it."""
    if image.startswith("localhost/"):
        return f"{image} is in no registry but built here: make loadtest-image"
    return f"push {image} to where the nodes pull from, or name another in spec.image"


def runs(pod: Manifest | None) -> bool:
    """Whether its container runs."""
    return "running" in _container(pod).get("state", {})


def ran(pod: Manifest | None) -> bool:
    """Whether its container has ended."""
    return "terminated" in _container(pod).get("state", {})


def seeds(pod: Manifest | None) -> bool:
    """Whether its init container runs."""
    return "running" in _seed(pod).get("state", {})


def _container(pod: Manifest | None, of: str = "containerStatuses") -> Manifest:
    statuses = (pod or {}).get("status", {}).get(of) or [{}]
    first: Manifest = statuses[0]
    return first


def _seed(pod: Manifest | None) -> Manifest:
    return _container(pod, "initContainerStatuses")


def _ended(container: Manifest) -> Manifest | None:
    terminated: Manifest | None = container.get("state", {}).get("terminated")
    return terminated


@dataclass(frozen=True, slots=True)
class Live:
    """How a run goes.

    Attributes:
        requests: Answered so far, good or not; None: the load has not begun.
        at: When that was so, in seconds of any clock.
        rps: Answered a second since the figures before.
        p99_seconds: Of the last seconds, the worst of the generator's processes: percentiles cannot be added up.
        progress: Part of the load that is over.
    """

    requests: float | None = None
    at: float = 0.0
    rps: float | None = None
    p99_seconds: float | None = None
    progress: float | None = None


def live(scrape: Scrape, at: float, before: Live | None) -> Live | None:
    """What one answer of the admin port tells, after that before; what was known if there is none."""
    if scrape.error is not None:
        return before
    requests = scrape.total(REQUESTS)
    quantiles = [one.value for one in scrape.select(LATENCY, quantile="0.99")]
    progress = scrape.total(PROGRESS)
    if not progress:
        return Live(None, at)
    rps = before.rps if before else None
    if before and requests is not None and before.requests is not None and at > before.at:
        rps = max(0.0, requests - before.requests) / (at - before.at)
    return Live(requests, at, rps, max(quantiles, default=None), progress)
