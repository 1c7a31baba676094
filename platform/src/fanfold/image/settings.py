"""Settings of the image service and its worker."""

from __future__ import annotations

import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Literal

from pydantic import Field

from fanfold.image.pictures import Limits
from fanfold.kit.settings import ObjectStoreSettings


class ImageSettings(ObjectStoreSettings):
    """``FANFOLD_*`` variables beyond the common ones."""

    upload_bytes: int = Field(default=20 << 20, ge=1 << 10)
    """Largest file accepted. 20 MiB holds a 50-megapixel camera's JPEG."""
    upload_concurrency: int = Field(default=16, ge=1, le=1000)
    """Uploads received at once by one replica; more are answered with 503. Bounds the spool's disk."""
    upload_seconds: float = Field(default=90, gt=0, le=110)
    """For receiving one file: below the 120 s that a signed identity lives."""
    presigned_minutes: int = Field(default=15, ge=1, le=24 * 60)
    spool_dir: Path = Path(tempfile.gettempdir())
    image_pixels: int = Field(default=50_000_000, ge=1)
    """Most pixels of a picture, read from its header before anything is decoded."""
    image_animated: Literal["refuse", "first-frame"] = "refuse"
    image_processes: int = Field(default=2, ge=1, le=64)
    """Decoding processes of one replica."""
    image_process_mib: int = Field(default=640, ge=128)
    """Memory of one decoding process: 50 megapixels with transparency need 4 bytes a pixel twice."""
    image_process_seconds: float = Field(default=20, gt=0)
    """For one picture; a process that takes longer is killed."""
    image_unused_hours: float = Field(default=48, gt=0)
    """A picture that nothing uses for so long is deleted."""

    @property
    def limits(self) -> Limits:
        """What a picture may be."""
        return Limits(pixels=self.image_pixels, first_frame=self.image_animated == "first-frame")

    @property
    def presigned_lifetime(self) -> timedelta:
        """How long a presigned form may be used."""
        return timedelta(minutes=self.presigned_minutes)
