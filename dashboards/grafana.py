"""Builders of Grafana JSON: one function a thing, the same grid everywhere (24 columns)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

COLUMNS: Final = 24
RUNBOOKS: Final = "https://fanfold.dev/docs/runbooks/"
DATASOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}

SCOPES: Final = {
    "{scope}": 'namespace=~"$namespace",platform=~"$platform"',
    "{namespace}": 'namespace=~"$namespace"',
    "{operator}": 'namespace=~"$operator"',
    "{run}": 'scenario=~"$scenario"',
}
"""What stands for the choices at a dashboard's head."""

VARIABLES: Final = {
    "namespace": ("Namespace", "label_values(fanfold_build_info, namespace)"),
    "platform": ("Platform", 'label_values(fanfold_build_info{namespace=~"$namespace"}, platform)'),
    "operator": ("Operator's namespace", "label_values(fanfold_operator_leader, namespace)"),
    "scenario": ("Scenario", "label_values(fanfold_loadtest_running, scenario)"),
}


@dataclass(frozen=True, slots=True)
class Panel:
    """One graph, number or table.

    Attributes:
        title: What it shows.
        unit: Grafana's unit id: ``s``, ``reqps``, ``short``, ``percentunit``, ``bytes``.
        description: What is normal and what to do when it is not.
        queries: Legend and expression.
        kind: How it is drawn.
        runbook: The alert whose runbook says what to do.
        limit: A line that should not be crossed.
        stacked: Series add up to something.
        quiet: Why it may show nothing although all is well; empty where that cannot be.
    """

    title: str
    unit: str
    description: str
    queries: tuple[tuple[str, str], ...]
    kind: Literal["timeseries", "stat", "table"] = "timeseries"
    runbook: str = ""
    limit: float | None = None
    stacked: bool = False
    quiet: str = ""

    @property
    def size(self) -> tuple[int, int]:
        """Columns and rows of the grid."""
        return {"timeseries": (8, 8), "stat": (4, 4), "table": (24, 6)}[self.kind]


@dataclass(frozen=True, slots=True)
class Row:
    """Panels under one heading."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Board:
    """A dashboard; its file and its uid follow from the name.

    Attributes:
        name: In file names and addresses.
        title: Shown.
        description: Whom it serves and what it answers.
        rows: Top to bottom.
        served_by: Who tells its metrics: ``platform``, ``operator`` or ``loadtest``.
    """

    name: str
    title: str
    description: str
    rows: tuple[Row, ...]
    served_by: Literal["platform", "operator", "loadtest"] = "platform"

    @property
    def panels(self) -> tuple[Panel, ...]:
        """All of them."""
        return tuple(panel for row in self.rows for panel in row.panels)


@dataclass(frozen=True, slots=True)
class Annotation:
    """Something that happened, drawn over every graph of time."""

    name: str
    colour: str
    title: str
    query: str


ANNOTATIONS: Final = (
    Annotation(
        "Load test runs",
        "#5a4fcf",
        "load test {{scenario}}: {{phase}}",
        "max by (scenario, phase) (fanfold_loadtest_running) > 0",
    ),
    Annotation(
        "Celebrity posts",
        "#b3261e",
        "a celebrity posts ({{route}})",
        'sum by (route) (increase(fanfold_fanout_posts_total{{scope},route=~"pulled|fanout-large"}[1m])) > 0',
    ),
    Annotation(
        "Deployments",
        "#2f855a",
        "{{component}} {{version}} begins",
        "count by (component, version) (fanfold_build_info{{scope}})"
        " unless count by (component, version) (fanfold_build_info{{scope}} offset 2m)",
    ),
)


def expression(template: str) -> str:
    """The query with the dashboard's scope filled in."""
    for placeholder, matchers in SCOPES.items():
        template = template.replace(placeholder, matchers)
    return template


def dashboard(board: Board) -> dict[str, Any]:
    """The whole JSON document."""
    used = " ".join(expression(query) for panel in board.panels for _, query in panel.queries)
    used += " ".join(expression(annotation.query) for annotation in ANNOTATIONS)
    return {
        "uid": f"fanfold-{board.name}",
        "title": board.title,
        "description": board.description,
        "tags": ["fanfold"],
        "schemaVersion": 39,
        "editable": False,
        "refresh": "10s",
        "time": {"from": "now-30m", "to": "now"},
        "links": [
            {"type": "dashboards", "tags": ["fanfold"], "asDropdown": True, "title": "Fanfold", "keepTime": True}
        ],
        "annotations": {"list": [_annotation(one) for one in ANNOTATIONS]},
        "templating": {"list": [_datasource(), *(_variable(name) for name in VARIABLES if f"${name}" in used)]},
        "panels": _panels(board),
    }


def _panels(board: Board) -> list[dict[str, Any]]:
    """Rows one below the other, their panels from left to right."""
    panels: list[dict[str, Any]] = []
    y = 0
    for row in board.rows:
        head = {"x": 0, "y": y, "w": COLUMNS, "h": 1}
        panels.append({"id": len(panels) + 1, "type": "row", "title": row.title, "collapsed": False, "gridPos": head})
        x, y, deepest = 0, y + 1, 0
        for panel in row.panels:
            width, height = panel.size
            if x + width > COLUMNS:
                x, y, deepest = 0, y + deepest, 0
            panels.append(_panel(len(panels) + 1, panel, {"x": x, "y": y, "w": width, "h": height}))
            x, deepest = x + width, max(deepest, height)
        y += deepest
    return panels


def _panel(number: int, panel: Panel, place: dict[str, int]) -> dict[str, Any]:
    content: dict[str, Any] = {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": DATASOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": _defaults(panel), "overrides": []},
        "options": _options(panel),
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": DATASOURCE,
                "expr": expression(query),
                "legendFormat": legend,
                **({"instant": True, "range": False} if panel.kind != "timeseries" else {}),
                **({"format": "table"} if panel.kind == "table" else {}),
            }
            for index, (legend, query) in enumerate(panel.queries)
        ],
    }
    if panel.runbook:
        url = f"{RUNBOOKS}{panel.runbook}.md"
        content["links"] = [{"title": f"Runbook: {panel.runbook}", "url": url, "targetBlank": True}]
    return content


def _defaults(panel: Panel) -> dict[str, Any]:
    defaults: dict[str, Any] = {"unit": panel.unit, "min": 0}
    if panel.stacked:
        defaults["custom"] = {"stacking": {"mode": "normal"}, "fillOpacity": 30}
    if panel.limit is not None:
        steps = [{"color": "green", "value": None}, {"color": "red", "value": panel.limit}]
        defaults["thresholds"] = {"mode": "absolute", "steps": steps}
        if panel.kind == "timeseries":
            defaults.setdefault("custom", {})["thresholdsStyle"] = {"mode": "line"}
    return defaults


def _options(panel: Panel) -> dict[str, Any]:
    match panel.kind:
        case "timeseries":
            return {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}}
        case "stat":
            return {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "value", "graphMode": "none"}
        case "table":
            return {"showHeader": True}


def _annotation(one: Annotation) -> dict[str, Any]:
    return {
        "name": one.name,
        "datasource": DATASOURCE,
        "enable": True,
        "iconColor": one.colour,
        "expr": expression(one.query),
        "titleFormat": one.title,
        "step": "15s",
    }


def _datasource() -> dict[str, Any]:
    return {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"}


def _variable(name: str) -> dict[str, Any]:
    label, query = VARIABLES[name]
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": DATASOURCE,
        "query": query,
        "includeAll": True,
        "multi": True,
        "allValue": ".+",  # not ".*": it is true of series without the label, too
        "current": {"text": "All", "value": "$__all"},
        "refresh": 2,
    }
