from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanfold.follow.celebrities import is_celebrity

COUNTS = st.integers(0, 2_000)


@pytest.mark.parametrize(
    ("total", "was", "now"),
    [
        (1_000, False, False),
        (1_001, False, True),
        (1_000, True, True),
        (901, True, True),
        (900, True, False),
        (901, False, False),
        (0, True, False),
    ],
)
def test_a_celebrity_is_above_the_threshold_and_stays_one_until_a_tenth_below(total: int, was: bool, now: bool) -> None:
    assert is_celebrity(total, 1_000, was=was) is now


@given(st.integers(1, 1_000), COUNTS, st.booleans())
def test_deciding_twice_on_one_count_changes_nothing_more(threshold: int, total: int, was: bool) -> None:
    once = is_celebrity(total, threshold, was=was)
    assert is_celebrity(total, threshold, was=once) == once


@given(st.integers(1, 1_000), COUNTS, COUNTS, st.booleans())
def test_more_followers_never_make_less_of_a_celebrity(threshold: int, total: int, more: int, was: bool) -> None:
    assert is_celebrity(total + more, threshold, was=was) >= is_celebrity(total, threshold, was=was)


@given(st.integers(1, 1_000), COUNTS, st.booleans())
def test_a_count_that_ends_above_the_threshold_decides_as_the_whole_would(
    threshold: int, total: int, was: bool
) -> None:
    bounded = min(total, threshold + 1)
    assert is_celebrity(bounded, threshold, was=was) == is_celebrity(total, threshold, was=was)


@given(st.integers(1, 1_000))
def test_with_nobody_following_nobody_is_a_celebrity(threshold: int) -> None:
    assert not is_celebrity(0, threshold, was=True)
