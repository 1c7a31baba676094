"""What a run and the canary tell Prometheus while they last; base units, and never a user or a post as a label."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import REGISTRY, Counter, Gauge, Histogram, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from prometheus_client.core import Metric

    from fanfold_loadtest.plan import Progress

CANARY_AGE = Histogram(
    "fanfold_canary_age_seconds",
    "From the answer to the canary's post until its follower's feed showed it.",
    buckets=(0.05, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
CANARY_PROBES = Counter("fanfold_canary_probes_total", "Posts of the canary.", ["outcome"])  # seen, late, failed
CANARY_SUCCESS = Gauge(
    "fanfold_canary_last_success_timestamp_seconds", "Unix time at which the canary last saw a post of its own."
)
for _outcome in ("seen", "late", "failed"):
    CANARY_PROBES.labels(_outcome)


class RunCollector(Collector):
    """The progress of a run's processes, as they last told it.

    Args:
        scenario: Its name.
    """

    def __init__(self, scenario: str) -> None:
        self._scenario = scenario
        self._progress: Sequence[Progress] = ()
        self._over = 0.0

    def update(self, progress: Sequence[Progress], over: float = 0.0) -> None:
        """What is true from now on. `over`: the part of the load that is over, 0 to 1."""
        self._progress = tuple(progress)
        self._over = min(1.0, over)

    def collect(self) -> Iterator[Metric]:
        """All metric families."""
        yield self._running()
        yield from self._counters()
        yield from self._gauges()

    def _running(self) -> Metric:
        running = GaugeMetricFamily(
            "fanfold_loadtest_running", "1 while this phase lasts.", labels=["scenario", "phase"]
        )
        for phase in sorted({one.phase for one in self._progress if one.phase}):
            running.add_metric([self._scenario, phase], 1)
        return running

    def _counters(self) -> Iterator[Metric]:
        told = self._progress
        done, failed = sum(one.done for one in told), sum(one.failed for one in told)
        late, dropped = sum(one.late for one in told), sum(one.dropped for one in told)
        arrivals = sum(one.arrivals for one in told)
        requests = CounterMetricFamily(
            "fanfold_loadtest_requests", "Requests answered, or given up.", labels=["scenario", "outcome"]
        )
        requests.add_metric([self._scenario, "good"], done - failed)
        requests.add_metric([self._scenario, "failed"], failed)
        yield requests
        begun = CounterMetricFamily("fanfold_loadtest_arrivals", "Requests due.", labels=["scenario", "state"])
        begun.add_metric([self._scenario, "on time"], arrivals - late - dropped)
        begun.add_metric([self._scenario, "late"], late)
        begun.add_metric([self._scenario, "dropped"], dropped)
        yield begun

    def _gauges(self) -> Iterator[Metric]:
        over = GaugeMetricFamily(
            "fanfold_loadtest_progress_ratio", "Part of the load that is over; 0: not begun.", labels=["scenario"]
        )
        over.add_metric([self._scenario], self._over)
        yield over
        labels = ["scenario", "process"]
        latency = GaugeMetricFamily(
            "fanfold_loadtest_latency_seconds",
            "From the intended start, of the last seconds.",
            labels=[*labels, "quantile"],
        )
        under_way = GaugeMetricFamily("fanfold_loadtest_requests_in_flight", "Requests under way.", labels=labels)
        cpu = GaugeMetricFamily(
            "fanfold_loadtest_cpu_cores", "CPU used by the process; 1 is all it can.", labels=labels
        )
        for number, one in enumerate(self._progress):
            where = [self._scenario, str(number)]
            latency.add_metric([*where, "0.5"], one.p50_ms / 1000)
            latency.add_metric([*where, "0.99"], one.p99_ms / 1000)
            under_way.add_metric(where, one.under_way)
            cpu.add_metric(where, one.cpu_cores)
        yield from (latency, under_way, cpu)


def serve(address: tuple[str, int], collector: Collector | None = None) -> None:
    """Answer ``/metrics`` on ``address`` until the process ends.

    Raises:
        OSError: The address cannot be had.
    """
    if collector is not None:
        REGISTRY.register(collector)
    start_http_server(address[1], addr=address[0])
