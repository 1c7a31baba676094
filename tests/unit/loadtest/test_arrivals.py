from __future__ import annotations

import asyncio
import math
import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanfold_loadtest import arrivals
from fanfold_loadtest.arrivals import percentile, poisson, run_open


def test_the_same_seed_gives_the_same_arrivals_and_another_seed_others() -> None:
    assert poisson(50, 10, seed=1) == poisson(50, 10, seed=1)
    assert poisson(50, 10, seed=1) != poisson(50, 10, seed=2)


def test_arrivals_are_a_poisson_process_of_the_rate_asked_for() -> None:
    starts = poisson(200, 100, seed=7)
    assert starts == sorted(starts)
    assert starts[0] >= 0
    assert starts[-1] < 100
    assert abs(len(starts) - 20_000) < 5 * math.sqrt(20_000)
    gaps = [later - earlier for earlier, later in pairwise(starts)]
    mean = sum(gaps) / len(gaps)
    variance = sum((gap - mean) ** 2 for gap in gaps) / len(gaps)
    assert math.sqrt(variance) == pytest.approx(mean, rel=0.05)  # of an exponential: deviation equals mean


@pytest.mark.parametrize(("rate", "seconds"), [(0, 1), (-1, 1), (1, 0), (math.inf, 1), (math.nan, 1)])
def test_senseless_rates_and_times_are_refused(rate: float, seconds: float) -> None:
    with pytest.raises(ValueError, match="positive"):
        poisson(rate, seconds, seed=1)


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0.1, 100))
def test_a_percentile_is_the_least_value_that_so_many_do_not_exceed(values: list[float], percent: float) -> None:
    found = percentile(values, percent)
    assert found in values
    assert sum(value <= found for value in values) >= len(values) * percent / 100 - 1e-9
    smaller = [value for value in values if value < found]
    assert len(smaller) < len(values) * percent / 100 + 1e-9


def test_known_percentiles() -> None:
    values = [float(number) for number in range(1, 101)]
    assert [percentile(values, p) for p in (1, 50, 99, 100)] == [1, 50, 99, 100]
    assert percentile([3.0], 99) == 3
    assert math.isnan(percentile([], 50))
    with pytest.raises(ValueError, match="percentile"):
        percentile(values, 0)


async def test_a_stall_is_seen_by_every_request_that_should_have_been_sent_meanwhile() -> None:
    free = asyncio.Event()

    async def request(number: int) -> None:
        if number == 0:
            await asyncio.sleep(0.3)
            free.set()
        await free.wait()

    measured = await run_open([0.01 * n for n in range(20)], request)
    # A closed loop would have sent one slow request and nineteen fast ones.
    assert sum(latency > 0.1 for latency in measured.latencies) == 20
    assert measured.failures == []


async def test_latency_counts_from_the_intended_start_even_when_the_generator_was_late() -> None:
    async def request(number: int) -> None:
        if number == 0:
            time.sleep(0.2)  # noqa: ASYNC251 - blocks the generator itself

    measured = await run_open([0.0, 0.05], request)
    assert measured.late >= 1
    assert max(measured.latencies) >= 0.15
    assert len([latency for latency in measured.latencies if latency >= 0.1]) == 2


async def test_failures_are_counted_and_are_not_among_the_latencies() -> None:
    async def request(number: int) -> None:
        if number % 2:
            raise RuntimeError("no")

    measured = await run_open([0.0] * 10, request)
    assert (len(measured.latencies), len(measured.failures), measured.requests) == (5, 5, 10)
    assert measured.failures[0] == "RuntimeError: no"


async def test_requests_without_an_answer_fail_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrivals, "DRAIN_SECONDS", 0.1)
    measured = await run_open([0.0, 0.0], lambda _: asyncio.sleep(60))
    assert len(measured.failures) == 2
    assert measured.latencies == []
