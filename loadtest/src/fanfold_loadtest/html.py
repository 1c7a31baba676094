"""The report of a run: one HTML file that needs nothing else, for people who were not there."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any, Final

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from fanfold_loadtest.comparison import bins
from fanfold_loadtest.recording import milliseconds
from fanfold_loadtest.results import recorder_of, to_json, to_junit
from fanfold_loadtest.schedule import begins

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from fanfold_loadtest.comparison import Difference
    from fanfold_loadtest.facts import Chart
    from fanfold_loadtest.recording import Recorder
    from fanfold_loadtest.results import Document

STYLE: Final = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; color: #1d2330; }
table { border-collapse: collapse; margin: 1rem 0; } th, td { padding: .3rem .8rem; text-align: left; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; } tr { border-bottom: 1px solid #dde1e8; }
.verdict { display: inline-block; padding: .2rem .8rem; border-radius: .4rem; color: #fff; font-weight: 600; }
.passed { background: #1a7f4b; } .failed { background: #b3261e; } .void { background: #8a6d00; }
small, .note { color: #596273; } h2 { margin-top: 2.5rem; }
"""
COLOURS: Final = ("#2b6cb0", "#b7791f", "#2f855a", "#9b2c6f", "#5a4fcf", "#c05621", "#0f766e")


def write_all(folder: Path, content: Document) -> None:
    """Write a run's files: for programs, for CI systems, for people."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "result.json").write_bytes(to_json(content))
    (folder / "junit.xml").write_bytes(to_junit(content))
    (folder / "report.html").write_text(report(content), encoding="utf-8")


def report(content: Document) -> str:
    """The whole page."""
    recorder = recorder_of(content)
    charts = [latency_chart(content, recorder), histogram_chart(recorder)]
    if content.share.ages:
        charts.append(freshness_chart(content))
    body = [_heading(content), _objectives(content), _figures(content), *map(_chart, charts)]
    body += [_server(content), _graph(content), _generator(content)]
    return _page(f"Load test {content.scenario.name}: {content.verdict}", body)


def comparison_report(first: Document, second: Document, differences: Sequence[Difference]) -> str:
    """Two runs, one over the other."""
    chart = go.Figure()
    for number, (content, name) in enumerate(((first, "first"), (second, "second"))):
        _add_latency(chart, recorder_of(content), suffix=f" {name}", dash="solid" if number == 0 else "dash")
    _dress(chart, "Latency over time, 99th percentile", "seconds from the beginning", "milliseconds")
    rows = [
        f"<tr><td>{escape(one.phase)}</td><td>{escape(one.request)}</td><td class=n>p{one.percentile:g}</td>"
        f"<td class=n>{one.first:.1f}</td><td class=n>{one.second:.1f}</td>"
        f"<td class=n>{one.low:+.1f} … {one.high:+.1f}</td><td>{'yes' if one.real else 'no'}</td></tr>"
        for one in differences
    ]
    table = (
        "<table><tr><th>phase<th>request<th class=n>percentile<th class=n>first ms<th class=n>second ms"
        "<th class=n>difference, 95 % interval<th>more than chance</tr>" + "".join(rows) + "</table>"
    )
    heading = (
        f"<h1>{escape(second.scenario.name)}: two runs</h1><p>First: {escape(first.started)}, {escape(first.verdict)}. "
        f"Second: {escape(second.started)}, {escape(second.verdict)}.</p>"
    )
    return _page(f"Load test {second.scenario.name}: two runs", [heading, table, _chart(chart)])


def latency_chart(content: Document, recorder: Recorder) -> go.Figure:
    """Median and 99th percentile over time, with phases and what happened."""
    chart = go.Figure()
    _add_latency(chart, recorder, median=True)
    for phase, begin in begins(content.scenario):
        chart.add_vrect(
            x0=begin,
            x1=begin + phase.seconds,
            fillcolor="#888",
            opacity=0.0 if phase.measured else 0.12,
            line_width=0,
            annotation_text=phase.name,
            annotation_position="top left",
        )
    for mark in content.share.marks:
        chart.add_vline(x=mark.at, line_dash="dot", line_color="#b3261e", annotation_text=mark.what)
    return _dress(chart, "Latency over time", "seconds from the beginning", "milliseconds, from the intended start")


def _add_latency(
    chart: go.Figure, recorder: Recorder, *, median: bool = False, suffix: str = "", dash: str = "solid"
) -> None:
    for number, request in enumerate(recorder.requests()):
        points = sorted(interval for name, interval in recorder.timeline if name == request)
        for percentile in (50.0, 99.0) if median else (99.0,):
            values = [milliseconds(recorder.timeline[request, point].latencies, percentile) for point in points]
            line = {"color": COLOURS[number % len(COLOURS)], "dash": "dot" if percentile == 50 else dash}
            chart.add_scatter(
                x=[point * recorder.interval for point in points],
                y=values,
                name=f"{request} p{percentile:g}{suffix}",
                mode="lines",
                line=line,
            )


def histogram_chart(recorder: Recorder) -> go.Figure:
    """How many answers took at most so long, by kind of request."""
    chart = go.Figure()
    for number, request in enumerate(recorder.requests()):
        phases = {phase for phase, name in recorder.cells if name == request}
        values, counts = bins(recorder.total(phases, request).latencies)
        if counts.size:
            chart.add_scatter(
                x=values,
                y=100 * counts.cumsum() / counts.sum(),
                name=request,
                mode="lines",
                line={"shape": "hv", "color": COLOURS[number % len(COLOURS)]},
            )
    chart.update_xaxes(type="log")
    return _dress(chart, "Share of answers within a time", "milliseconds", "percent of the answers")


def server_chart(chart: Chart, content: Document) -> go.Figure:
    """What the platform said of itself, over time, with what happened."""
    figure = go.Figure()
    for number, line in enumerate(chart.lines):
        colour = {"color": COLOURS[number % len(COLOURS)]}
        figure.add_scatter(x=line.times, y=line.values, name=line.name, mode="lines", line=colour)
    for mark in content.share.marks:
        figure.add_vline(x=mark.at, line={"dash": "dash", "color": "#b3261e"}, annotation_text=escape(mark.what))
    return _dress(figure, chart.title, "seconds from the beginning", chart.unit)


def freshness_chart(content: Document) -> go.Figure:
    """Ages at which followers saw posts."""
    seen = [age for age in content.share.ages if age.seconds is not None]
    chart = go.Figure()
    for phase in dict.fromkeys(age.phase for age in seen):
        chart.add_box(y=[1000 * (age.seconds or 0) for age in seen if age.phase == phase], name=phase, boxpoints="all")
    missing = len(content.share.ages) - len(seen)
    title = "Age at which followers saw a post" + (f" ({missing} never saw it)" if missing else "")
    return _dress(chart, title, "phase", "milliseconds after the post was accepted")


def _dress(chart: go.Figure, title: str, across: str, up: str) -> go.Figure:
    chart.update_layout(title=title, template="plotly_white", height=420, margin={"l": 60, "r": 20, "t": 60, "b": 50})
    chart.update_xaxes(title=across)
    chart.update_yaxes(title=up, rangemode="tozero")
    return chart


def _chart(chart: go.Figure) -> str:
    return str(chart.to_html(full_html=False, include_plotlyjs=False))


def _heading(content: Document) -> str:
    reasons = "".join(f"<li>{escape(reason)}" for reason in content.reasons)
    scenario = content.scenario
    return (
        f"<h1>Load test: {escape(scenario.name)}</h1>"
        f"<p><span class='verdict {content.verdict}'>{content.verdict}</span></p>"
        + (f"<ul>{reasons}</ul>" if reasons else "")
        + f"<p>{escape(scenario.description)}</p><p class=note>{escape(content.url)}, {escape(content.started)}, "
        f"{scenario.model} model, {scenario.seconds:g} s, {scenario.people} people, seed {content.seed}"
        + (", <b>interrupted</b>" if content.interrupted else "")
        + "</p>"
    )


def _objectives(content: Document) -> str:
    if not content.objectives:
        return "<h2>Objectives</h2><p>None were set.</p>"
    sign = {True: "✓", False: "✗", None: "?"}
    rows = [
        f"<tr><td>{sign[one.held]}</td><td>{escape(one.text)}</td><td class=n>{escape(one.measured or '-')}</td></tr>"
        for one in content.objectives
    ]
    return "<h2>Objectives</h2><table><tr><th><th>asked<th class=n>measured</tr>" + "".join(rows) + "</table>"


def _figures(content: Document) -> str:
    head = "".join(
        f"<th class=n>{name}" for name in ("requests", "failed", "per s", "p50", "p90", "p99", "p99.9", "max")
    )
    rows = []
    for row in content.figures:
        values: list[Any] = [row.requests, row.failed, row.per_second]
        values += [row.p50_ms, row.p90_ms, row.p99_ms, row.p99_9_ms, row.max_ms]
        cells = "".join(f"<td class=n>{'-' if value is None else value}</td>" for value in values)
        rows.append(f"<tr><td>{escape(row.phase)}</td><td>{escape(row.request)}</td>{cells}</tr>")
    return f"<h2>Latency in milliseconds</h2><table><tr><th>phase<th>request{head}</tr>{''.join(rows)}</table>"


def _server(content: Document) -> str:
    if not content.server:
        return "<h2>The platform</h2><p class=note>Prometheus was not asked (--prometheus): no figures of its own.</p>"
    charts = "".join(_chart(server_chart(chart, content)) for chart in content.server)
    return f"<h2>The platform, by its own metrics</h2>{charts}"


def _graph(content: Document) -> str:
    degrees = content.degrees
    if degrees is None:
        return ""
    slope = "" if degrees.exponent is None else f" The slope of followers over rank is {degrees.exponent:g} (Zipf: -1)."
    return (
        f"<h2>The graph</h2><p>{degrees.people:,} people, {degrees.follows:,} follows. Followers: {degrees.mean:g} on "
        f"average, median {degrees.p50:,}, p90 {degrees.p90:,}, p99 {degrees.p99:,}; the most followed have "
        f"{', '.join(f'{count:,}' for count in degrees.top)}.{slope}</p>"
    )


def _generator(content: Document) -> str:
    share = content.share
    text = (
        f"{share.arrivals} requests were to begin, {share.late} began late, {share.dropped} never. "
        f"CPU of each generator process: {', '.join(f'{one:g} %' for one in content.cpu_percent)} of a core."
    )
    failures = "".join(f"<li>{escape(line)}" for line in share.sample)
    shown = f"<h2>Some of the failures</h2><ul>{failures}</ul>" if failures else ""
    return f"<h2>The generator</h2><p>{text}</p>{shown}"


def _page(title: str, body: Sequence[str]) -> str:
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(title)}</title><style>{STYLE}</style>"
        f"<script>{get_plotlyjs()}</script><body>{''.join(body)}</body></html>\n"
    )
