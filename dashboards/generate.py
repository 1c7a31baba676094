"""Write the generated files: ``python -m dashboards.generate``; ``--check`` only compares."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Final

import yaml

from dashboards.definitions import ALERTS, OVERVIEW, Alert
from dashboards.grafana import dashboard

FOLDER: Final = Path(__file__).resolve().parent
RUNBOOKS: Final = "https://fanfold.dev/docs/runbooks/"


def rules() -> dict[str, object]:
    """Prometheus' rule file."""
    return {"groups": [{"name": "fanfold", "rules": [_rule(alert) for alert in ALERTS]}]}


def _rule(alert: Alert) -> dict[str, object]:
    return {
        "alert": alert.name,
        "expr": alert.expr,
        "for": alert.hold,
        "labels": {"severity": alert.severity},
        "annotations": {"summary": alert.summary, "runbook_url": f"{RUNBOOKS}{alert.name}.md"},
    }


def files() -> dict[Path, str]:
    """Every generated file with its text."""
    overview = dashboard("fanfold-overview", "Fanfold / Overview", OVERVIEW)
    return {
        FOLDER / "grafana" / "overview.json": json.dumps(overview, indent=1) + "\n",
        FOLDER / "prometheus" / "rules.yaml": yaml.safe_dump(rules(), sort_keys=False, width=1_000),
    }


def main(arguments: list[str]) -> int:
    """Exit code 1 when ``--check`` finds a file that is not current."""
    stale = [path for path, text in files().items() if not path.exists() or path.read_text() != text]
    if arguments == ["--check"]:
        for path in stale:
            print(f"not current: {path.name}; run `make dashboards`", file=sys.stderr)  # noqa: T201 - its answer
        return 1 if stale else 0
    for path, text in files().items():
        path.write_text(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
