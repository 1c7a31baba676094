from __future__ import annotations

import os
from uuid import uuid4

import pytest

from fanfold.kit.errors import BadRequest
from fanfold.kit.pagination import CursorCodec

KEY = os.urandom(32).hex()


def test_a_cursor_leads_back_to_its_position() -> None:
    position = uuid4()
    codec = CursorCodec(KEY, "feed")
    assert codec.decode(codec.encode(position)) == position
    assert codec.decode(None) is None


def test_a_cursor_of_one_list_is_refused_by_another() -> None:
    with pytest.raises(BadRequest, match="next_cursor"):
        CursorCodec(KEY, "followers").decode(CursorCodec(KEY, "feed").encode(uuid4()))


@pytest.mark.parametrize("cursor", ["", "x", "!!!", "A" * 32, "é"])
def test_an_invented_cursor_is_refused(cursor: str) -> None:
    with pytest.raises(BadRequest):
        CursorCodec(KEY, "feed").decode(cursor)
