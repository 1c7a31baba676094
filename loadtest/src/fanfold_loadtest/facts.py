"""What the platform said of itself during a run: asked of Prometheus when the load has ended, for the report."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import httpx
import msgspec

from fanfold_loadtest.schedule import begins

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fanfold_loadtest.scenario import Scenario, Usage

TIMEOUT: Final = httpx.Timeout(15.0, connect=5.0)
POINTS: Final = 240
MIN_STEP: Final = 2.0
RATE: Final = "15s"
"""Over which rates are taken: four scrapes of the usual 15 s would be a minute, too coarse for a run of one or two."""
LATER: Final = 10.0
"""Seconds after the end that are still asked for: what was posted last arrives."""

RECENT: Final = 60.0
"""Seconds in which a Prometheus that scrapes the platform has heard of it."""


class FactsError(Exception):
    """Prometheus could not be asked; the message says why, in one line."""


class Line(msgspec.Struct, frozen=True):
    """One series: seconds from the beginning of the load, and values."""

    name: str
    times: list[float]
    values: list[float]


class Chart(msgspec.Struct, frozen=True):
    """What belongs together, in one unit."""

    title: str
    unit: str
    lines: list[Line]


def _quantile(metric: str, by: str) -> str:
    return f"histogram_quantile(0.99, sum by ({by}, le) (rate({metric}_bucket{{$scope}}[$rate])))"


QUESTIONS: Final[tuple[tuple[str, str, tuple[tuple[str, str], ...]], ...]] = (
    (
        "Fan-out lag",
        "seconds",
        (
            ("delivery p99, {lane}", _quantile("fanfold_fanout_delivery_age_seconds", "lane")),
            ("last follower p99, {lane}", _quantile("fanfold_fanout_completion_seconds", "lane")),
            ("oldest message, {topic}", 'max by (topic) (fanfold_stream_oldest_seconds{$scope,group="feed-worker"})'),
        ),
    ),
    (
        "Load of the ring",
        "requests a second",
        (("{slot}", "sum by (slot) (rate(fanfold_gateway_upstream_requests_total{$scope}[$rate]))"),),
    ),
    (
        "Pages of feeds",
        "pages a second",
        (("{outcome}", "sum by (outcome) (rate(fanfold_feed_reads_total{$scope}[$rate]))"),),
    ),
    ("Replicas", "pods that tell metrics", (("{component}", "count by (component) (fanfold_build_info{$scope})"),)),
    (
        "Saturation: CPU",
        "cores",
        (("{component}", "sum by (component) (rate(process_cpu_seconds_total{$scope}[$rate]))"),),
    ),
    (
        "Saturation: requests under way at the gateway",
        "requests",
        (
            ("{service}", "sum by (service) (fanfold_gateway_upstream_in_flight{$scope})"),
            ("{service}, limit", "sum by (service) (fanfold_gateway_upstream_limit{$scope})"),
        ),
    ),
    (
        "Memory of the largest process",
        "bytes",
        (("{component}", "max by (component) (process_resident_memory_bytes{$scope})"),),
    ),
    ("Open files of a process", "files", (("{component}", "max by (component) (process_open_fds{$scope})"),)),
    ("Saturation: messages waiting", "messages", (("{group}", "max by (group) (fanfold_backlog_messages{$scope})"),)),
)
"""Title, unit, and queries with their legends."""


def queries(scope: str = 'component!=""') -> list[str]:
    """All that is asked."""
    return [_filled(query, scope) for _, _, asked in QUESTIONS for _, query in asked]


USAGES: Final[dict[Usage, tuple[str, float]]] = {
    "memory": ("process_resident_memory_bytes", 1 << 20),
    "open-files": ("process_open_fds", 1),
}
"""Metric, and what one unit of the objective is in it."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What was told of a run.

    Attributes:
        charts: For the report.
        used: What the largest process of each component used on average, by what (`Usage`) and phase: MiB, or files.
    """

    charts: list[Chart]
    used: dict[tuple[str, str], dict[str, float]]


def ask(url: str, platform: str, begin: float, scenario: Scenario) -> Facts:
    """The charts of a run, those without a series left out, and what its objectives ask of the platform's processes.

    Args:
        url: Of Prometheus.
        platform: ``[NAMESPACE/]NAME``, as pods are labelled; empty: all that is scraped.
        begin: Unix time at which the load began.
        scenario: What was run.

    Raises:
        FactsError: No answer, or a refusal.
    """
    scope, seconds = _scope(platform), scenario.seconds
    window = {
        "start": begin,
        "end": begin + seconds + LATER,
        "step": max(MIN_STEP, seconds / POINTS),
    }
    charts = []
    with httpx.Client(base_url=url, timeout=TIMEOUT, trust_env=False) as client:
        used: dict[tuple[str, str], dict[str, float]] = {
            (of, phase.name): _used(client, of, scope, begin + since, phase.seconds)
            for of in sorted({slo.of for slo in scenario.leaks})
            for phase, since in begins(scenario)
            if phase.measured
        }
        for title, unit, asked in QUESTIONS:
            lines = [
                line
                for legend, query in asked
                for line in _lines(
                    _query(client, "query_range", {"query": _filled(query, scope), **window}), legend, begin
                )
            ]
            charts += [Chart(title, unit, lines)] if lines else []
    return Facts(charts, used)


def asked(url: str, platform: str, begin: float, scenario: Scenario) -> tuple[Facts, str]:
    """The same, nothing without a URL, and why there is nothing: a run without it is still one."""
    nothing = Facts([], {})
    if not url:
        return nothing, ""
    try:
        return ask(url, platform, begin, scenario), ""
    except FactsError as error:
        return nothing, str(error)


def required(url: str, platform: str, scenario: Scenario, hint: str) -> None:
    """Ask beforehand where objectives depend on it: nobody wants to learn after an hour that nothing was measured.

    Args:
        url: Of Prometheus, if one is known.
        platform: As `ask` has it.
        scenario: What is to be run.
        hint: How to name a Prometheus.

    Raises:
        FactsError: There is no Prometheus, it does not answer, or it knows nothing of the platform.
    """
    if not scenario.leaks:
        return
    if not url:
        raise FactsError(f"{scenario.name} judges what the platform's processes use, as a Prometheus tells: {hint}")
    scope = _scope(platform)
    with httpx.Client(base_url=url, timeout=TIMEOUT, trust_env=False) as client:
        for of in sorted({slo.of for slo in scenario.leaks}):
            if not _used(client, of, scope, time.time() - RECENT, RECENT):
                raise FactsError(
                    f"Prometheus at {url} knows no {USAGES[of][0]}{{{scope}}} of the last {RECENT:g} s: "
                    "does it scrape the platform, with the labels that docs/dashboards.md names?"
                )


def _scope(platform: str) -> str:
    namespace, _, name = platform.rpartition("/")
    labels = {"namespace": namespace, "platform": name}
    return ",".join(f'{label}="{value}"' for label, value in labels.items() if value) or 'component!=""'


def _used(client: httpx.Client, of: Usage, scope: str, begin: float, seconds: float) -> dict[str, float]:
    """By component, of its largest process the average from `begin` (Unix time) on."""
    metric, unit = USAGES[of]
    query = f"max by (component) (avg_over_time({metric}{{{scope}}}[{math.ceil(seconds)}s]))"
    found = _query(client, "query", {"query": query, "time": begin + seconds})
    return {one["metric"].get("component", "other"): float(one["value"][1]) / unit for one in found}


def _filled(query: str, scope: str) -> str:
    return query.replace("$scope", scope).replace("$rate", RATE)


def _query(client: httpx.Client, how: str, asked_for: dict[str, str | float]) -> Sequence[dict[str, Any]]:
    try:
        answer = client.get(f"/api/v1/{how}", params=asked_for)
        content = answer.json()
    except httpx.HTTPError as error:
        raise FactsError(f"Prometheus at {client.base_url}: {type(error).__name__}: {error}") from error
    except ValueError as error:
        raise FactsError(f"Prometheus at {client.base_url}: the answer is no JSON: is it Prometheus?") from error
    if answer.is_error:
        raise FactsError(
            f"Prometheus at {client.base_url}: {content.get('error', answer.status_code)}; asked: {asked_for['query']}"
        )
    found: Sequence[dict[str, Any]] = content["data"]["result"]
    return found


def _lines(result: Sequence[dict[str, Any]], legend: str, begin: float) -> list[Line]:
    lines = []
    for series in result:
        points = [(at - begin, float(value)) for at, value in series["values"]]
        kept = [(at, value) for at, value in points if math.isfinite(value)]
        if kept:
            name = legend.format_map(defaultdict(lambda: "other", series["metric"]))
            lines.append(Line(name, [round(at, 1) for at, _ in kept], [value for _, value in kept]))
    return lines
