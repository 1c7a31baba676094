from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from fanfold.feed.window import ABOVE_ALL, Source, Window, page

posts = st.integers(0, 60).map(lambda number: number.to_bytes(16, "big") + b"a" * 16)


@st.composite
def cut_timelines(draw: st.DrawFn) -> tuple[list[bytes], list[Source]]:
    """All posts there are, and what is known of them: some timelines whole, some cut off."""
    everything: set[bytes] = set()
    sources = []
    for _ in range(draw(st.integers(1, 4))):
        timeline = sorted(draw(st.sets(posts, max_size=12)) - everything, reverse=True)
        everything.update(timeline)
        kept = draw(st.integers(0, len(timeline)))
        sources.append(Source(timeline[:kept], complete=kept == len(timeline)))
    return sorted(everything, reverse=True), sources


@given(cut_timelines(), st.integers(1, 15), posts)
def test_a_page_of_what_is_known_is_the_page_of_all_there_is_or_none(
    known: tuple[list[bytes], list[Source]], limit: int, before: bytes
) -> None:
    everything, sources = known
    window = page(sources, limit, before)
    if window is not None:
        below = [member for member in everything if member < before]
        assert window.members == below[:limit]
        assert window.more or len(below) <= limit, "the end is told only at the end"


@given(cut_timelines(), st.integers(1, 15))
def test_pages_are_newest_first_without_repeats(known: tuple[list[bytes], list[Source]], limit: int) -> None:
    window = page([*known[1], *known[1]], limit)
    if window is not None:
        assert all(one > other for one, other in pairwise(window.members))


def test_a_source_cut_off_before_its_first_post_hides_everything() -> None:
    newest = b"\x09" * 32
    assert page([Source([newest], complete=True), Source([], complete=False)], 1) is None


def test_the_cached_posts_are_a_page_even_if_more_may_be_below() -> None:
    cached = [bytes([number]) * 32 for number in (9, 8, 7)]
    assert page([Source(cached, complete=False)], 3) == Window(cached, more=True)
    assert page([Source(cached, complete=True)], 3) == Window(cached, more=False)
    assert page([Source(cached, complete=False)], 3, before=cached[0][:16]) is None


def test_everything_is_below_the_start() -> None:
    assert max(b"\xff" * 32, ABOVE_ALL) == ABOVE_ALL
