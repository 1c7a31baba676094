"""The benchmarks are scripts: their folder is looked in last, for one of them is named as a library is (websockets)."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[3] / "benchmarks"))
