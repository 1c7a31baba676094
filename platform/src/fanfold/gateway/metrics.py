"""The gateway's RED metrics: plain integers on the hot path, handed to prometheus-client when it scrapes.

A prometheus-client counter with labels costs about a microsecond an update; a list item costs a thirtieth.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar

from fanfold.gateway.budget import RetryBudget
from fanfold.gateway.tracing import trace_id
from fanfold.kit.metrics import LATENCY_BUCKETS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from prometheus_client.core import Metric

    from fanfold.gateway.routes import Route
    from fanfold.gateway.upstream import Endpoint


class RouteStats:
    """What happened on one route."""

    __slots__ = ("buckets", "examples", "seconds", "statuses")

    def __init__(self) -> None:
        self.statuses: dict[int, int] = {}
        self.buckets = [0] * (len(LATENCY_BUCKETS) + 1)
        self.examples: list[tuple[tuple[bytes, ...], float] | None] = [None] * len(self.buckets)
        self.seconds = 0.0

    def record(self, status: int, seconds: float, trace_lines: tuple[bytes, ...]) -> None:
        """Count one answer; its trace is the newest example of its bucket."""
        self.statuses[status] = self.statuses.get(status, 0) + 1
        bucket = bisect_left(LATENCY_BUCKETS, seconds)
        self.buckets[bucket] += 1
        self.examples[bucket] = (trace_lines, seconds)
        self.seconds += seconds


class GatewayStats:
    """Counters of the whole process."""

    __slots__ = (
        "budget",
        "connections",
        "connections_refused",
        "ejections",
        "hedges",
        "hedges_won",
        "in_flight",
        "limited",
        "rejected",
        "retries",
        "retries_denied",
        "retrying",
        "shed",
        "snapshots",
        "websocket_closes",
        "websocket_messages",
        "websockets",
    )

    def __init__(self) -> None:
        self.connections = 0
        self.connections_refused = 0
        self.in_flight = 0
        self.budget = RetryBudget()
        self.retrying = 0
        self.retries = 0
        self.retries_denied = 0
        self.hedges = 0
        self.hedges_won = 0
        self.ejections: dict[str, int] = {}
        self.shed: dict[str, int] = {}
        self.limited: dict[str, int] = {}
        self.websockets = 0
        self.websocket_messages = 0
        self.websocket_closes: dict[int, int] = {}
        self.rejected: dict[str, int] = {}
        self.snapshots: dict[str, int] = {}

    def reject(self, kind: str) -> None:
        """Count a request refused before it had a route."""
        self.rejected[kind] = self.rejected.get(kind, 0) + 1


class GatewayCollector(Collector):
    """Reads the counters of routes, slots and the process at each scrape.

    Args:
        stats: The process's counters.
        routes: All rows of the table.
        endpoints: Yields (service, endpoint) as they are now.
        gauges: Further single values by metric name: (help, reader).
    """

    def __init__(
        self,
        stats: GatewayStats,
        routes: Iterable[Route],
        endpoints: Callable[[], Iterable[tuple[str, Endpoint]]],
        gauges: dict[str, tuple[str, Callable[[], float]]],
    ) -> None:
        self._stats = stats
        self._routes = tuple(routes)
        self._endpoints = endpoints
        self._gauges = gauges

    def collect(self) -> Iterator[Metric]:
        """All metric families."""
        yield from self._route_families()
        yield from self._slot_families()
        yield from self._process_families()

    def _route_families(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "fanfold_gateway_requests", "Requests answered.", labels=["route", "method", "status"]
        )
        duration = HistogramMetricFamily(
            "fanfold_gateway_request_duration_seconds",
            "From a request's first byte to the end of its answer.",
            labels=["route", "method"],
        )
        for route in self._routes:
            for status, count in sorted(route.stats.statuses.items()):
                requests.add_metric([route.pattern, route.method, str(status)], count)
            if route.stats.statuses:
                duration.add_metric([route.pattern, route.method], _cumulative(route.stats), route.stats.seconds)
        yield requests
        yield duration

    def _slot_families(self) -> Iterator[Metric]:
        labels = ["service", "slot"]
        requests = CounterMetricFamily(
            "fanfold_gateway_upstream_requests", "Requests sent to slots.", labels=[*labels, "outcome"]
        )
        seconds = CounterMetricFamily(
            "fanfold_gateway_upstream_seconds", "Time spent by slots on requests.", labels=labels
        )
        in_flight = GaugeMetricFamily("fanfold_gateway_upstream_in_flight", "Requests under way.", labels=labels)
        connections = GaugeMetricFamily("fanfold_gateway_upstream_connections", "Open connections.", labels=labels)
        limit = GaugeMetricFamily("fanfold_gateway_upstream_limit", "Most requests under way at once.", labels=labels)
        ejected = GaugeMetricFamily("fanfold_gateway_upstream_ejected", "1 while it keeps failing.", labels=labels)
        for service, endpoint in self._endpoints():
            where = [service, endpoint.slot]
            for outcome, count in endpoint.outcomes.items():
                requests.add_metric([*where, outcome], count)
            seconds.add_metric(where, endpoint.seconds)
            in_flight.add_metric(where, endpoint.in_flight)
            connections.add_metric(where, endpoint.connections)
            limit.add_metric(where, endpoint.limit)
            ejected.add_metric(where, endpoint.ejected)
        yield from (requests, seconds, in_flight, connections, limit, ejected)

    def _process_families(self) -> Iterator[Metric]:
        stats = self._stats
        for name, text, value in (
            ("connections", "Client connections open.", stats.connections),
            ("requests_in_flight", "Requests under way.", stats.in_flight),
            ("retrying", "Requests on a second or later try.", stats.retrying),
            ("retry_budget", "Requests that may be sent again now.", stats.budget.left),
            ("websockets", "WebSockets open.", stats.websockets),
        ):
            yield GaugeMetricFamily(f"fanfold_gateway_{name}", text, value=value)
        for name, text, value in (
            ("connections_refused", "Client connections refused: too many.", stats.connections_refused),
            ("retries", "Requests tried again on another slot.", stats.retries),
            ("retries_denied", "Retries not made: the budget was spent.", stats.retries_denied),
            ("hedges", "Second tries of slow reads.", stats.hedges),
            ("hedges_won", "Second tries that answered first.", stats.hedges_won),
            ("websocket_messages", "Notifications sent.", stats.websocket_messages),
        ):
            yield CounterMetricFamily(f"fanfold_gateway_{name}", text, value=value)
        yield _by_label("rejected_requests", "Requests refused before they had a route.", "kind", stats.rejected)
        yield _by_label("shed", "Requests refused because a service was at its limit.", "service", stats.shed)
        yield _by_label("limited", "Requests over a rate limit.", "policy", stats.limited)
        yield _by_label("ejections", "Slots left alone because they kept failing.", "service", stats.ejections)
        yield _by_label("snapshots", "Snapshots received.", "verdict", stats.snapshots)
        yield _by_label("websocket_closes", "WebSockets closed by the gateway.", "code", stats.websocket_closes)
        for name, (text, read) in self._gauges.items():
            yield GaugeMetricFamily(name, text, value=read())


def _by_label(name: str, text: str, label: str, counts: dict[str, int] | dict[int, int]) -> Metric:
    family = CounterMetricFamily(f"fanfold_gateway_{name}", text, labels=[label])
    for value, count in counts.items():
        family.add_metric([str(value)], count)
    return family


def _cumulative(stats: RouteStats) -> list[tuple[str, float] | tuple[str, float, Exemplar]]:
    total = 0
    rows: list[tuple[str, float] | tuple[str, float, Exemplar]] = []
    for bound, count, example in zip((*map(str, LATENCY_BUCKETS), "+Inf"), stats.buckets, stats.examples, strict=True):
        total += count
        if example is None:
            rows.append((bound, total))
        else:
            rows.append((bound, total, Exemplar({"trace_id": trace_id(example[0])}, example[1])))
    return rows
