"""The embedded Prometheus of the demo: it scrapes everything, its rules hold, and dashboards can be looked at live."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest

from dashboards.boards import BOARDS
from dashboards.query import Prometheus, QueryError, Window
from fanfold.contracts.components import COMPONENTS
from fanfold.dev.process import free_ports
from tests.e2e.waiting import until
from tools.local.clusters import Kubectl
from tools.local.up import NAMESPACE, PLATFORM, series_per_pod
from tools.progress import say

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

MINUTES = 30
SERIES_PER_POD, GATEWAY_SERIES = 800, 2_500
"""As docs/dashboards.md promises."""
SOON = 90
OPERATORS = [(board, panel) for board in BOARDS if board.served_by == "operator" for panel in board.panels]
"""Those that a platform without an operator cannot show: see tests/integration/monitoring."""


@pytest.fixture(scope="module")
def prometheus(deployed: Kubectl) -> Iterator[Prometheus]:
    """By the port-forward that the document and `make up` name."""
    ready = ("wait", "--for=condition=PrometheusReady", f"platform/{PLATFORM}", "--timeout=120s")
    deployed.run(*ready, seconds=130)
    (port,) = free_ports(1)
    words = ["kubectl", "--namespace", NAMESPACE, "port-forward", f"service/{PLATFORM}-prometheus", f"{port}:9090"]
    with subprocess.Popen(words, env=deployed.environment, stdout=subprocess.DEVNULL) as forward:
        try:
            with Prometheus(f"http://127.0.0.1:{port}") as client:
                until(lambda: answers(client), "the port is forwarded", seconds=SOON)
                yield client
        finally:
            forward.terminate()


def answers(client: Prometheus) -> bool:
    try:
        client.get("status/buildinfo")
    except QueryError:
        return False
    return True


def window() -> Window:
    now = time.time()
    return Window(now - 60 * MINUTES, now, 15.0)


def test_all_that_serves_is_scraped(prometheus: Prometheus) -> None:
    wanted = {component.name for component in COMPONENTS} | {"operator"}

    def scraped() -> set[str]:
        up: Any = prometheus.get("query", query="min by (component) (up) == 1")["result"]
        return {one["metric"]["component"] for one in up}

    until(lambda: wanted <= scraped(), f"{wanted} are scraped", seconds=SOON)
    found: Any = prometheus.get("query", query='up{component="feed"}')["result"]
    assert all(one["metric"]["pod"].startswith(f"{PLATFORM}-feed-") for one in found)
    assert all(one["metric"]["platform"] == PLATFORM for one in found)


def test_a_pod_has_as_few_series_as_promised(deployed: Kubectl, prometheus: Prometheus) -> None:
    most = {component.name: SERIES_PER_POD for component in COMPONENTS} | {"gateway": GATEWAY_SERIES}
    found: dict[str, int] = {}

    def all_there() -> bool:
        found.update(series_per_pod(deployed))
        return most.keys() <= found.keys()

    until(all_there, "a scrape of every component", seconds=SOON)
    say(f"series of one pod: {found}")
    assert {name: count for name, count in found.items() if count > most.get(name, SERIES_PER_POD)} == {}


def test_every_panel_is_answered_and_the_demos_feed_reads_are_there(prometheus: Prometheus) -> None:
    broken = []
    for board in BOARDS:
        for panel in board.panels:
            try:
                prometheus.panel(panel, window())
            except QueryError as error:
                broken.append(f"{board.name}: {panel.title}: {error}")
    assert broken == []
    reads = (
        "histogram_quantile(0.99, sum by (le)"
        ' (increase(fanfold_gateway_request_duration_seconds_bucket{route="/v1/feed"}[30m])))'
    )
    until(lambda: prometheus.series(reads, "p99", window()), "feed latency", seconds=SOON)


def test_panels_of_the_operator_show_data_of_each_of_their_queries(prometheus: Prometheus) -> None:
    def silent() -> list[str]:
        return [
            f"{board.name}: {panel.title}: {query}"
            for board, panel in OPERATORS
            if not panel.quiet
            for legend, query in panel.queries
            if not prometheus.series(query, legend, window())
        ]

    deadline = time.monotonic() + SOON
    while missing := silent():
        assert time.monotonic() < deadline, missing
        time.sleep(2)


def test_every_rule_is_evaluated(prometheus: Prometheus) -> None:
    def unknown() -> list[str]:
        groups: Any = prometheus.get("rules")["groups"]
        return [rule["name"] for group in groups for rule in group["rules"] if rule["health"] == "unknown"]

    until(lambda: not unknown(), "every rule was evaluated", seconds=SOON)
    groups: Any = prometheus.get("rules")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) > 30
    assert [(rule["name"], rule["lastError"]) for rule in rules if rule["health"] != "ok"] == []
