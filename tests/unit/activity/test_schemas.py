from __future__ import annotations

import pytest
from pydantic import ValidationError

from fanfold.activity.schemas import MAX_TEXT, NewComment


def test_a_comment_is_trimmed() -> None:
    assert NewComment(text=" nice \n").text == "nice"


def test_a_comment_of_the_greatest_length_is_taken() -> None:
    assert len(NewComment(text="x" * MAX_TEXT).text) == MAX_TEXT


@pytest.mark.parametrize(
    ("text", "complaint"),
    [(" \n ", "write something"), ("x" * (MAX_TEXT + 1), "at most 2000"), ("a\0b", "control characters")],
)
def test_a_comment_that_cannot_be_is_refused_with_the_reason(text: str, complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        NewComment(text=text)
