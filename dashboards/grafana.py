"""Builders of Grafana JSON: one function a thing, the same grid everywhere (24 columns, panels 8 by 8)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

COLUMNS: Final = 24
WIDTH: Final = 8
HEIGHT: Final = 8
DATASOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
SCOPE: Final = 'namespace=~"$namespace"'


@dataclass(frozen=True, slots=True)
class Panel:
    """One graph.

    Attributes:
        title: What it shows.
        unit: Grafana's unit id: ``s``, ``reqps``, ``short``, ``percentunit``.
        description: What is normal and what to do when it is not.
        queries: Legend and expression; ``SCOPE`` is put where ``{scope}`` stands.
    """

    title: str
    unit: str
    description: str
    queries: tuple[tuple[str, str], ...]


def expression(template: str) -> str:
    """The query with the dashboard's scope filled in."""
    return template.replace("{scope}", SCOPE)


def dashboard(uid: str, title: str, panels: tuple[Panel, ...]) -> dict[str, Any]:
    """A dashboard with a data source and a namespace to choose."""
    return {
        "uid": uid,
        "title": title,
        "tags": ["fanfold"],
        "schemaVersion": 39,
        "editable": False,
        "refresh": "10s",
        "time": {"from": "now-30m", "to": "now"},
        "templating": {"list": [_datasource(), _namespace()]},
        "panels": [_panel(number, panel) for number, panel in enumerate(panels)],
    }


def _panel(number: int, panel: Panel) -> dict[str, Any]:
    per_row = COLUMNS // WIDTH
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.description,
        "datasource": DATASOURCE,
        "gridPos": {"x": number % per_row * WIDTH, "y": number // per_row * HEIGHT, "w": WIDTH, "h": HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": DATASOURCE,
                "expr": expression(query),
                "legendFormat": legend,
            }
            for index, (legend, query) in enumerate(panel.queries)
        ],
    }


def _datasource() -> dict[str, Any]:
    return {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"}


def _namespace() -> dict[str, Any]:
    return {
        "name": "namespace",
        "label": "Namespace",
        "type": "query",
        "datasource": DATASOURCE,
        "query": "label_values(fanfold_http_requests_total, namespace)",
        "includeAll": True,
        "multi": True,
        "refresh": 2,
    }
