"""Photos a core makes ready in a second, and the memory it takes: the image worker's way beside plain Pillow.

    uv run python benchmarks/photos.py

Both make the same twelve variants of the same photo, in one process that does nothing else. Plain Pillow opens the
file, turns it upright and resizes the original for each width; rates are per second of CPU time, so that other work on
the machine disturbs them little.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from common.results import save, say, summary
from PIL import Image, ImageOps
from PIL.Image import Resampling

from fanfold.image.pictures import ENCODERS, WIDTHS, Limits, inspect, render
from fanfold_loadtest.photos import PHOTOS

SIZE: Final = (4_032, 3_024)
"""Twelve megapixels: what phones take."""
NAME: Final = "temple"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=5, help="photos a round (default 5)")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds (default 5)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fanfold-bench-") as folder:
        photo = Path(folder) / "photo.jpg"
        source = next(one for one in PHOTOS if one.name == NAME).path
        Image.open(source).convert("RGB").resize(SIZE, Resampling.LANCZOS).save(photo, quality=92)
        rounds: dict[str, list[dict[str, float]]] = {name: [] for name in WAYS}
        for number in range(options.rounds):
            for name in WAYS:
                found = alone(name, str(photo), options.photos)
                rounds[name].append(found)
                say(f"round {number}, {name}: {found['per_core_second']:.2f}/s, {found['peak_mib']:.0f} MiB")
        size = photo.stat().st_size
    figures = {
        name: {what: summary([one[what] for one in found]) for what in ("per_core_second", "peak_mib")}
        for name, found in rounds.items()
    }
    notes = [
        f"{NAME} enlarged to {SIZE[0]} x {SIZE[1]} pixels, a JPEG of {size / 1e6:.1f} MB; twelve variants.",
        "Fanfold: inspected as an upload is (every pixel decoded once, blurhash), then rendered, as the worker does.",
        "Peak: the most memory of a fresh process, Python and Pillow (about 40 MiB) included.",
    ]
    say(str(save("photos", figures, notes=notes)))


def fanfold(photo: str, folder: str) -> None:
    """As the image service and its worker."""
    inspect(photo, Limits())
    render(photo, folder, Limits())


def plain(photo: str, folder: str) -> None:
    """As one would write it first."""
    with Image.open(photo) as opened:
        image = ImageOps.exif_transpose(opened).convert("RGB")
    for width in WIDTHS:
        variant = image.resize((width, round(image.height * width / image.width)), Resampling.LANCZOS)
        for name, options in ENCODERS.items():
            variant.save(Path(folder) / f"{width}.{name}", name, **options)


WAYS: Final[dict[str, Callable[[str, str], None]]] = {"fanfold": fanfold, "plain": plain}


def alone(name: str, photo: str, count: int) -> dict[str, float]:
    """Run one way in a fresh process."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        found: dict[str, Any] = pool.apply(work, (name, photo, count))
    return found


def work(name: str, photo: str, count: int) -> dict[str, float]:
    """Photos per second of CPU time, and the most memory, of this process."""
    with tempfile.TemporaryDirectory(prefix="fanfold-bench-") as folder:
        WAYS[name](photo, folder)  # codecs are loaded
        began = time.process_time()
        for _ in range(count):
            WAYS[name](photo, folder)
        took = time.process_time() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"per_core_second": count / took, "peak_mib": peak}


if __name__ == "__main__":
    main()
