from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image, ImageCms

from fanfold.image.pictures import (
    ENCODERS,
    VARIANT_SIDE,
    WIDTHS,
    Limits,
    PictureError,
    inspect,
    plan_sizes,
    render,
    sniff,
)

LIMITS = Limits()
Find = Callable[[str], Path]


def refusal(path: Path, limits: Limits = LIMITS) -> PictureError:
    with pytest.raises(PictureError) as caught:
        inspect(str(path), limits)
    return caught.value


def written(tmp_path: Path, data: bytes, name: str = "upload.jpg") -> Path:
    path = tmp_path / name
    path.write_bytes(data)
    return path


# ---- sizes ----------------------------------------------------------------------------------------------------------


@given(st.integers(1, 60_000), st.integers(1, 60_000))
@example(1, 60_000)
@example(60_000, 1)
def test_variants_are_never_enlarged_and_stay_within_what_all_formats_hold(width: int, height: int) -> None:
    sizes = plan_sizes(width, height)
    assert sizes == sorted(sizes)
    assert len(set(sizes)) == len(sizes)
    for w, h in sizes:
        assert 1 <= w <= min(width, WIDTHS[-1])
        assert 1 <= h <= min(height, VARIANT_SIDE)


def test_a_large_photo_gets_all_widths_and_a_small_one_its_own_as_the_largest() -> None:
    assert plan_sizes(4000, 3000) == [(150, 112), (320, 240), (640, 480), (1080, 810)]
    assert plan_sizes(512, 512) == [(150, 150), (320, 320), (512, 512)]
    assert plan_sizes(320, 200) == [(150, 94), (320, 200)]
    assert plan_sizes(3, 2) == [(3, 2)]


# ---- what is accepted -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["astronaut", "chelsea", "camera", "deep-field", "retina", "dahlia"])
def test_real_photographs_are_accepted_with_their_size(photo: Find, name: str) -> None:
    path = photo(name)
    with Image.open(path) as picture:
        size = picture.size
    found = inspect(str(path), LIMITS)
    assert (found.width, found.height) == size
    assert len(found.blurhash) == 28  # 1 + 1 + 4 + 2 * (4 * 3 - 1) characters, by the format's definition


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "GIF"])
def test_every_promised_format_is_read_whatever_its_name(
    photo: Find, tmp_path: Path, encoded: Callable[..., bytes], kind: str
) -> None:
    with Image.open(photo("coffee")) as picture:
        path = written(tmp_path, encoded(picture.convert("RGB"), kind), "upload.bin")
    assert inspect(str(path), LIMITS).format == kind.lower()
    assert len(render(str(path), str(tmp_path), LIMITS)) == 3 * 3  # 150, 320, 600


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16"])
def test_every_kind_of_pixel_becomes_a_picture_that_looks_the_same(
    photo: Find,
    tmp_path: Path,
    encoded: Callable[..., bytes],
    similar: Callable[[Image.Image, Image.Image], float],
    mode: str,
) -> None:
    with Image.open(photo("camera")) as picture:
        grey = picture.convert("L")
    stored = (
        grey.convert("I").point(lambda value: value * 256).convert("I;16") if mode == "I;16" else grey.convert(mode)
    )
    path = written(tmp_path, encoded(stored, "JPEG" if mode == "CMYK" else "PNG"))
    render(str(path), str(tmp_path), LIMITS)
    expected = stored.convert("L") if mode == "1" else grey
    with Image.open(tmp_path / "512.jpeg") as variant:
        assert similar(variant, expected) < 4


def test_transparency_is_laid_on_white(tmp_path: Path) -> None:
    path = tmp_path / "glass.png"
    Image.new("RGBA", (200, 100), (255, 0, 0, 0)).save(path)
    for variant in render(str(path), str(tmp_path), LIMITS):
        with Image.open(tmp_path / variant.name) as picture:
            assert picture.mode == "RGB"
            assert picture.getextrema()[0][0] >= 250  # type: ignore[index]  # RGB: one pair per channel


def test_a_phone_photo_with_a_second_view_is_a_still_picture(photo: Find, tmp_path: Path) -> None:
    path = tmp_path / "stereo.jpg"
    with Image.open(photo("temple")) as left, Image.open(photo("dahlia")) as right:
        left.save(path, "MPO", save_all=True, append_images=[right])
    assert inspect(str(path), LIMITS).format == "jpeg"


# ---- orientation, colours, metadata ---------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_orientation_is_applied_to_the_size_and_to_the_pixels(
    photo: Find,
    tmp_path: Path,
    camera_shot: Callable[..., Path],
    similar: Callable[[Image.Image, Image.Image], float],
    orientation: int,
) -> None:
    shot = str(camera_shot(orientation))
    found = inspect(shot, LIMITS)
    assert (found.width, found.height) == (640, 427)
    for variant in render(shot, str(tmp_path), LIMITS):
        with Image.open(tmp_path / variant.name) as picture, Image.open(photo("temple")) as upright:
            assert picture.size == (variant.width, variant.height)
            assert abs(picture.width / picture.height - 640 / 427) < 0.02
            assert similar(picture, upright) < 6


def test_the_blurhash_is_that_of_the_upright_picture(photo: Find, camera_shot: Callable[..., Path]) -> None:
    upright = inspect(str(photo("temple")), LIMITS).blurhash
    turned = inspect(str(camera_shot(6)), LIMITS).blurhash
    assert upright[:1] == turned[:1]  # the same number of components, so the same aspect
    assert upright[2:6] == turned[2:6] or upright[2:5] == turned[2:5]  # the mean colour, but for JPEG's rounding


def test_no_metadata_survives_in_any_variant(tmp_path: Path, camera_shot: Callable[..., Path]) -> None:
    shot = camera_shot(6)
    original = shot.read_bytes()
    assert b"SecretCameraMaker" in original
    assert b"SecretComment" in original
    assert b"SecretXmp" in original
    for variant in render(str(shot), str(tmp_path), LIMITS):
        data = (tmp_path / variant.name).read_bytes()
        assert b"Secret" not in data
        assert b"Exif" not in data
        with Image.open(tmp_path / variant.name) as picture:
            picture.load()
            assert not dict(picture.getexif())
            assert not {"exif", "xmp", "icc_profile", "comment"} & set(picture.info)


def test_colours_are_converted_to_srgb(
    photo: Find, tmp_path: Path, wide_gamut_profile: bytes, similar: Callable[[Image.Image, Image.Image], float]
) -> None:
    path = tmp_path / "profile.png"
    with Image.open(photo("coffee")) as picture:
        plain = picture.convert("RGB")
    plain.save(path, icc_profile=wide_gamut_profile)
    render(str(path), str(tmp_path), LIMITS)
    profile = ImageCms.ImageCmsProfile(io.BytesIO(wide_gamut_profile))
    expected = ImageCms.profileToProfile(plain, profile, ImageCms.createProfile("sRGB"))
    assert expected is not None
    assert similar(plain, expected) > 10  # or the test would pass without a conversion
    for name in ENCODERS:
        with Image.open(tmp_path / f"600.{name}") as variant:
            assert similar(variant, expected) < 4


@pytest.mark.parametrize("profile", [b"nonsense", b"\0" * 200])
def test_a_broken_colour_profile_or_exif_is_no_reason_to_refuse(photo: Find, tmp_path: Path, profile: bytes) -> None:
    path = tmp_path / "broken.jpg"
    with Image.open(photo("coffee")) as picture:
        picture.convert("RGB").save(path, icc_profile=profile, exif=b"Exif\0\0MM\0*garbage" * 3)
    assert inspect(str(path), LIMITS).width == 600
    assert render(str(path), str(tmp_path), LIMITS)


def test_variants_have_the_promised_formats_and_sizes(photo: Find, tmp_path: Path) -> None:
    variants = render(str(photo("retina")), str(tmp_path), LIMITS)
    assert {(v.width, v.format) for v in variants} == {(w, f) for w in WIDTHS for f in ENCODERS}
    for variant in variants:
        with Image.open(tmp_path / variant.name) as picture:
            picture.load()
            assert (picture.width, picture.height) == (variant.width, variant.height)
            assert picture.format == variant.format.upper()
            if variant.format == "jpeg":
                assert picture.info.get("progressive")


def test_rendering_twice_gives_the_same_bytes(photo: Find, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
        render(str(photo("chelsea")), str(folder), LIMITS)
    names = [path.name for path in one.iterdir()]
    assert names
    assert all((one / name).read_bytes() == (two / name).read_bytes() for name in names)


# ---- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello, I am a text\n" * 50,
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"%PDF-1.7",
        b"BM" + bytes(60),
        b"II*\0" + bytes(60),
        b"\0\0\0\x18ftypheic" + bytes(60),
        b"PK\x03\x04" + bytes(60),
    ],
)
def test_what_is_no_picture_by_its_first_bytes_is_refused_whatever_its_name(tmp_path: Path, data: bytes) -> None:
    assert sniff(data[:64]) is None
    assert refusal(written(tmp_path, data, "holiday.jpg")).kind == "unsupported-media"


def test_a_bomb_is_refused_by_its_header(tmp_path: Path, png_claiming: Callable[[int, int], bytes]) -> None:
    error = refusal(written(tmp_path, png_claiming(50_000, 50_000)))
    assert error.kind == "too-many-pixels"
    assert "50000 x 50000" in error.detail
    assert "50,000,000" in error.detail


def test_the_pixel_limit_is_exact(tmp_path: Path) -> None:
    path = tmp_path / "exact.png"
    Image.new("L", (100, 100)).save(path)
    assert inspect(str(path), Limits(pixels=10_000)).width == 100
    assert refusal(path, Limits(pixels=9_999)).kind == "too-many-pixels"


def test_a_picture_longer_than_any_side_limit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "line.png"
    Image.new("1", (60_001, 1)).save(path)
    assert refusal(path).kind == "too-many-pixels"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "GIF"])
@pytest.mark.parametrize("kept", [0.9, 0.5, 0.1])
def test_a_truncated_file_is_refused(
    photo: Find, tmp_path: Path, encoded: Callable[..., bytes], kind: str, kept: float
) -> None:
    with Image.open(photo("coffee")) as picture:
        data = encoded(picture.convert("RGB"), kind)
    assert refusal(written(tmp_path, data[: int(len(data) * kept)])).kind == "damaged-image"


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_that_lost_its_last_tenth_is_refused_even_though_it_is_decoded_small(
    photo: Find, tmp_path: Path, encoded: Callable[..., bytes], *, progressive: bool
) -> None:
    with Image.open(photo("retina")) as picture:
        data = encoded(picture, "JPEG", quality=95, progressive=progressive)
    assert refusal(written(tmp_path, data[: len(data) * 9 // 10])).kind == "damaged-image"


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "AVIF", "PNG"])
def test_animations_are_refused_or_their_first_frame_is_taken(
    photo: Find, tmp_path: Path, similar: Callable[[Image.Image, Image.Image], float], kind: str
) -> None:
    path = tmp_path / f"moving.{kind.lower()}"
    with Image.open(photo("coffee")) as first, Image.open(photo("chelsea")) as other:
        frames = [first.convert("RGB"), other.convert("RGB").resize(first.size)]
    frames[0].save(path, kind, save_all=True, append_images=frames[1:], duration=100)
    assert refusal(path).kind == "animated-image"
    limits = Limits(first_frame=True)
    assert inspect(str(path), limits).width == 600
    render(str(path), str(tmp_path), limits)
    with Image.open(tmp_path / "600.webp") as variant:
        assert similar(variant, frames[0]) < 8


def test_what_is_appended_to_a_picture_does_not_reach_its_variants(photo: Find, tmp_path: Path) -> None:
    payload = b"PK\x03\x04 archive <script>alert(1)</script>"
    path = written(tmp_path, photo("temple").read_bytes() + payload)
    assert inspect(str(path), LIMITS).format == "jpeg"
    for variant in render(str(path), str(tmp_path), LIMITS):
        assert b"script" not in (tmp_path / variant.name).read_bytes()


def test_a_file_is_decoded_as_what_it_is_taken_for_and_as_nothing_else(
    tmp_path: Path, encoded: Callable[..., bytes]
) -> None:
    # A good BMP that has an AVIF's marks where BMP readers do not look: no decoder but AVIF's may see it.
    polyglot = bytearray(encoded(Image.new("RGB", (20, 20), "red"), "BMP"))
    polyglot[4:8], polyglot[38:42] = b"ftyp", b"avif"
    path = written(tmp_path, bytes(polyglot))
    with Image.open(path) as picture:
        assert picture.format == "BMP"
    assert sniff(bytes(polyglot[:64])) == "AVIF"
    assert refusal(path).kind == "damaged-image"


@given(st.data())
def test_random_damage_is_refused_or_accepted_but_never_an_unexpected_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    picture = Image.linear_gradient("L").resize((40, 30)).convert("RGB")
    folder = tmp_path_factory.mktemp("fuzz")
    path = folder / "fuzzed"
    kind = data.draw(st.sampled_from(["JPEG", "PNG", "WEBP", "AVIF", "GIF"]))
    picture.save(path, kind)
    bytes_ = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        bytes_[data.draw(st.integers(0, len(bytes_) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes_)
    try:
        found = inspect(str(path), Limits(pixels=1_000_000))
        assert found.width * found.height <= 1_000_000
        render(str(path), str(folder), Limits(pixels=1_000_000))
    except PictureError:
        pass
