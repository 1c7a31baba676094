"""Photographs for all tests: real ones, and copies with the properties that cameras and attackers give them."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from PIL import ExifTags, Image, ImageChops, ImageCms, ImageOps, ImageStat

from fanfold_loadtest.photos import PHOTOS

Make = Callable[..., Path]

# What a property takes on a busy machine says nothing about it. Its examples are the same each time: no change shall
# fail for what was wrong before it. Others are drawn with `--hypothesis-profile=explore`.
_PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("fanfold", _PATIENT, derandomize=True)
settings.register_profile("explore", _PATIENT)
settings.load_profile("fanfold")


@pytest.fixture
def photo() -> Callable[[str], Path]:
    """Path of a real photograph by name."""
    paths = {entry.name: entry.path for entry in PHOTOS}
    return paths.__getitem__


@pytest.fixture
def camera_shot(tmp_path: Path, photo: Callable[[str], Path]) -> Make:
    """A real photograph as a phone stores it: turned, with GPS position, maker, comment and thumbnail data."""

    def make(orientation: int = 6, name: str = "temple", **save: Any) -> Path:
        turns = {1: None, 3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
        with Image.open(photo(name)) as picture:
            upright = picture.convert("RGB")
        turn = turns[orientation]
        stored = upright if turn is None else upright.transpose(turn)
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = orientation
        exif[ExifTags.Base.Make] = "SecretCameraMaker"
        exif.get_ifd(ExifTags.IFD.GPSInfo).update({1: "N", 2: (39.0, 59.0, 57.0), 3: "E", 4: (116.0, 16.0, 8.0)})
        path = tmp_path / f"shot-{orientation}.jpg"
        stored.save(path, quality=92, exif=exif, comment=b"SecretComment", xmp=b"<x:xmpmeta>SecretXmp</x>", **save)
        return path

    return make


@pytest.fixture
def wide_gamut_profile() -> bytes:
    """An ICC profile whose green and red are swapped against sRGB: a conversion cannot be overlooked."""
    xyz = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    red, green = xyz.index(b"rXYZ"), xyz.index(b"gXYZ")
    swapped = bytearray(xyz)
    swapped[red : red + 4], swapped[green : green + 4] = b"gXYZ", b"rXYZ"
    return bytes(swapped)


@pytest.fixture
def similar() -> Callable[[Image.Image, Image.Image], float]:
    """Mean difference of two pictures per channel, 0 to 255, after bringing them to one size."""

    def measure(one: Image.Image, other: Image.Image) -> float:
        size = (64, 64)
        difference = ImageChops.difference(
            ImageOps.fit(one.convert("RGB"), size), ImageOps.fit(other.convert("RGB"), size)
        )
        return sum(ImageStat.Stat(difference).mean) / 3

    return measure


@pytest.fixture
def png_claiming() -> Callable[[int, int], bytes]:
    """A PNG of a few bytes whose header claims any size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    def make(width: int, height: int) -> bytes:
        header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
        body = zlib.compress(bytes(1 << 20), 9)
        return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")

    return make


@pytest.fixture
def encoded() -> Callable[..., bytes]:
    def make(image: Image.Image, kind: str, **save: Any) -> bytes:
        buffer = io.BytesIO()
        image.save(buffer, kind, **save)
        return buffer.getvalue()

    return make
