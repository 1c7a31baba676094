"""Figures of the platform in a run's report: what is asked of Prometheus, and what becomes of its answers."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

import pytest

from fanfold_loadtest.facts import FactsError, ask, asked


class Answering(BaseHTTPRequestHandler):
    """A server that answers as it was told, and remembers what was asked."""

    answer: ClassVar[tuple[int, bytes]] = (200, b"")
    asked: ClassVar[list[dict[str, list[str]]]] = []

    def do_GET(self) -> None:
        self.asked.append(parse_qs(urlsplit(self.path).query))
        status, body = self.answer
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    Answering.asked.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Answering) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join(5)


def test_series_become_lines_in_seconds_from_the_beginning(server: str) -> None:
    labels = {"lane": "large", "topic": "posts", "slot": "feed-0", "component": "feed", "service": "feed", "group": "g"}
    values = [[1000.0, "1.5"], [1002.0, "NaN"], [1004.0, "2"]]
    Answering.answer = 200, json.dumps({"data": {"result": [{"metric": labels, "values": values}]}}).encode()
    charts = ask(server, "shop/demo", begin=1000.0, seconds=60)
    replicas = next(chart for chart in charts if chart.title == "Replicas")
    (line,) = replicas.lines
    assert (line.name, line.times, line.values) == ("feed", [0.0, 4.0], [1.5, 2.0])
    queries = [one["query"][0] for one in Answering.asked]
    assert all('namespace="shop",platform="demo"' in query for query in queries)
    assert not any("$" in query for query in queries)
    assert {one["start"][0] for one in Answering.asked} == {"1000.0"}


def test_what_has_no_series_is_left_out(server: str) -> None:
    Answering.answer = 200, b'{"data": {"result": []}}'
    assert ask(server, "", begin=0, seconds=10) == []


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (400, b'{"error": "parse error"}', "parse error; asked: "),
        (200, b"<html>", "the answer is no JSON: is it Prometheus?"),
    ],
)
def test_a_refusal_is_told_in_one_line(server: str, status: int, body: bytes, message: str) -> None:
    Answering.answer = status, body
    with pytest.raises(FactsError, match=message):
        ask(server, "", begin=0, seconds=10)


def test_a_prometheus_that_is_not_there_is_named() -> None:
    with pytest.raises(FactsError, match=r"Prometheus at http://127\.0\.0\.1:9.*ConnectError"):
        ask("http://127.0.0.1:9", "", begin=0, seconds=10)


def test_a_run_does_without_the_platforms_figures_and_says_why(server: str) -> None:
    assert asked("", "", 0, 10) == ([], "")
    charts, trouble = asked("http://127.0.0.1:9", "", 0, 10)
    assert (charts, trouble.partition(": ")[0]) == ([], "Prometheus at http://127.0.0.1:9")
    Answering.answer = 200, b'{"data": {"result": []}}'
    assert asked(server, "", 0, 10) == ([], "")
