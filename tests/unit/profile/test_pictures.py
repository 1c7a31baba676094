from __future__ import annotations

import pytest

from fanfold.contracts.blobs import VariantBlob
from fanfold.profile.pictures import best_path


def variants(*widths: int, formats: tuple[str, ...] = ("avif", "webp", "jpeg")) -> list[VariantBlob]:
    return [VariantBlob(width, width, name, f"{width}.{name}") for width in widths for name in formats]


@pytest.mark.parametrize(
    ("given", "path"),
    [
        (variants(150, 320, 640, 1080), "320.jpeg"),
        (variants(640, 1080), "640.jpeg"),
        (variants(100, 150), "150.jpeg"),
        (variants(320, formats=("avif", "webp")), "320.webp"),
        ([], ""),
    ],
)
def test_a_profile_picture_is_the_smallest_variant_that_is_wide_enough(given: list[VariantBlob], path: str) -> None:
    assert best_path(given) == path
