"""Write the generated files: ``python -m dashboards.generate``; ``--check`` only compares."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Final

import yaml

from dashboards.alerts import ALERTS, RECORDS, Alert
from dashboards.boards import BOARDS
from dashboards.grafana import RUNBOOKS, dashboard

FOLDER: Final = Path(__file__).resolve().parent
CHART: Final = FOLDER.parent / "charts" / "fanfold" / "files"


def rules() -> dict[str, object]:
    """Prometheus' rule file. One group: its rules are evaluated in order, what is recorded before what alarms on it."""
    records: list[dict[str, object]] = [{"record": name, "expr": expression} for name, expression in RECORDS.items()]
    return {"groups": [{"name": "fanfold", "rules": [*records, *(_rule(alert) for alert in ALERTS)]}]}


def _rule(alert: Alert) -> dict[str, object]:
    return {
        "alert": alert.name,
        "expr": alert.expr,
        "for": alert.hold,
        "labels": {"severity": alert.severity, **dict(alert.labels)},
        "annotations": {"summary": alert.summary, "runbook_url": f"{RUNBOOKS}{alert.name}.md"},
    }


def files() -> dict[Path, str]:
    """Every generated file with its text. The chart has a copy, for a chart is packed without its neighbours."""
    made = {f"grafana/{board.name}.json": json.dumps(dashboard(board), indent=1) + "\n" for board in BOARDS}
    made["prometheus/rules.yaml"] = yaml.safe_dump(rules(), sort_keys=False, width=1_000)
    return {place / name: text for place in (FOLDER, CHART) for name, text in made.items()}


def main(arguments: list[str]) -> int:
    """Exit code 1 when ``--check`` finds a file that is not current."""
    stale = [path for path, text in files().items() if not path.exists() or path.read_text() != text]
    if arguments == ["--check"]:
        for path in stale:
            print(f"not current: {path.name}; run `make dashboards`", file=sys.stderr)  # noqa: T201 - its answer
        return 1 if stale else 0
    for path, text in files().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
