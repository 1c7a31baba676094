"""Figures of the platform in a run's report: what is asked of Prometheus, and what becomes of its answers."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

import pytest

from fanfold_loadtest.documents import parse
from fanfold_loadtest.facts import Facts, FactsError, ask, asked, required
from fanfold_loadtest.scenario import Scenario

SCENARIO = parse(
    """\
name: long
description: Two phases, and what must not grow from one to the other.
mix: {feed: 1}
phases:
  - {name: first, seconds: 20, rate: 5}
  - {name: last, seconds: 40, rate: 5}
slos:
  - {kind: leak, of: memory, before: first, phase: last, at_most_percent: 10}
""",
    Scenario,
    "x",
)
PLAIN = parse(
    "name: x\ndescription: long enough\nmix: {feed: 1}\nphases: [{name: p, seconds: 60, rate: 1}]", Scenario, "x"
)
NOTHING = Facts([], {})


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
    charts = ask(server, "shop/demo", 1000.0, PLAIN).charts
    replicas = next(chart for chart in charts if chart.title == "Replicas")
    (line,) = replicas.lines
    assert (line.name, line.times, line.values) == ("feed", [0.0, 4.0], [1.5, 2.0])
    queries = [one["query"][0] for one in Answering.asked]
    assert all('namespace="shop",platform="demo"' in query for query in queries)
    assert not any("$" in query for query in queries)
    assert {one["start"][0] for one in Answering.asked} == {"1000.0"}


def test_what_has_no_series_is_left_out(server: str) -> None:
    Answering.answer = 200, b'{"data": {"result": []}}'
    assert ask(server, "", 0, PLAIN) == NOTHING


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
        ask(server, "", 0, PLAIN)


def test_a_prometheus_that_is_not_there_is_named() -> None:
    with pytest.raises(FactsError, match=r"Prometheus at http://127\.0\.0\.1:9.*ConnectError"):
        ask("http://127.0.0.1:9", "", 0, PLAIN)


def test_a_run_does_without_the_platforms_figures_and_says_why(server: str) -> None:
    assert asked("", "", 0, PLAIN) == (NOTHING, "")
    facts, trouble = asked("http://127.0.0.1:9", "", 0, PLAIN)
    assert (facts, trouble.partition(": ")[0]) == (NOTHING, "Prometheus at http://127.0.0.1:9")
    Answering.answer = 200, b'{"data": {"result": []}}'
    assert asked(server, "", 0, PLAIN) == (NOTHING, "")


def instant(**by_component: float) -> tuple[int, bytes]:
    """An answer with one value for each."""
    found = [{"metric": {"component": name}, "value": [0, str(value)]} for name, value in by_component.items()]
    return 200, json.dumps({"data": {"result": [{**one, "values": []} for one in found]}}).encode()


def test_what_processes_use_is_asked_for_each_phase_over_its_own_time(server: str) -> None:
    Answering.answer = instant(feed=3 << 20)
    assert ask(server, "shop/demo", 1000.0, SCENARIO).used == {
        ("memory", "first"): {"feed": 3.0},
        ("memory", "last"): {"feed": 3.0},
    }
    first, last = Answering.asked[:2]
    assert (first["time"], last["time"]) == (["1020.0"], ["1060.0"])
    scope = '{namespace="shop",platform="demo"}'
    assert f"avg_over_time(process_resident_memory_bytes{scope}[20s])" in first["query"][0]
    assert "[40s]" in last["query"][0]


def test_a_run_that_needs_a_prometheus_does_not_begin_without_one_that_knows_the_platform(server: str) -> None:
    required("", "", PLAIN, "give one")
    with pytest.raises(FactsError, match=r"^long judges what the platform's processes use.*: give one$"):
        required("", "", SCENARIO, "give one")
    Answering.answer = instant()
    with pytest.raises(FactsError, match=r"knows no process_resident_memory_bytes\{component!=\"\"\}"):
        required(server, "", SCENARIO, "")
    Answering.answer = instant(feed=1)
    required(server, "", SCENARIO, "")
