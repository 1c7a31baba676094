from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanfold.kit.text import free_text


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("  hello \n", "hello"),
        ("one\r\ntwo\rthree", "one\ntwo\nthree"),
        ("Cafe\u0301", "Caf\u00e9"),
        ("tab\there", "tab\there"),
        ("👩‍🚀 ❤️", "👩‍🚀 ❤️"),
        ("שלום\u200f!", "שלום\u200f!"),
    ],
)
def test_text_is_trimmed_and_normalized_and_keeps_what_scripts_need(written: str, kept: str) -> None:
    assert free_text(written) == kept


@pytest.mark.parametrize("bad", ["a\0b", "a\x1bb", "a\ud800b", "a\x85b"])
def test_control_characters_and_broken_pairs_are_refused(bad: str) -> None:
    with pytest.raises(ValueError, match="control characters"):
        free_text(bad)


@given(st.text())
def test_clean_text_stays_as_it_is(text: str) -> None:
    try:
        clean = free_text(text)
    except ValueError:
        return
    assert free_text(clean) == clean
