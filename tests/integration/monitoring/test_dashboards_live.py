"""Dashboards against a real Prometheus that scraped a real platform under load."""

from __future__ import annotations

import logging
import shutil
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import sync_playwright

from dashboards.alerts import ALERTS, RECORDS
from dashboards.boards import BOARDS
from dashboards.grafana import ANNOTATIONS, Board, Panel, expression
from dashboards.query import Prometheus, QueryError
from dashboards.render import draw, main, pictures
from fanfold_loadtest.results import read
from tests.unit.dashboards.exposed import TARGET, grouped, selectors

if TYPE_CHECKING:
    from tests.integration.monitoring.conftest import Observed

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

SERIES_PER_POD = 800
"""What one pod may cost Prometheus, whatever people do: labels are of the code, not of users."""
GATEWAY_SERIES = 2_500
"""It has a histogram for each of its routes."""
SOON = 120.0
PANELS = [(board, panel) for board in BOARDS if board.served_by != "operator" for panel in board.panels]
"""Those of the operator and of autoscaling need a cluster: the operator's registry stands in, in the unit tests."""


def test_the_run_was_made(observed: Observed) -> None:
    assert observed.code in {0, 1, 2}, observed.output  # judged, whatever the verdict of a busy machine


def test_every_pod_is_scraped(observed: Observed, prometheus: Prometheus) -> None:
    up = prometheus.get("query", query='max_over_time(up{job="fanfold"}[30s]) == 1')["result"]
    scraped = {one["metric"]["pod"] for one in up}
    silent = [one for one in observed.platform.components if f"{one.name}-0" not in scraped]
    assert silent == [], [one.process.tail() for one in silent]


@pytest.mark.parametrize(("board", "panel"), PANELS, ids=[f"{board.name}: {panel.title}" for board, panel in PANELS])
def test_a_panel_shows_data_of_each_of_its_queries(
    observed: Observed, prometheus: Prometheus, board: Board, panel: Panel
) -> None:
    if panel.quiet:
        prometheus.panel(panel, observed.window())  # at least it is answered
        return
    deadline = time.monotonic() + SOON
    for legend, query in panel.queries:
        while not (lines := prometheus.series(query, legend, observed.window())):
            assert time.monotonic() < deadline, query
            time.sleep(1)
        assert all("{{" not in line.legend for line in lines), "a label of the legend is missing"


def test_every_name_and_label_in_an_expression_is_on_a_live_page(observed: Observed, prometheus: Prometheus) -> None:
    window = {"start": observed.started, "end": time.time()}
    live: dict[str, set[str]] = {}
    for one in prometheus.get("series", **{"match[]": '{__name__=~".+"}'}, **window):
        live.setdefault(one["__name__"], set()).update(one)
    queries = [query for _, panel in PANELS for _, query in panel.queries if not panel.quiet]
    queries += [one.query for one in ANNOTATIONS] + list(RECORDS.values())
    queries += [one.expr for one in ALERTS if "operator" not in one.expr and "kubelet" not in one.expr]
    silent = {"ALERTS", *SELDOM}
    for query in queries:
        named = [(name, labels) for name, labels in selectors(expression(query)) if name not in silent]
        for name, labels in named:
            assert name in live, f"{name} in {query}"
            assert labels <= live[name] | TARGET, f"labels of {name} in {query}"
        if named:
            assert grouped(expression(query)) <= TARGET.union(*(live[name] for name, _ in named)), query


SELDOM = (
    "fanfold_gateway_shed_total",
    "fanfold_gateway_limited_total",
    "fanfold_gateway_rejected_requests_total",
)
"""Counted only when a caller or a service is in trouble: their names are checked against the gateway's collector."""


def test_a_pod_has_few_series_and_none_with_an_id(observed: Observed, prometheus: Prometheus) -> None:
    found = prometheus.get("series", **{"match[]": '{job="fanfold"}'}, start=observed.started, end=time.time())
    count = Counter(one["pod"] for one in found)
    logging.getLogger(__name__).info("series per pod: %s", dict(count.most_common()))
    assert count.pop("gateway-0") <= GATEWAY_SERIES
    assert max(count.values()) <= SERIES_PER_POD, count
    for one in found:
        for name, value in one.items():
            assert not (len(value) >= 32 and value.count("-") == 4), f"{name} of {one['__name__']} is an id"


def test_the_canary_sees_its_posts(observed: Observed, prometheus: Prometheus) -> None:
    deadline = time.monotonic() + SOON

    def seen() -> float:
        found = prometheus.get("query", query='fanfold_canary_probes_total{outcome="seen"}')["result"]
        return float(found[0]["value"][1]) if found else 0.0

    while seen() < 2:
        assert time.monotonic() < deadline, observed.canary.tail()
        time.sleep(0.5)
    (age,) = prometheus.get("query", query="fanfold_canary_age_seconds_sum / fanfold_canary_age_seconds_count")[
        "result"
    ]
    assert 0 < float(age["value"][1]) < 30


def test_dashboards_are_drawn_with_their_data_and_say_who_drew_them(
    observed: Observed, prometheus: Prometheus, tmp_path: Path
) -> None:
    boards = [board for board in BOARDS if board.name in {"overview", "operator"}]
    written = draw(prometheus, observed.window(), tmp_path, boards)
    overview, operator = (path.read_text() for path in written)
    assert "this is not Grafana" in overview
    assert "https://fanfold.dev/docs/runbooks/FanfoldFeedReadsSlow.md" in overview
    assert overview.count('class="plotly-graph-div"') == sum(one.kind == "timeseries" for one in boards[0].panels)
    assert "no data" not in overview.partition("</script>")[2]
    assert "no data" in operator  # nobody scrapes an operator here: it is said, and nothing fails
    if shutil.which("chromium"):
        pictures(written[:1])
        assert (tmp_path / "overview.png").read_bytes().startswith(b"\x89PNG")
        assert (tmp_path / "overview.png").stat().st_size > 100_000


def test_the_report_of_a_run_shows_the_platforms_own_figures_beside_its_own(observed: Observed) -> None:
    content = read(observed.results / "result.json")
    charts = {chart.title: {line.name for line in chart.lines} for chart in content.server}
    assert {"Load of the ring", "Replicas", "Saturation: CPU", "Saturation: messages waiting"} <= charts.keys()
    assert {"feed", "gateway", "post"} <= charts["Replicas"]
    assert "feed-0" in charts["Load of the ring"]
    page = (observed.results / "report.html").read_text()
    assert all(chart.title in page for chart in content.server)


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Chromium")
def test_the_report_opens_in_a_browser_without_network_and_a_person_reads_it(
    observed: Observed, tmp_path: Path
) -> None:
    content = read(observed.results / "result.json")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1200, "height": 900})
        asked, problems = [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto((observed.results / "report.html").as_uri())
        page.wait_for_function("document.querySelectorAll('.js-plotly-plot .main-svg').length > 0")
        assert page.locator("h1").inner_text() == "Load test: watched"
        assert page.locator(".verdict").inner_text() == content.verdict
        shown = page.locator(".js-plotly-plot").count()
        assert shown == len(content.server) + 2 + bool(content.share.ages)
        titles = page.locator(".gtitle").all_text_contents()
        assert {chart.title for chart in content.server} <= {title.strip() for title in titles}
        assert page.locator(".js-plotly-plot .scatterlayer .js-line").count() >= shown
        assert "celebrity posts" in page.locator(".annotation-text").all_text_contents()
        picture = page.screenshot(full_page=True, path=tmp_path / "report.png")
        browser.close()
    assert problems == []
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
    assert len(picture) > 100_000


def test_a_prometheus_that_is_not_there_or_a_query_that_is_none_is_told_in_one_line(
    observed: Observed, prometheus: Prometheus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--prometheus", "http://127.0.0.1:9", "--out", str(tmp_path)]) == 1
    assert "ConnectError" in capsys.readouterr().err
    with pytest.raises(QueryError, match=r"parse error.*asked: sum"):
        prometheus.series("sum (", "", observed.window())


def test_a_canary_that_is_told_to_stop_deletes_its_accounts(observed: Observed) -> None:
    observed.canary.stop(60)  # the last test: others look at its metrics
    assert observed.canary.returncode == 0, observed.canary.tail()
    assert "left behind" not in observed.canary.tail()
