"""Pages name tests as evidence for what they say: each of them exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NAMED = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")
PAGES = [path for path in sorted((ROOT / "docs").rglob("*.md")) if NAMED.search(path.read_text())]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_every_test_a_page_names_exists(page: Path) -> None:
    missing = [
        f"{path}::{name}"
        for path, name in NAMED.findall(page.read_text())
        if not (ROOT / path).exists() or (name and not re.search(rf"\bdef {name}\(", (ROOT / path).read_text()))
    ]
    assert missing == []


def test_every_claim_about_feeds_has_evidence() -> None:
    rows = [line for line in (ROOT / "docs/properties.md").read_text().splitlines() if line.startswith("| ")]
    claims = [row for row in rows if not row.startswith(("| claim", "| ---"))]
    assert len(claims) > 30
    assert [row for row in claims if not NAMED.search(row.split(" | ", 1)[1])] == []
