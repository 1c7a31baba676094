"""`kubectl fanfold top`: rates, quantiles and sums of readings."""

from __future__ import annotations

import math

import pytest

from fanfold_operator.companion import render
from fanfold_operator.companion.figures import NAMES, Reading, Usage, loads, quantile, usages
from fanfold_operator.scrape import Scrape, parse


def scrape(text: str) -> Scrape:
    return Scrape("pod", parse(text, NAMES))


def gateway(good: int, bad: int, fast: int, slow: int, cpu: float = 1.0) -> Scrape:
    return scrape(f"""\
fanfold_gateway_requests_total{{route="/v1/feed",method="GET",status="200"}} {good}
fanfold_gateway_requests_total{{route="/v1/feed",method="GET",status="503"}} {bad}
fanfold_gateway_request_duration_seconds_bucket{{route="/v1/feed",method="GET",le="0.01"}} {fast}
fanfold_gateway_request_duration_seconds_bucket{{route="/v1/feed",method="GET",le="0.1"}} {fast + slow}
fanfold_gateway_request_duration_seconds_bucket{{route="/v1/feed",method="GET",le="+Inf"}} {fast + slow}
fanfold_gateway_requests_in_flight 3
process_cpu_seconds_total {cpu}
process_resident_memory_bytes 52428800
""")


def test_rates_are_of_the_time_between_two_readings() -> None:
    (load,) = loads([Reading("gateway", "a", gateway(100, 1, 90, 11), gateway(160, 3, 140, 23, cpu=1.5), 2.0)])
    assert (load.rate, load.errors, load.in_flight) == (31.0, 1.0, 3)
    assert load.cpu == 0.25
    assert load.memory == 50 * 2**20


def test_quantiles_are_of_the_requests_between_the_readings_of_all_pods_together() -> None:
    readings = [
        Reading("gateway", "a", gateway(0, 0, 0, 0), gateway(100, 0, 100, 0), 1.0),
        Reading("gateway", "b", gateway(0, 0, 0, 0), gateway(100, 0, 0, 100), 1.0),
    ]
    (load,) = loads(readings)
    assert load.rate == 200
    assert load.p50 == pytest.approx(0.01)
    assert load.p99 == pytest.approx(0.01 + 0.09 * 0.98)
    assert [pod.name for pod in load.pods] == ["a", "b"]
    assert load.pods[0].p99 == pytest.approx(0.0099)


def test_a_process_that_began_anew_counts_from_zero() -> None:
    (load,) = loads([Reading("gateway", "a", gateway(1000, 5, 900, 105), gateway(10, 0, 10, 0), 1.0)])
    assert load.rate == 10
    assert load.errors == 0


def test_workers_are_measured_by_events() -> None:
    text = """\
fanfold_events_handled_total{{topic="posts",group="feed",outcome="done"}} {done}
fanfold_events_handled_total{{topic="posts",group="feed",outcome="dead"}} {dead}
fanfold_event_age_seconds_bucket{{topic="posts",group="feed",le="0.05"}} {done}
fanfold_event_age_seconds_bucket{{topic="posts",group="feed",le="+Inf"}} {done}
"""
    before, after = scrape(text.format(done=0, dead=0)), scrape(text.format(done=8, dead=2))
    (load,) = loads([Reading("feed-worker", "a", before, after, 2.0)])
    assert (load.unit, load.rate, load.errors, load.in_flight) == ("events", 5.0, 1.0, None)
    assert load.p50 == pytest.approx(0.025)


def test_the_metrics_api_is_believed_before_the_process_itself() -> None:
    usage = Usage(0.5, 1000.0)
    (load,) = loads([Reading("gateway", "a", gateway(0, 0, 0, 0), gateway(0, 0, 0, 0), 1.0, usage)])
    assert (load.cpu, load.memory) == (0.5, 1000.0)
    assert (load.p50, load.rate) == (None, 0)


def test_a_silent_pod_says_why_and_does_not_hide_the_others() -> None:
    silent = Scrape("b", error="connection refused")
    readings = [
        Reading("gateway", "a", gateway(0, 0, 0, 0), gateway(4, 0, 4, 0), 1.0),
        Reading("gateway", "b", silent, silent, 1.0),
    ]
    (load,) = loads(readings)
    assert (load.rate, load.problem) == (4, "1 of 2 pods do not say")
    assert (load.pods[1].rate, load.pods[1].problem) == (None, "connection refused")


def test_usages_sum_containers_in_kubernetes_quantities() -> None:
    containers = [{"usage": {"cpu": "1500000n", "memory": "50Mi"}}, {"usage": {"cpu": "2m", "memory": "1024Ki"}}]
    found = usages({"items": [{"metadata": {"name": "a"}, "containers": containers}]})
    assert found == {"a": Usage(0.0035, 51 * 2**20)}
    assert usages({}) == {}


def test_quantiles_follow_prometheus() -> None:
    assert quantile(0.5, {}) is None
    assert quantile(0.5, {0.1: 0.0, math.inf: 0.0}) is None
    assert quantile(0.5, {0.1: 10.0, 0.2: 20.0, math.inf: 20.0}) == pytest.approx(0.1)
    assert quantile(0.75, {0.1: 10.0, 0.2: 20.0, math.inf: 20.0}) == pytest.approx(0.15)
    assert quantile(0.99, {0.1: 1.0, math.inf: 100.0}) == 0.1


def test_services_come_in_the_order_of_components_and_read_so() -> None:
    readings = [
        Reading("feed", "f", scrape(""), scrape("process_resident_memory_bytes 1048576\n"), 1.0),
        Reading("gateway", "a", gateway(0, 0, 0, 0), gateway(20, 2, 22, 0), 2.0),
    ]
    table = render.top(loads(readings), by_pod=False)
    rows = [[str(cell) for cell in column.cells] for column in table.columns]
    assert [row[0] for row in rows] == ["gateway", "11.0 rq/s", "1.0", "3", "5.0 ms", "9.9 ms", "0m", "50Mi", ""]
    assert [row[1] for row in rows] == ["feed", "0.0 rq/s", "0.0", "0", "-", "-", "-", "1Mi", ""]
