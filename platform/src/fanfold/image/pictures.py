"""Pictures in and out of bytes: sniffing, limits, and the variants. Runs in child processes: files are hostile.

Only what the file's first bytes say it is gets decoded, by that one decoder; sizes come from the header before any
pixel is made. What comes out is drawn anew from pixels alone, so that no metadata and no appended bytes survive.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from blurhash_rs import blurhash_encode
from PIL import Image, ImageCms
from PIL.Image import Resampling, Transpose

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

WIDTHS: Final = (150, 320, 640, 1080)
"""Widths of variants in pixels; the last one bounds the largest."""
VARIANT_SIDE: Final = 8_192
"""Longest height of a variant: WebP ends at 16,383, phones' textures at 8,192."""
SIDE: Final = 60_000
"""Longest side of an original: JPEG ends at 65,535, and row buffers grow with it."""
BLURHASH_WIDTH: Final = 64
HEAD_BYTES: Final = 64
_ORIENTATION_TAG: Final = 0x0112

# Quality is judged by eye at 1080 px; AVIF at speed 9 costs 3 % more bytes than at speed 8 and a fifth of the time.
ENCODERS: Final[dict[str, dict[str, Any]]] = {
    "avif": {"quality": 60, "speed": 9, "max_threads": 1},
    "webp": {"quality": 80, "method": 4},
    "jpeg": {"quality": 82, "progressive": True, "optimize": True},
}

# EXIF 2.32, tag 0x0112: what turns the stored rows and columns upright.
_UPRIGHT: Final[dict[int, Transpose]] = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
_SIDEWAYS: Final = (5, 6, 7, 8)

# `Limits.pixels` is checked for every file and always an error; Pillow's own limit only warns at first.
Image.MAX_IMAGE_PIXELS = None


class PictureError(Exception):
    """The file cannot be taken.

    Attributes:
        kind: ``unsupported-media``, ``too-many-pixels``, ``animated-image`` or ``damaged-image``.
        detail: One sentence that says what to do.
    """

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(kind, detail)  # both, or it could not be pickled on its way out of the child process
        self.kind = kind
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Limits:
    """What a picture may be: at most ``pixels``; of an animation the first frame, or it is refused."""

    pixels: int = 50_000_000
    first_frame: bool = False


@dataclass(frozen=True, slots=True)
class Inspected:
    """An accepted picture. Width and height in pixels, upright."""

    format: str
    width: int
    height: int
    blurhash: str


@dataclass(frozen=True, slots=True)
class Rendered:
    """One encoded variant, in the file ``name`` of the folder given to `render`."""

    width: int
    height: int
    format: str
    name: str


def sniff(head: bytes) -> str | None:
    """Format by the first bytes: ``JPEG``, ``PNG``, ``GIF``, ``WEBP`` or ``AVIF``; None for anything else."""
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[4:8] == b"ftyp" and (b"avif" in head[8:] or b"avis" in head[8:]):
        return "AVIF"
    return None


def plan_sizes(width: int, height: int) -> list[tuple[int, int]]:
    """Sizes of variants for a picture of this upright size, smallest first.

    By width, as feeds lay pictures out; never larger than the picture; tall ones end at `VARIANT_SIDE`.
    """
    largest = max(1, min(width, WIDTHS[-1], VARIANT_SIDE * width // height))
    widths = [*(step for step in WIDTHS if step < largest), largest]
    return [(step, max(1, min(VARIANT_SIDE, round(height * step / width)))) for step in widths]


def inspect(source: str, limits: Limits) -> Inspected:
    """Accept or refuse a file. Every pixel is decoded once, so that a truncated file is told now.

    Raises:
        PictureError: Not a picture, not supported, over a limit, animated or damaged.
    """
    with _quiet(), _open(source, limits) as image:
        kind = "JPEG" if image.format == "MPO" else str(image.format)
        width, height = _upright_size(image)
        small = _picture(image, (BLURHASH_WIDTH, max(1, min(BLURHASH_WIDTH * 4, height * BLURHASH_WIDTH // width))))
    components = (4, 3) if width >= height else (3, 4)
    return Inspected(format=kind.lower(), width=width, height=height, blurhash=blurhash_encode(small, *components))


def render(source: str, folder: str, limits: Limits) -> list[Rendered]:
    """Write all variants of a picture into ``folder``.

    Raises:
        PictureError: As `inspect`; originals in the store have passed it.
    """
    with _quiet(), _open(source, limits) as image:
        sizes = plan_sizes(*_upright_size(image))
        largest = _picture(image, sizes[-1])
    return [
        _encode(largest if size == largest.size else largest.resize(size, Resampling.LANCZOS), name, Path(folder))
        for size in sizes
        for name in ENCODERS
    ]


def _quiet() -> AbstractContextManager[object]:
    """Pillow warns of odd metadata; we drop all metadata."""
    return warnings.catch_warnings(action="ignore", category=UserWarning)


def _encode(image: Image.Image, name: str, folder: Path) -> Rendered:
    file = f"{image.width}.{name}"
    image.save(folder / file, name, **ENCODERS[name])
    return Rendered(width=image.width, height=image.height, format=name, name=file)


def _open(source: str, limits: Limits) -> Image.Image:
    with Path(source).open("rb") as file:
        kind = sniff(file.read(HEAD_BYTES))
    if kind is None:
        raise PictureError("unsupported-media", "This is not a JPEG, PNG, WebP, AVIF or GIF file: convert it first.")
    image: Image.Image = _guarded(lambda: Image.open(source, formats=(kind,)))
    try:
        _check(image, limits)
    except PictureError:
        image.close()
        raise
    return image


def _check(image: Image.Image, limits: Limits) -> None:
    width, height = image.size
    if width * height > limits.pixels or max(width, height) > SIDE:
        raise PictureError(
            "too-many-pixels",
            f"The picture is {width} x {height} pixels; at most {limits.pixels:,} pixels "
            f"and {SIDE:,} a side are taken: make it smaller.",
        )
    # A phone's JPEG may carry a second view (MPO): a still picture all the same.
    animated = image.format != "MPO" and _guarded(lambda: getattr(image, "is_animated", False))
    if animated and not limits.first_frame:
        raise PictureError("animated-image", "Animated pictures are not taken: send a still one.")


def _guarded(decode: Callable[[], Any]) -> Any:
    """Run a decoder. On hostile bytes Pillow's decoders raise nearly anything: to us it means one thing."""
    try:
        return decode()
    except MemoryError as error:
        raise PictureError("too-many-pixels", "Decoding takes too much memory: make the picture smaller.") from error
    except Exception as error:
        raise PictureError("damaged-image", f"The picture is damaged or cut off ({error}): send it again.") from error


def _orientation(image: Image.Image) -> int:
    """EXIF orientation; 1 (upright) where the EXIF data is missing or makes no sense."""
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # noqa: BLE001 - damaged EXIF is no reason to refuse the pixels
        return 1
    return value if value in _UPRIGHT else 1


def _upright_size(image: Image.Image) -> tuple[int, int]:
    width, height = image.size
    return (height, width) if _orientation(image) in _SIDEWAYS else (width, height)


def _picture(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Pixels of ``image``, upright, ``size`` at most, opaque, in sRGB, and nothing else.

    Large pictures are reduced before anything else: all later steps work on the small one.
    """
    turn = _UPRIGHT.get(_orientation(image))
    profile = image.info.get("icc_profile")
    stored = size[::-1] if _orientation(image) in _SIDEWAYS else size
    # The JPEG decoder can skip detail (scale 1/2, 1/4, 1/8): twice the target keeps the filter's quality.
    image.draft(None, (stored[0] * 2, stored[1] * 2))
    _guarded(image.load)
    small = _resized(image, (min(stored[0], image.width), min(stored[1], image.height)))
    opaque = _opaque(small)
    upright = opaque.transpose(turn) if turn is not None else opaque
    clean = _srgb(upright, profile)
    clean.info = {}
    return clean


def _resized(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    if image.mode in {"1", "P", "PA"}:
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    elif image.mode.startswith("I"):  # 16 bits of grey
        image = image.convert("I").point(lambda value: value * (1 / 256)).convert("L")
    return image.copy() if image.size == size else image.resize(size, Resampling.LANCZOS, reducing_gap=3.0)


def _opaque(image: Image.Image) -> Image.Image:
    """On white: JPEG has no transparency, and all formats of one picture look the same."""
    if not image.has_transparency_data:
        return image
    layer = image.convert("RGBA")
    ground = Image.new("RGB", layer.size, "white")
    ground.paste(layer, mask=layer.getchannel("A"))
    return ground


def _srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
        except (ImageCms.PyCMSError, OSError, ValueError):
            return image.convert("RGB")  # a profile of another colour space than the pixels, or none at all
        assert converted is not None
        return converted
    return image.convert("RGB")
