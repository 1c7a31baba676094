"""PromQL in pieces. Where ``{scope}`` and the like stand, `dashboards.grafana.SCOPES` is put."""

from __future__ import annotations

INTERVAL = "[$__rate_interval]"


def series(metric: str, matchers: str = "", scope: str = "{scope}") -> str:
    """A selector: the metric within the dashboard's scope."""
    inside = ",".join(part for part in (scope, matchers) if part)
    return f"{metric}{{{inside}}}" if inside else metric


def rate(counter: str, by: str = "", matchers: str = "", scope: str = "{scope}") -> str:
    """A counter's rate, summed by some labels or over all."""
    group = f" by ({by})" if by else ""
    return f"sum{group} (rate({series(counter, matchers, scope)}{INTERVAL}))"


def quantile(q: float, histogram: str, matchers: str = "", by: str = "", scope: str = "{scope}") -> str:
    """A quantile of what a histogram saw over the dashboard's interval."""
    group = ", ".join(part for part in ("le", by) if part)
    return f"histogram_quantile({q}, {rate(f'{histogram}_bucket', group, matchers, scope)})"


def quantiles(
    histogram: str, matchers: str = "", scope: str = "{scope}", of: tuple[float, ...] = (0.5, 0.9, 0.99)
) -> tuple[tuple[str, str], ...]:
    """Legend and expression of several quantiles."""
    return tuple((f"p{q * 100:g}", quantile(q, histogram, matchers, scope=scope)) for q in of)


def highest(gauge: str, by: str, matchers: str = "", scope: str = "{scope}") -> str:
    """The highest value by some labels: of gauges that several pods tell."""
    return f"max by ({by}) ({series(gauge, matchers, scope)})"


def or_zero(expression: str) -> str:
    """0 where nothing was counted yet: a counter with labels has no series before its first event."""
    return f"({expression}) or vector(0)"
