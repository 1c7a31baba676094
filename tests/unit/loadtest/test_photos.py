from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from fanfold_loadtest.photos import PHOTOS, Photo, PhotosMissingError

DOCUMENT = Path(__file__).parents[3] / "docs" / "photos.md"


def rows() -> list[str]:
    """Lines of the document's table that name a file."""
    lines = DOCUMENT.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.startswith("| ") and "`sk" in line]


@pytest.mark.parametrize("photo", PHOTOS, ids=lambda photo: photo.name)
def test_every_photograph_is_there_and_decodes_as_its_media_type(photo: Photo) -> None:
    with Image.open(photo.path) as picture:
        picture.load()
        assert f"image/{str(picture.format).lower()}" == photo.media_type
        assert min(picture.size) >= 300


@pytest.mark.parametrize("photo", PHOTOS, ids=lambda photo: photo.name)
def test_every_photograph_is_named_in_the_document_with_its_file_size_and_author(photo: Photo) -> None:
    (row,) = [row for row in rows() if row.startswith(f"| {photo.name} |")]
    assert f"`{photo.package}/{photo.file}`" in row
    with Image.open(photo.path) as picture:
        assert f"{picture.width} x {picture.height}" in row
    assert all(name in row for name in photo.credit.replace(" and others", "").split(", "))


def test_the_document_names_no_photograph_that_is_not_used() -> None:
    assert [row.split("|")[1].strip() for row in rows()] == [photo.name for photo in PHOTOS]


def test_a_missing_package_is_named_with_the_way_to_get_it() -> None:
    photo = Photo("none", "no_such_package", "a.jpg", "CC0-1.0", "nobody", "")
    with pytest.raises(PhotosMissingError, match=r"no_such_package.*fanfold-loadtest\[photos\]"):
        _ = photo.path


def test_finding_photographs_and_the_command_import_neither_their_packages_nor_gevent() -> None:
    script = (
        "import sys, fanfold_loadtest.cli, fanfold_loadtest.photos as p; p.PHOTOS[0].path; p.PHOTOS[-1].path; "
        "import socket; print(socket.socket.__module__, {'gevent', 'locust', 'skimage', 'sklearn'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout.strip() == "socket set()"
