"""docs/api.md, line by line, as somebody who types it sees it."""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.integration.api.commands import outcome

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

TOUR = Path(__file__).parents[3] / "docs" / "api.md"
SECONDS = 120


def blocks() -> list[str]:
    """The tour's blocks of shell commands."""
    return re.findall(r"^```sh\n(.*?)^```", TOUR.read_text(), re.MULTILINE | re.DOTALL)


async def test_every_command_of_the_tour_does_what_it_says(platform: str, house: Any, tmp_path: Path) -> None:
    await house.start("image-worker", image_processes=1, image_process_mib=400, spool_dir=tmp_path)
    photo = tmp_path / "photo.jpg"
    Image.effect_noise((640, 480), 60).convert("RGB").save(photo)
    script = "\n".join(["set -euo pipefail", *blocks(), 'echo "the end of the tour"'])
    assert script.count("curl") < 5  # all calls are made by one function, which fails where the answer is an error
    process = await asyncio.create_subprocess_exec(
        "bash",
        "-x",
        "-c",
        script,
        cwd=tmp_path,
        env=os.environ | {"FANFOLD": platform, "PHOTO": str(photo)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    code, said = await outcome(process, SECONDS)
    assert code == 0, said[-3_000:]
    assert said.endswith("the end of the tour\n")
