from __future__ import annotations

import pytest

from fanfold.contracts.blobs import VariantsBlob
from fanfold.profile.pictures import best_path


def variants(*widths: int, formats: tuple[str, ...] = ("avif", "webp", "jpeg")) -> VariantsBlob:
    return VariantsBlob("abc/{width}.{format}", list(widths), list(formats))


@pytest.mark.parametrize(
    ("given", "path"),
    [
        (variants(150, 320, 640, 1080), "abc/320.jpeg"),
        (variants(640, 1080), "abc/640.jpeg"),
        (variants(100, 150), "abc/150.jpeg"),
        (variants(320, formats=("avif", "webp")), "abc/320.webp"),
        (None, ""),
    ],
)
def test_a_profile_picture_is_the_smallest_variant_that_is_wide_enough(given: VariantsBlob | None, path: str) -> None:
    assert best_path(given) == path
