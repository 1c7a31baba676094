"""Real photographs that ship inside the scikit-image and scikit-learn wheels: no network, licences in docs/photos.md.

The packages are only looked up, never imported: their code needs half a second and is not wanted here.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final


class PhotosMissingError(Exception):
    """The wheels with the photographs are not installed; the message says how to get them."""


@dataclass(frozen=True, slots=True)
class Photo:
    """One photograph.

    Attributes:
        name: Short name.
        package: Import name of the package whose wheel carries it.
        file: Path inside the package.
        licence: SPDX id, or why it is free.
        credit: Who took it, as the licence asks.
        caption: What a person would write under it.
    """

    name: str
    package: str
    file: str
    licence: str
    credit: str
    caption: str

    @property
    def media_type(self) -> str:
        """Media type by the file's name."""
        return "image/png" if self.file.endswith(".png") else "image/jpeg"

    @property
    def path(self) -> Path:
        """Where the file lies.

        Raises:
            PhotosMissingError: The package is not installed.
        """
        spec = find_spec(self.package)
        if spec is None or spec.origin is None:
            raise PhotosMissingError(
                f"the photographs are in the package {self.package}: install fanfold-loadtest[photos]"
            )
        return Path(spec.origin).parent / self.file


_NASA: Final = "public domain (NASA)"
_SKIMAGE: Final = "skimage"
_SKLEARN: Final = "sklearn"

PHOTOS: Final[tuple[Photo, ...]] = (
    Photo("astronaut", _SKIMAGE, "data/astronaut.png", _NASA, "NASA", "Eileen Collins, pilot of STS-63"),
    Photo("chelsea", _SKIMAGE, "data/chelsea.png", "CC0-1.0", "Stefan van der Walt", "Chelsea, not amused #cat"),
    Photo("coffee", _SKIMAGE, "data/coffee.png", "CC0-1.0", "Rachel Michetti", "First one today #coffee"),
    Photo("rocket", _SKIMAGE, "data/rocket.jpg", "public domain (SpaceX)", "SpaceX", "DSCOVR leaves #launch"),
    Photo("deep-field", _SKIMAGE, "data/hubble_deep_field.jpg", _NASA, "NASA, ESA", "Ten thousand galaxies"),
    Photo("retina", _SKIMAGE, "data/retina.jpg", "CC0-1.0", "Mikael Häggström", "A look into my left eye"),
    Photo("camera", _SKIMAGE, "data/camera.png", "CC0-1.0", "Lav Varshney", "On film, of course #blackandwhite"),
    Photo("cell", _SKIMAGE, "data/cell.png", "CC0-1.0", "Paul Müller and others", "One cell, floating"),
    Photo("temple", _SKLEARN, "datasets/images/china.jpg", "CC-BY-2.0", "danielbuechele", "The Summer Palace #beijing"),
    Photo("dahlia", _SKLEARN, "datasets/images/flower.jpg", "CC-BY-2.0", "vultilion", "In the garden #dahlia"),
)
