from __future__ import annotations

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from fanfold.kit.recent import Mirrored
from fanfold.post.repository import NEWEST
from fanfold.post.timelines import member, window

AUTHOR = UUID(int=7)


def _members(*numbers: int) -> list[bytes]:
    return [member(UUID(int=number), AUTHOR) for number in numbers]


def test_a_page_within_the_mirror_is_cut_from_it() -> None:
    mirrored = Mirrored(_members(5, 4, 3, 2, 1), complete=False)
    assert window(mirrored, NEWEST, 2) == (_members(5, 4), True)
    assert window(mirrored, UUID(int=4), 2) == (_members(3, 2), True)


def test_a_page_past_an_incomplete_mirror_is_not_guessed() -> None:
    assert window(Mirrored(_members(5, 4), complete=False), NEWEST, 2) is None


def test_a_page_past_a_complete_mirror_is_the_last() -> None:
    mirrored = Mirrored(_members(5, 4), complete=True)
    assert window(mirrored, NEWEST, 2) == (_members(5, 4), False)
    assert window(mirrored, UUID(int=4), 2) == ([], False)


@given(st.sets(st.integers(1, 60)), st.integers(1, 30), st.integers(1, 70), st.integers(1, 10))
def test_a_page_is_what_all_rows_would_give(rows: set[int], length: int, before: int, limit: int) -> None:
    newest = sorted(rows, reverse=True)
    found = window(Mirrored(_members(*newest[:length]), len(newest) < length), UUID(int=before), limit)
    below = [number for number in newest if number < before]
    if found is not None:
        assert found == (_members(*below[:limit]), len(below) > limit)
    else:
        assert len(newest) >= length
