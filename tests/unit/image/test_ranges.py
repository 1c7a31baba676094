from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanfold.image.ranges import Span, UnsatisfiableError, requested_span


@pytest.mark.parametrize(
    ("header", "start", "length"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=2-5", 2, 4),
        ("bytes=90-", 90, 10),
        ("bytes=-7", 93, 7),
        ("bytes=95-500", 95, 5),
        ("bytes=-500", 0, 100),
    ],
)
def test_one_range_is_understood(header: str, start: int, length: int) -> None:
    assert requested_span(header, 100) == Span(start, length, 100)


def test_the_answer_names_first_and_last_byte_and_the_size() -> None:
    assert Span(2, 4, 100).content_range == "bytes 2-5/100"


@pytest.mark.parametrize("header", [None, "", "bytes=-", "bytes=5-2", "bytes=0-1,5-6", "items=0-1", "bytes=a-b", "0-1"])
def test_what_is_no_single_byte_range_is_ignored(header: str | None) -> None:
    assert requested_span(header, 100) is None


@pytest.mark.parametrize("header", ["bytes=100-", "bytes=100-200", "bytes=-0"])
def test_a_range_beyond_the_end_cannot_be_satisfied(header: str) -> None:
    with pytest.raises(UnsatisfiableError):
        requested_span(header, 100)


@given(st.text(alphabet="bytes=-,0123456789 ", max_size=20), st.integers(1, 1_000))
def test_a_span_always_lies_within_the_representation(header: str, size: int) -> None:
    try:
        span = requested_span(header, size)
    except UnsatisfiableError:
        return
    if span is not None:
        assert 0 <= span.start < span.start + span.length <= size
