"""What the platform said of itself during a run: asked of Prometheus when the load has ended, for the report."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

import httpx
import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

TIMEOUT: Final = httpx.Timeout(15.0, connect=5.0)
POINTS: Final = 240
MIN_STEP: Final = 2.0
RATE: Final = "15s"
"""Over which rates are taken: four scrapes of the usual 15 s would be a minute, too coarse for a run of one or two."""
LATER: Final = 10.0
"""Seconds after the end that are still asked for: what was posted last arrives."""


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
    ("Saturation: messages waiting", "messages", (("{group}", "max by (group) (fanfold_backlog_messages{$scope})"),)),
)
"""Title, unit, and queries with their legends."""


def queries(scope: str = 'component!=""') -> list[str]:
    """All that is asked."""
    return [_filled(query, scope) for _, _, asked in QUESTIONS for _, query in asked]


def ask(url: str, platform: str, begin: float, seconds: float) -> list[Chart]:
    """The charts of a run; those without a series are left out.

    Args:
        url: Of Prometheus.
        platform: ``[NAMESPACE/]NAME``, as pods are labelled; empty: all that is scraped.
        begin: Unix time at which the load began.
        seconds: How long it lasted.

    Raises:
        FactsError: No answer, or a refusal.
    """
    namespace, _, name = platform.rpartition("/")
    labels = {"namespace": namespace, "platform": name}
    scope = ",".join(f'{label}="{value}"' for label, value in labels.items() if value) or 'component!=""'
    window = {
        "start": begin,
        "end": begin + seconds + LATER,
        "step": max(MIN_STEP, seconds / POINTS),
    }
    charts = []
    with httpx.Client(base_url=url, timeout=TIMEOUT, trust_env=False) as client:
        for title, unit, asked in QUESTIONS:
            lines = [
                line
                for legend, query in asked
                for line in _lines(_range(client, _filled(query, scope), window), legend, begin)
            ]
            charts += [Chart(title, unit, lines)] if lines else []
    return charts


def asked(url: str, platform: str, begin: float, seconds: float) -> tuple[list[Chart], str]:
    """The same, nothing without a URL, and why there is nothing: a run without it is still one."""
    if not url:
        return [], ""
    try:
        return ask(url, platform, begin, seconds), ""
    except FactsError as error:
        return [], str(error)


def _filled(query: str, scope: str) -> str:
    return query.replace("$scope", scope).replace("$rate", RATE)


def _range(client: httpx.Client, query: str, window: dict[str, float]) -> Sequence[dict[str, Any]]:
    try:
        answer = client.get("/api/v1/query_range", params={"query": query, **window})
        content = answer.json()
    except httpx.HTTPError as error:
        raise FactsError(f"Prometheus at {client.base_url}: {type(error).__name__}: {error}") from error
    except ValueError as error:
        raise FactsError(f"Prometheus at {client.base_url}: the answer is no JSON: is it Prometheus?") from error
    if answer.is_error:
        raise FactsError(f"Prometheus at {client.base_url}: {content.get('error', answer.status_code)}; asked: {query}")
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
