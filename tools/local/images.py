"""Images that the platform needs on a cluster's nodes, and which of them are not there yet."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tools.progress import ROOT, command

if TYPE_CHECKING:
    from collections.abc import Collection

NEEDED: Final = ("fanfold", "fanfold-operator", "postgresql", "valkey", "objectstore", "prometheus")
SERVICES: Final = "fanfold"
LOADTEST: Final = "fanfold-loadtest"
"""The platform does without: see `up.loadtest_image`."""


@dataclass(frozen=True, slots=True)
class Image:
    """One built image: its reference, its archive, and the digest of what is inside."""

    name: str
    reference: str
    archive: Path
    digest: str


def build(names: Collection[str] = NEEDED) -> None:
    """Build those of these images that changed."""
    command("build-images", [ROOT / "images" / "build.sh", *names], seconds=1800)


def built(names: Collection[str] = NEEDED) -> list[Image]:
    """These images as they are built now."""
    lines = command("list-images", [ROOT / "images" / "build.sh", "--list"], seconds=60).splitlines()
    rows = [line.split() for line in lines if line.count(" ") == len(Image.__slots__) - 1]
    found = [Image(name, reference, Path(archive), digest) for name, reference, archive, digest in rows]
    return [image for image in found if image.name in names]


def missing(images: list[Image], loaded: dict[str, str], nodes: dict[str, Any]) -> list[Image]:
    """Images that some node does not have with these contents.

    Args:
        images: As built.
        loaded: Digest by reference, as this machine loaded them last.
        nodes: ``kubectl get nodes`` as JSON: what the nodes say they have. A purged cluster has nothing, whatever we
            remember.
    """
    present = [
        {name for entry in node.get("status", {}).get("images") or () for name in entry.get("names") or ()}
        for node in nodes["items"]
    ]
    return [
        image
        for image in images
        if loaded.get(image.reference) != image.digest or not all(image.reference in names for names in present)
    ]


class Memory:
    """What was loaded into one cluster, kept in ``.build``."""

    def __init__(self, cluster: str) -> None:
        self._path = ROOT / ".build" / f"loaded-{cluster}.json"

    def read(self) -> dict[str, str]:
        """Digest by reference."""
        known: dict[str, str] = json.loads(self._path.read_text()) if self._path.exists() else {}
        return known

    def add(self, images: list[Image]) -> None:
        """Remember these as loaded."""
        self._path.write_text(json.dumps(self.read() | {image.reference: image.digest for image in images}))
