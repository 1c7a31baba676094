"""Which images there are, what each is made of, and whether its archive is current."""

from __future__ import annotations

import hashlib
import json
import os
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]
OUT: Final = ROOT / ".build" / "images"
REPOSITORY: Final = "localhost/fanfold"


class BuildError(Exception):
    """The build cannot go on; the message says what to do or which log to read."""


@dataclass(frozen=True)
class Image:
    """One image: where its Containerfile is, what it is made of, and what differs from the file's defaults.

    Attributes:
        name: Last part of the reference.
        folder: Folder below images/ that holds the Containerfile; all its files are inputs.
        inputs: Further files and folders the build may read, relative to the repository.
        arguments: Build arguments.
        target: Stage to build, where the Containerfile serves several images.
        bases: Base image per build argument: ``debian``, ``python`` or ``go``.
    """

    name: str
    folder: str
    inputs: tuple[str, ...] = ()
    arguments: dict[str, str] = field(default_factory=dict)
    target: str | None = None
    bases: dict[str, str] = field(default_factory=lambda: {"BASE": "debian"})

    @property
    def reference(self) -> str:
        """``localhost/fanfold/NAME:VERSION``, the version being the workspace's."""
        return f"{REPOSITORY}/{self.name}:{version()}"

    @property
    def archive(self) -> Path:
        """Where the image goes for import into a cluster."""
        return OUT / f"{self.name}.tar"

    @property
    def stamp(self) -> Path:
        """What the archive was made of: JSON with reference, digest of the inputs, image id and size in bytes."""
        return OUT / f"{self.name}.json"


def _python_image(name: str, packages: tuple[str, ...], extra: str = "", omit: str = "") -> Image:
    members = ("platform", "operator", "loadtest")
    locked = ("pyproject.toml", "uv.lock", *(f"{member}/pyproject.toml" for member in members))
    code = tuple(f"{package}/{part}" for package in packages for part in ("src", "README.md"))
    arguments = {"PACKAGE": name, "EXTRA": extra, "SOURCES": " ".join(packages), "OMIT": omit}
    return Image(name, "python", locked + code, arguments, target=name, bases={"BASE": "python"})


NOT_IMPORTED: Final = "scipy networkx imageio tifffile joblib threadpoolctl lazy-loader"
"""What the packages need that bring photographs, and nobody else: a third of the image."""
IMAGES: Final = (
    _python_image("fanfold", ("platform",), extra="services"),
    _python_image("fanfold-operator", ("platform", "operator")),
    _python_image("fanfold-loadtest", ("loadtest",), extra="photos", omit=NOT_IMPORTED),
    Image("postgresql", "postgresql"),
    Image("valkey", "valkey"),
    Image("prometheus", "prometheus", ("dashboards/prometheus/rules.yaml",)),
    Image("objectstore", "objectstore", bases={"BASE": "debian", "GO_BASE": "go"}),
)


def version() -> str:
    """The workspace's version, which is the images' tag."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        return str(tomllib.load(file)["project"]["version"])


def select(names: list[str]) -> list[Image]:
    """The images of these names, all of them without names.

    Raises:
        BuildError: There is no such image.
    """
    known = {image.name: image for image in IMAGES}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise BuildError(f"no image is called {', '.join(unknown)}; there are {', '.join(known)}")
    return [known[name] for name in names] if names else list(IMAGES)


def input_files(image: Image) -> list[Path]:
    """All files the build may read, in one order on every machine.

    Raises:
        BuildError: An input is missing.
    """
    files: list[Path] = []
    for part in (f"images/{image.folder}", *image.inputs):
        path = ROOT / part
        if not path.exists():
            raise BuildError(f"{image.name}: {part} is missing; is the checkout complete?")
        files += [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sorted(file for file in files if "__pycache__" not in file.parts and file.suffix != ".pyc")


def digest(image: Image, engine: str) -> str:
    """SHA-256 over everything that makes the image: files, arguments, base recipes, and this program."""
    total = hashlib.sha256(f"{engine} {image!r} {version()}".encode())
    recipes = [*(ROOT / "images" / "builder").glob("*.py"), *(ROOT / "images" / "bases").iterdir()]
    for file in [*sorted(recipes), *input_files(image)]:
        mode = "x" if os.access(file, os.X_OK) else "-"
        total.update(f"{file.relative_to(ROOT)} {mode} {file.stat().st_size}\n".encode())
        total.update(file.read_bytes())
    return total.hexdigest()


def read_stamp(image: Image) -> dict[str, Any] | None:
    """The stamp of a whole archive, None if there is none."""
    try:
        stamp: dict[str, Any] = json.loads(image.stamp.read_text())
        return stamp if stamp["bytes"] == image.archive.stat().st_size else None
    except (OSError, ValueError, KeyError):
        return None


def write_stamp(image: Image, inputs: str, image_id: str) -> None:
    """Say what the archive on disk was made of."""
    size = image.archive.stat().st_size
    stamp = {"reference": image.reference, "inputs": inputs, "id": image_id, "bytes": size}
    image.stamp.write_text(json.dumps(stamp, indent=2) + "\n")
