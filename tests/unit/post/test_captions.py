from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanfold.post.captions import MAX_MENTIONS, MAX_TAG, MAX_TAGS, mentions, normalize_tag, tags


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("", []),
        ("no tags # here", []),
        ("#Lake at #dawn", ["lake", "dawn"]),
        ("#dawn #DAWN", ["dawn"]),
        ("#one#two", ["one"]),
        ("#snow_day, really", ["snow_day"]),
        ("we are #1", []),
        ("#2026goals", ["2026goals"]),
        ("see /page#top and &#39;", []),
        ("word#tag", []),
        ("#Straße", ["strasse"]),
        ("#हिन्दी", ["हिन्दी"]),
        ("#日本", ["日本"]),
        ("\uff03日本", ["日本"]),
        ("#" + "x" * MAX_TAG, ["x" * MAX_TAG]),
        ("#" + "x" * (MAX_TAG + 1), []),
    ],
)
def test_tags_are_found(caption: str, expected: list[str]) -> None:
    assert tags(caption) == expected


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("with @Ada and @bob.b", ["ada", "bob.b"]),
        ("thanks @ada.", ["ada"]),
        ("@ada @ADA", ["ada"]),
        ("write to me@example.com", []),
        ("https://example.com/@ada", []),
        ("@ab is too short, @" + "x" * 31 + " too long", []),
        ("(@ada)", ["ada"]),
        ("@@ada", []),
    ],
)
def test_mentions_are_found(caption: str, expected: list[str]) -> None:
    assert mentions(caption) == expected


def test_no_more_than_so_many_count() -> None:
    assert len(tags(" ".join(f"#tag{number}" for number in range(50)))) == MAX_TAGS
    assert len(mentions(" ".join(f"@user{number}" for number in range(50)))) == MAX_MENTIONS


@given(st.text())
def test_every_tag_is_normalized_and_found_again_by_itself(caption: str) -> None:
    for tag in tags(caption):
        assert normalize_tag(tag) == tag
        assert tags(f"#{tag}") == [tag]
