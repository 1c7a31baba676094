"""Metrics of pods are read within bounds, and what a target does wrong is its own affair."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiohttp import web

from fanfold_operator.ring.endpoints import admin_ports
from fanfold_operator.ring.slots import Endpoint
from fanfold_operator.scrape import CONCURRENCY, Sample, Scrape, Scraper, parse

TEXT = """# HELP fanfold_x_total Things.
# TYPE fanfold_x_total counter
fanfold_x_total{service="feed",outcome="2xx"} 5.0
fanfold_x_total{service="feed",outcome="5xx"} 2.0
fanfold_x_total{service="post",outcome="2xx",odd="a \\"}{ b"} 1.0
# TYPE fanfold_up gauge
fanfold_up 1.0
"""
Serve = Callable[[Callable[[web.Request], Awaitable[web.StreamResponse]]], Awaitable[str]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    runners = []

    async def start(handle: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> str:
        app = web.Application()
        app.router.add_get("/metrics", handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        runners.append(runner)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return f"127.0.0.1:{runner.addresses[0][1]}"

    yield start
    for runner in runners:
        await runner.cleanup()


@pytest.fixture
async def scraper() -> AsyncIterator[Scraper]:
    scraper = Scraper(timeout_seconds=30, limit_bytes=10_000)
    yield scraper
    await scraper.close()


async def answer(_: web.Request) -> web.Response:
    return web.Response(text=TEXT)


def test_samples_are_selected_summed_and_grouped() -> None:
    scrape = Scrape("x", parse(TEXT))
    assert scrape.total("fanfold_x_total", service="feed") == 7
    assert scrape.total("fanfold_up") == 1
    assert scrape.total("fanfold_x_total", service="follow") is None, "nothing said is not 0"
    assert scrape.by("outcome", "fanfold_x_total") == {"2xx": 6, "5xx": 2}
    assert [one.labels["odd"] for one in scrape.select("fanfold_x_total", service="post")] == ['a "}{ b']


def test_only_the_names_asked_for_are_parsed() -> None:
    broken = TEXT + 'other{a="b"} no-number\n'
    assert parse(broken, ["fanfold_up"]) == (Sample("fanfold_up", {}, 1.0),)
    with pytest.raises(ValueError, match="no-number"):
        parse(broken)


async def test_targets_answer_in_their_order_and_a_dead_one_says_why(serve: Serve, scraper: Scraper) -> None:
    alive = await serve(answer)
    first, second, third = await scraper.scrape([alive, "127.0.0.1:1", alive], ["fanfold_up"])
    assert first.total("fanfold_up") == third.total("fanfold_up") == 1
    assert second.samples == ()
    assert "127.0.0.1:1" in str(second.error)


async def test_a_target_that_hangs_or_drips_is_given_up(serve: Serve) -> None:
    async def hang(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"fanfold_up 1.0\n")
            await asyncio.sleep(0.1)

    impatient = Scraper(timeout_seconds=0.5, limit_bytes=10_000)
    (scrape,) = await asyncio.wait_for(impatient.scrape([await serve(hang)]), 30)
    await impatient.close()
    assert scrape.error == "no answer within 0.5 s"
    assert scrape.samples == ()


@pytest.mark.parametrize(
    ("response", "words"),
    [
        (web.Response(text="fanfold_up 1.0\n" * 1_000), "larger than 10000 bytes"),
        (web.Response(status=503), "answered 503"),
        (web.Response(status=302, headers={"Location": "http://127.0.0.1:1/"}), "answered 302"),
        (web.Response(body=b"\xff\xfe"), "UnicodeDecodeError"),
        (web.Response(text="<html>"), "ValueError"),
    ],
    ids=["too much", "unready", "elsewhere", "no text", "no metrics"],
)
async def test_what_is_no_metrics_is_an_error_of_that_target(
    serve: Serve, scraper: Scraper, response: web.Response, words: str
) -> None:
    async def handle(_: web.Request) -> web.Response:
        return response

    (scrape,) = await scraper.scrape([await serve(handle)])
    assert words in str(scrape.error)
    assert scrape.samples == ()


async def test_only_so_many_are_asked_at_once(serve: Serve, scraper: Scraper) -> None:
    now, most, full = 0, 0, asyncio.Event()

    async def count(_: web.Request) -> web.Response:
        nonlocal now, most
        now, most = now + 1, max(most, now + 1)
        if now == CONCURRENCY:
            full.set()
        await full.wait()
        await asyncio.sleep(0.02)  # as long as another might come
        now -= 1
        return web.Response(text=TEXT)

    target = await serve(count)
    scrapes = await scraper.scrape([target] * (CONCURRENCY * 3))
    assert all(scrape.error is None for scrape in scrapes)
    assert most == CONCURRENCY


def test_an_address_of_a_pod_becomes_a_target() -> None:
    assert admin_ports([Endpoint("10.0.0.7:8000", ready=True)]) == ["10.0.0.7:9000"]
    assert admin_ports([Endpoint("[fd00::7]:8000", ready=True)]) == ["[fd00::7]:9000"]
