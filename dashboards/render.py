"""Draw the dashboards from a live Prometheus, for reports, documents and people without Grafana.

``python -m dashboards.render --prometheus URL --out DIR [--minutes 30] [--png]`` writes one HTML file a dashboard that
needs nothing else, and with ``--png`` a picture of it, made by Chromium. It is our own drawing of the same queries, and
says so: Grafana's looks different.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Final

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from dashboards.boards import BOARDS
from dashboards.grafana import ANNOTATIONS, COLUMNS, RUNBOOKS
from dashboards.query import ANY, Prometheus, QueryError, Window

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dashboards.grafana import Annotation, Board, Panel
    from dashboards.query import Series

POINTS: Final = 240
"""Points a line: more cannot be told apart in a third of a screen."""
ROW_PIXELS: Final = 34
PICTURE_WIDTH: Final = 1600
COLOURS: Final = ("#2b6cb0", "#b7791f", "#2f855a", "#9b2c6f", "#5a4fcf", "#c05621", "#0f766e", "#b3261e", "#596273")
AXES: Final = {
    "s": {"tickformat": "~s", "ticksuffix": "s"},
    "bytes": {"tickformat": "~s", "ticksuffix": "B"},
    "percentunit": {"tickformat": ".0%"},
    "reqps": {"tickformat": "~s", "ticksuffix": "/s"},
    "cps": {"tickformat": "~s", "ticksuffix": "/s"},
    "short": {"tickformat": "~s"},
}
STYLE: Final = """
body { font: 14px/1.4 system-ui, "DejaVu Sans", sans-serif; margin: 0; padding: 1rem 1.5rem; }
body { background: #f4f5f7; color: #1d2330; }
h1 { font-size: 1.3rem; margin: 0; } h2 { grid-column: 1 / -1; font-size: 1rem; margin: .6rem 0 0; }
.note { color: #596273; margin: .2rem 0 .6rem; }
.grid { display: grid; grid-template-columns: repeat(24, 1fr); gap: 8px; }
.panel { background: #fff; border: 1px solid #dde1e8; border-radius: 4px; padding: .5rem .6rem; }
.panel { min-width: 0; overflow: hidden; }
.panel h3 { font-size: .85rem; margin: 0; } .panel p { font-size: .72rem; color: #596273; margin: .1rem 0 0; }
.panel a { float: right; font-size: .7rem; color: #2b6cb0; }
.number { font-size: 1.9rem; font-weight: 600; margin-top: .3rem; } .good { color: #1a7f4b; } .bad { color: #b3261e; }
.empty { color: #596273; padding: 1.5rem 0; text-align: center; }
table { border-collapse: collapse; font-size: .8rem; } th, td { text-align: left; padding: .15rem .8rem .15rem 0; }
"""


def page(board: Board, prometheus: Prometheus, window: Window) -> str:
    """A dashboard as one HTML page.

    Raises:
        QueryError: Prometheus did not answer.
    """
    marks = [(at, text, one.colour) for one in ANNOTATIONS for at, text in prometheus.happened(one, window)]
    body = [_head(board, window), "<div class=grid>"]
    for row in board.rows:
        body.append(f"<h2>{escape(row.title)}</h2>")
        body += [_panel(panel, prometheus.panel(panel, window), window, marks) for panel in row.panels]
    body.append("</div>")
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(board.title)}</title><style>{STYLE}</style>"
        f"<script>{get_plotlyjs()}</script><body>{''.join(body)}</body></html>\n"
    )


def _head(board: Board, window: Window) -> str:
    start, end = (datetime.fromtimestamp(at, UTC) for at in (window.start, window.end))
    return (
        f"<h1>{escape(board.title)}</h1><p class=note>{escape(board.description)}<br>"
        f"{start:%Y-%m-%d %H:%M:%S} to {end:%H:%M:%S} UTC. Drawn by Fanfold from Prometheus; this is not Grafana. "
        f"Marks: {', '.join(_mark(one) for one in ANNOTATIONS)}.</p>"
    )


def _mark(one: Annotation) -> str:
    return f"<b style='color: {one.colour}'>{escape(one.name.lower())}</b>"


def _panel(panel: Panel, lines: Sequence[Series], window: Window, marks: Sequence[tuple[float, str, str]]) -> str:
    width, height = panel.size
    link = f"<a href='{RUNBOOKS}{panel.runbook}.md'>runbook</a>" if panel.runbook else ""
    if not lines:
        content = f"<div class=empty>{escape(panel.quiet or 'no data')}</div>"
    elif panel.kind == "stat":
        content = _number(panel, lines[0].values[-1])
    elif panel.kind == "table":
        content = _table(lines, window)
    else:
        content = _graph(panel, lines, window, marks, height * ROW_PIXELS)
    return (
        f"<div class=panel style='grid-column: span {min(width, COLUMNS)}'>{link}<h3>{escape(panel.title)}</h3>"
        f"<p>{escape(panel.description)}</p>{content}</div>"
    )


def _number(panel: Panel, value: float) -> str:
    verdict = "" if panel.limit is None else " bad" if value >= panel.limit else " good"
    return f"<div class='number{verdict}'>{escape(shown(value, panel.unit))}</div>"


def shown(value: float, unit: str) -> str:
    """A value as a person reads it."""
    match unit:
        case "percentunit":
            return f"{100 * value:.4g} %"
        case "s":
            return f"{1000 * value:.3g} ms" if value < 1 else f"{value:.3g} s"
        case "reqps" | "cps":
            return f"{value:,.4g}/s"
        case "bytes":
            return f"{value / (1 << 20):.3g} MiB"
        case _:
            return f"{value:.4g}"


def _table(lines: Sequence[Series], window: Window) -> str:
    """What holds at the end of the window, by its labels."""
    now = [line.labels for line in lines if line.times[-1] >= window.end - 2 * window.step]
    names = sorted({name for labels in now for name in labels if not name.startswith("__")})
    head = "".join(f"<th>{escape(name)}" for name in names)
    rows = "".join("<tr>" + "".join(f"<td>{escape(labels.get(name, ''))}" for name in names) for labels in now)
    return f"<table><tr>{head}</tr>{rows}</table>" if now else "<div class=empty>nothing now</div>"


def _graph(
    panel: Panel, lines: Sequence[Series], window: Window, marks: Sequence[tuple[float, str, str]], height: int
) -> str:
    chart = go.Figure()
    for number, line in enumerate(lines):
        colour = COLOURS[number % len(COLOURS)]
        chart.add_scatter(
            x=[datetime.fromtimestamp(at, UTC) for at in line.times],
            y=line.values,
            name=line.legend or "value",
            mode="lines" if len(line.values) > 1 else "markers",
            line={"color": colour, "width": 1.5},
            stackgroup="all" if panel.stacked else None,
        )
    if panel.limit is not None:
        chart.add_hline(y=panel.limit, line_dash="dash", line_color="#b3261e", line_width=1, opacity=0.7)
    for at, _, colour in marks:
        chart.add_vline(x=datetime.fromtimestamp(at, UTC), line_dash="dot", line_color=colour, line_width=1)
    chart.update_layout(
        template="plotly_white",
        height=height,
        margin={"l": 52, "r": 8, "t": 8, "b": 8},
        font={"size": 10},
        showlegend=True,
        legend={"orientation": "h", "yanchor": "top", "y": -0.14, "x": 0, "font": {"size": 9}},
        hovermode="x unified",
    )
    span = [datetime.fromtimestamp(at, UTC) for at in (window.start, window.end)]
    chart.update_xaxes(range=span, tickformat="%H:%M:%S" if window.end - window.start < 900 else "%H:%M")
    chart.update_yaxes(rangemode="tozero", nticks=6, **AXES[panel.unit])
    return str(chart.to_html(full_html=False, include_plotlyjs=False, config={"displayModeBar": False}))


def pictures(pages: Sequence[Path]) -> None:
    """A PNG beside each page, by Chromium.

    Raises:
        QueryError: There is no Chromium.
    """
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - only for pictures; HTML needs no browser

    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        raise QueryError("pictures need Chromium: apt-get install chromium; or leave --png out")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        view = browser.new_page(viewport={"width": PICTURE_WIDTH, "height": 900})
        for path in pages:
            view.goto(path.resolve().as_uri())
            view.wait_for_load_state("load")
            view.screenshot(path=path.with_suffix(".png"), full_page=True)
        browser.close()


def draw(prometheus: Prometheus, window: Window, out: Path, boards: Sequence[Board] = BOARDS) -> list[Path]:
    """Write the pages; their paths.

    Raises:
        QueryError: Prometheus did not answer.
    """
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for board in boards:
        path = out / f"{board.name}.html"
        path.write_text(page(board, prometheus, window), encoding="utf-8")
        written.append(path)
    return written


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 1, with one line, when there is nothing to draw from."""
    parser = argparse.ArgumentParser(prog="dashboards.render", description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--prometheus", required=True, help="base URL of the server")
    parser.add_argument("--out", required=True, type=Path, help="folder for the files")
    parser.add_argument("--minutes", type=float, default=30.0, help="how far back (30)")
    parser.add_argument("--rate", default="1m", help="for $__rate_interval: at least four scrapes (1m)")
    parser.add_argument("--board", choices=[board.name for board in BOARDS], action="append", help="only these")
    parser.add_argument("--namespace", default=ANY, help="regular expression; all by default")
    parser.add_argument("--platform", default=ANY, help="likewise")
    parser.add_argument("--png", action="store_true", help="also a picture of each, by Chromium")
    asked = parser.parse_args(arguments)
    end = time.time()
    seconds = 60 * asked.minutes
    choices = (("namespace", asked.namespace), ("platform", asked.platform))
    window = Window(end - seconds, end, max(1.0, seconds / POINTS), asked.rate, choices)
    try:
        with Prometheus(asked.prometheus) as prometheus:
            boards = [board for board in BOARDS if not asked.board or board.name in asked.board]
            written = draw(prometheus, window, asked.out, boards)
        if asked.png:
            pictures(written)
    except QueryError as error:
        print(f"dashboards.render: {error}", file=sys.stderr)  # noqa: T201 - a command's last word
        return 1
    for path in written:
        print(path)  # noqa: T201 - its answer
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
