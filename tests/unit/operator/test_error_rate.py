"""What the gateways' counters tell while a new version is rolled out."""

from __future__ import annotations

from fanfold_operator.error_rate import REQUESTS, WINDOW_SECONDS, Window
from fanfold_operator.planning.upgrade import ErrorRate
from fanfold_operator.scrape import Sample, Scrape


def told(target: str, fine: int, failed: int, route: str = "/v1/feed") -> Scrape:
    counts = {"200": fine, "404": 1, "503": failed}
    return Scrape(
        target, tuple(Sample(REQUESTS, {"route": route, "status": status}, n) for status, n in counts.items())
    )


def test_counting_begins_with_the_first_look() -> None:
    window = Window()
    assert window.add(0, [told("a", 1000, 50)]) == ErrorRate(0, 0)
    assert window.add(2, [told("a", 1010, 53)]) == ErrorRate(13, 3)


def test_gateways_are_added_up_and_one_that_goes_takes_nothing_back() -> None:
    window = Window()
    window.add(0, [told("a", 10, 0), told("b", 10, 0)])
    assert window.add(2, [told("a", 20, 1), told("b", 10, 2)]) == ErrorRate(13, 3)
    assert window.add(4, [told("b", 10, 2), told("c", 500, 9)]) == ErrorRate(13, 3)


def test_a_counter_that_went_back_began_anew() -> None:
    window = Window()
    window.add(0, [told("a", 1000, 50)])
    assert window.add(2, [told("a", 5, 2)]) == ErrorRate(8, 2)


def test_what_is_long_ago_does_not_count() -> None:
    window = Window()
    window.add(0, [told("a", 0, 0)])
    assert window.add(2, [told("a", 10, 10)]).errors == 10
    assert window.add(2 + WINDOW_SECONDS - 0.1, [told("a", 10, 10)]).errors == 10
    assert window.add(2 + WINDOW_SECONDS, [told("a", 10, 10)]) == ErrorRate(0, 0)


def test_silence_of_all_gateways_is_not_known_and_no_gateway_is_no_failure() -> None:
    silent = Scrape("a", error="no answer within 2 s")
    assert not Window().add(0, [silent]).known
    assert Window().add(0, [silent, told("b", 1, 0)]).known
    assert Window().add(0, []) == ErrorRate()
