"""What `top` shows: rates, latencies and resources, from two readings of each pod's metrics. Pure."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from fanfold.contracts.components import BY_NAME
from fanfold_operator.differences import quantity

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from fanfold_operator.kinds import Manifest
    from fanfold_operator.scrape import Scrape


@dataclass(frozen=True, slots=True)
class _Source:
    """Names of the metrics that tell of one sort of component."""

    count: str
    bad: tuple[str, str]
    """Label and how its values begin when something went wrong."""
    buckets: str
    in_flight: str | None


_GATEWAY: Final = _Source(
    "fanfold_gateway_requests_total",
    ("status", "5"),
    "fanfold_gateway_request_duration_seconds_bucket",
    "fanfold_gateway_requests_in_flight",
)
_SERVICE: Final = _Source(
    "fanfold_http_requests_total",
    ("status", "5"),
    "fanfold_http_request_duration_seconds_bucket",
    "fanfold_http_requests_in_flight",
)
_WORKER: Final = _Source("fanfold_events_handled_total", ("outcome", "dead"), "fanfold_event_age_seconds_bucket", None)
_CPU: Final = "process_cpu_seconds_total"
_MEMORY: Final = "process_resident_memory_bytes"
NAMES: Final = frozenset(
    name
    for source in (_GATEWAY, _SERVICE, _WORKER)
    for name in (source.count, source.buckets, source.in_flight)
    if name
) | {_CPU, _MEMORY}
"""All metrics that are read."""


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU in cores and memory in bytes, as the metrics API measured them."""

    cpu: float
    memory: float


@dataclass(frozen=True, slots=True)
class Reading:
    """What one pod said twice, `seconds` apart; `before` None: everything since its process began counts."""

    service: str
    pod: str
    before: Scrape | None
    after: Scrape
    seconds: float
    usage: Usage | None = None


@dataclass(frozen=True, slots=True)
class Load:
    """The load of a service or of one of its pods.

    Attributes:
        unit: ``requests``, or ``events`` of workers.
        rate: Of these per second; None if nothing is known.
        errors: Of these per second that failed: answered with 5xx, or given up as dead letters.
        p50: Seconds a request took, or from an event's publication to its end; None if there was none.
        cpu: Cores; None if unknown.
        memory: Bytes; None if unknown.
        problem: Why a pod said nothing.
    """

    name: str
    unit: str
    rate: float | None
    errors: float | None
    in_flight: int | None
    p50: float | None
    p99: float | None
    cpu: float | None
    memory: float | None
    problem: str | None = None
    pods: tuple[Load, ...] = ()


def loads(readings: Iterable[Reading]) -> tuple[Load, ...]:
    """One `Load` per service, in the order of components, each with its pods."""
    by_service: defaultdict[str, list[Reading]] = defaultdict(list)
    for reading in readings:
        by_service[reading.service].append(reading)
    return tuple(_service(name, by_service[name]) for name in BY_NAME if name in by_service)


def usages(pod_metrics: Manifest) -> dict[str, Usage]:
    """Usage by pod, of a PodMetricsList of ``metrics.k8s.io``."""
    found = {}
    for item in pod_metrics.get("items", ()):
        used = [container.get("usage", {}) for container in item.get("containers", ())]
        cpu = sum((quantity(one["cpu"]) for one in used if "cpu" in one), start=quantity(0))
        memory = sum((quantity(one["memory"]) for one in used if "memory" in one), start=quantity(0))
        found[item["metadata"]["name"]] = Usage(float(cpu), float(memory))
    return found


def quantile(share: float, buckets: Mapping[float, float]) -> float | None:
    """A quantile of a cumulative histogram by linear interpolation, as PromQL's ``histogram_quantile``.

    None when it is empty. A quantile above the last finite bound is that bound.
    """
    bounds = sorted(buckets)
    total = buckets[bounds[-1]] if bounds else 0.0
    if total <= 0:
        return None
    rank = share * total
    for low, high in pairwise([0.0, *bounds]):
        below, upto = buckets.get(low, 0.0), buckets[high]
        if upto >= rank:
            return low if math.isinf(high) else low + (high - low) * ((rank - below) / (upto - below or 1.0))
    return bounds[-1]


def _service(name: str, readings: list[Reading]) -> Load:
    members = tuple(_load(one.pod, [one]) for one in sorted(readings, key=lambda one: one.pod))
    whole = _load(name, readings)
    silent = sum(member.problem is not None for member in members)
    problem = f"{silent} of {len(members)} pods do not say" if silent else None
    return Load(name, *_values(whole), problem=problem, pods=members)


def _values(
    load: Load,
) -> tuple[str, float | None, float | None, int | None, float | None, float | None, float | None, float | None]:
    return load.unit, load.rate, load.errors, load.in_flight, load.p50, load.p99, load.cpu, load.memory


def _load(name: str, readings: list[Reading]) -> Load:
    """What these readings come to together."""
    component = BY_NAME[readings[0].service]
    source = _GATEWAY if component.name == "gateway" else _SERVICE if component.serves else _WORKER
    said = [one for one in readings if one.after.error is None]
    buckets: defaultdict[float, float] = defaultdict(float)
    for one in said:
        for bound, count in _grown(one, "le", source.buckets).items():
            buckets[float(bound)] += count
    label, bad = source.bad
    counts = [(one, _grown(one, label, source.count)) for one in said]
    flights = [one.after.total(source.in_flight) or 0.0 for one in said if source.in_flight]
    return Load(
        name=name,
        unit="requests" if component.serves else "events",
        rate=sum(sum(count.values()) / one.seconds for one, count in counts) if said else None,
        errors=sum(
            sum(value for what, value in count.items() if what.startswith(bad)) / one.seconds for one, count in counts
        )
        if said
        else None,
        in_flight=round(sum(flights)) if flights else None,
        p50=quantile(0.50, buckets),
        p99=quantile(0.99, buckets),
        cpu=_sum(_cpu(one) for one in readings),
        memory=_sum(one.usage.memory if one.usage else one.after.total(_MEMORY) for one in readings),
        problem=next((one.after.error for one in readings if one.after.error), None),
    )


def _grown(reading: Reading, label: str, name: str) -> dict[str, float]:
    """By how much counters grew between the two; a process that began anew counts from zero."""
    before = reading.before.by(label, name) if reading.before else {}
    after = reading.after.by(label, name)
    restarted = any(after.get(value, 0.0) < count for value, count in before.items())
    return {value: count - (0.0 if restarted else before.get(value, 0.0)) for value, count in after.items()}


def _cpu(reading: Reading) -> float | None:
    if reading.usage:
        return reading.usage.cpu
    after = reading.after.total(_CPU)
    before = reading.before.total(_CPU) if reading.before else 0.0
    return None if after is None or before is None else max(0.0, after - before) / reading.seconds


def _sum(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None
