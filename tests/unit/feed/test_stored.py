"""What a reader makes of a feed's elements."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from fanfold.contracts.ids import new_id
from fanfold.feed.stored import EVERYTHING, UNARMED, WHOLE, build, floor_of, header, parse

TICK = b"1700000000000000"


def posts(count: int) -> list[bytes]:
    """Newest first."""
    return sorted((new_id().bytes + new_id().bytes for _ in range(count)), reverse=True)


@given(st.integers(0, 30), st.integers(1, 20), st.lists(st.binary(min_size=16, max_size=16), max_size=3), st.randoms())
def test_what_is_built_and_pushed_in_any_order_and_twice_is_read_newest_first_and_once(
    rebuilt: int, asked: int, celebrities: list[bytes], chance: random.Random
) -> None:
    old, pushed = posts(rebuilt)[:asked], posts(5)
    late = [*pushed, *chance.choices(pushed, k=3)]
    chance.shuffle(late)
    feed = parse([*build(old, TICK, asked, b"".join(celebrities)), *late])
    assert feed is not None
    assert feed.members == pushed + old
    assert feed.celebrities == celebrities
    assert feed.complete == (len(old) < asked)


def test_posts_below_the_floor_are_not_known_in_full_and_left_out() -> None:
    newest, above, below, oldest = posts(4)
    feed = parse([header(WHOLE, TICK, above[:16]), oldest, newest, below, above])
    assert feed is not None
    assert feed.members == [newest, above]
    assert not feed.complete


def test_nothing_and_what_is_being_rebuilt_is_no_feed() -> None:
    assert parse([]) is None
    assert parse([header(b"\1" * 16, UNARMED), *posts(2)]) is None


def test_the_floor_is_the_last_of_as_many_as_were_asked_for() -> None:
    three = posts(3)
    assert floor_of(three, 3) == three[-1][:16]
    assert floor_of(three, 4) == floor_of([], 4) == EVERYTHING
