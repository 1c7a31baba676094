"""The benchmarks are scripts: their folder is looked in last, for a script may be named as a library is."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[3] / "benchmarks"))
