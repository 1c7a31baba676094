"""Prometheus' HTTP API as far as dashboards need it: a panel's queries over some time, with the choices made."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

import httpx

from dashboards.grafana import expression

if TYPE_CHECKING:
    from dashboards.grafana import Annotation, Panel

TIMEOUT: Final = 30.0
ANY: Final = ".+"
"""Not ``.*``, which is true of series without the label too: of other programs that are scraped."""


class QueryError(Exception):
    """Prometheus refused or did not answer; the message says what."""


@dataclass(frozen=True, slots=True)
class Window:
    """What is asked for.

    Attributes:
        start: Unix time in seconds.
        end: Likewise.
        step: Seconds between points.
        rate: For ``$__rate_interval``, in PromQL's notation; at least four scrapes.
        choices: For the variables at a dashboard's head; regular expressions, everything where there is none.
    """

    start: float
    end: float
    step: float
    rate: str = "1m"
    choices: tuple[tuple[str, str], ...] = ()

    def filled(self, template: str) -> str:
        """A query with everything in its place."""
        text = expression(template).replace("$__rate_interval", self.rate)
        for name in ("namespace", "platform", "operator", "scenario"):
            text = text.replace(f"${name}", dict(self.choices).get(name, ANY))
        return text


@dataclass(frozen=True, slots=True)
class Series:
    """One line: times (Unix seconds) and values. NaN and infinity are left out."""

    legend: str
    labels: dict[str, str]
    times: list[float]
    values: list[float]


class Prometheus:
    """A server. A context manager.

    Args:
        url: Its base URL.
    """

    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=url.rstrip("/"), timeout=TIMEOUT, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def get(self, path: str, **parameters: Any) -> Any:
        """The data of one answer.

        Raises:
            QueryError: There is none.
        """
        try:
            answer = self._client.get(f"/api/v1/{path}", params=parameters)
            body = answer.json()
        except (httpx.HTTPError, ValueError) as error:
            raise QueryError(f"{self._client.base_url}: {type(error).__name__}: {error}") from error
        if body.get("status") != "success":
            raise QueryError(f"{body.get('error', answer.text)} (asked: {parameters.get('query', path)})")
        return body["data"]

    def series(self, template: str, legend: str, window: Window) -> list[Series]:
        """A query's lines over a window; those without a value are left out."""
        data = self.get(
            "query_range", query=window.filled(template), start=window.start, end=window.end, step=window.step
        )
        found = []
        for one in data["result"]:
            points = [(float(at), float(value)) for at, value in one["values"]]
            finite = [(at, value) for at, value in points if math.isfinite(value)]
            if finite:
                labels = one["metric"]
                times, values = zip(*finite, strict=True)
                found.append(Series(_named(legend, labels), labels, list(times), list(values)))
        return sorted(found, key=lambda line: line.legend)

    def panel(self, panel: Panel, window: Window) -> list[Series]:
        """All lines of a panel."""
        return [line for legend, query in panel.queries for line in self.series(query, legend, window)]

    def happened(self, annotation: Annotation, window: Window) -> list[tuple[float, str]]:
        """When it began, each time, and what to write beside."""
        found = []
        for line in self.series(annotation.query, annotation.title, window):
            last = -math.inf
            for at in line.times:
                if at - last > 1.5 * window.step:
                    found.append((at, line.legend))
                last = at
        return sorted(found)


def _named(legend: str, labels: dict[str, str]) -> str:
    for name, value in labels.items():
        legend = legend.replace(f"{{{{{name}}}}}", value)
    return legend
