from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from pydantic import ValidationError

from fanfold.post.schemas import MAX_CAPTION, CaptionChange, NewPost

IMAGE = str(uuid4())


def test_a_post_of_one_image_needs_nothing_else() -> None:
    new = NewPost.model_validate({"image_ids": [IMAGE]})
    assert (new.caption, new.alt_texts) == ("", [])


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ({"image_ids": []}, "at least 1"),
        ({"image_ids": [str(uuid4()) for _ in range(11)]}, "at most 10"),
        ({"image_ids": [IMAGE, IMAGE]}, "name each image once"),
        ({"image_ids": [IMAGE], "alt_texts": ["a", "b"]}, "more alt_texts than image_ids"),
        ({"image_ids": [IMAGE], "caption": "x" * (MAX_CAPTION + 1)}, "at most 2200"),
        ({"image_ids": [IMAGE], "caption": "a\0b"}, "control characters"),
        ({"image_ids": [IMAGE], "capton": "typing error"}, "not permitted"),
        ({"image_ids": ["not an id"]}, "UUID"),
    ],
)
def test_a_body_that_cannot_be_is_refused_with_the_reason(body: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        NewPost.model_validate(body)


def test_a_caption_is_trimmed_and_normalized_but_keeps_its_lines_and_emoji() -> None:
    assert CaptionChange(caption="  Cafe\u0301\r\nat the lake 👩‍🚀 ").caption == "Café\nat the lake 👩‍🚀"
