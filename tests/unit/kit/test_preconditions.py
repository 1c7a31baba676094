"""Conditions of requests."""

from __future__ import annotations

import pytest

from fanfold.kit.errors import PreconditionFailed
from fanfold.kit.preconditions import Precondition, entity_tag, matches


@pytest.mark.parametrize("tag", ['"a"', 'W/"a"'])
@pytest.mark.parametrize(
    ("header", "expected"),
    [(None, False), ('W/"a"', True), ('"a"', True), ('"b", W/"a"', True), ("*", True), ('"b"', False), ("", False)],
)
def test_if_none_match_compares_weakly_with_each_of_its_tags(tag: str, header: str | None, expected: bool) -> None:
    assert matches(header, tag) is expected


def test_if_match_takes_the_tag_of_what_is_there_and_no_weak_one() -> None:
    tag = entity_tag("caption")
    for fine in (None, tag, f'"x", {tag}', "*"):
        Precondition(fine).check(tag)
    for wrong in ("", '"x"', f"W/{tag}", tag.strip('"')):
        with pytest.raises(PreconditionFailed):
            Precondition(wrong).check(tag)
