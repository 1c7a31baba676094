"""Metrics of the image room."""

from __future__ import annotations

from prometheus_client import Counter, Histogram

UPLOADS = Counter("fanfold_image_uploads_total", "Files offered.", ["outcome"])
"""Outcome: stored, known (the owner sent these bytes before), or the kind of the refusal."""
RENDER_SECONDS = Histogram(
    "fanfold_image_render_duration_seconds",
    "Making all variants of a picture.",
    buckets=(0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0),
)
RENDERS = Counter("fanfold_image_renders_total", "Pictures made ready, failed or tried again.", ["outcome"])
