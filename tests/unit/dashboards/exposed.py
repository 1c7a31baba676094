"""Which metrics and labels there are, as the code's own registries and collectors say, and which PromQL names."""

from __future__ import annotations

import re
from functools import cache
from importlib import import_module
from typing import Any, cast

from prometheus_client import REGISTRY

from fanfold.gateway import app
from fanfold.gateway.metrics import GatewayCollector, GatewayStats
from fanfold_loadtest.telemetry import RunCollector

TARGET = {"namespace", "platform", "pod", "component", "instance", "job"}
"""Labels that scraping adds."""
FOREIGN = {
    "ALERTS": {"alertname", "alertstate", "severity"},
    "kubelet_volume_stats_available_bytes": {"namespace", "persistentvolumeclaim"},
    "kubelet_volume_stats_capacity_bytes": {"namespace", "persistentvolumeclaim"},
}
"""What Prometheus and kubelets tell."""
_SELECTOR = re.compile(r"\b((?:fanfold|process|kubelet)[a-z0-9_:]+|ALERTS)\b(?:\{([^}]*)\})?")
_MATCHER = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)")
_GROUP = re.compile(r"\b(?:by|on|without|ignoring)\s*\(([^)]*)\)")
_SUFFIXES = ("_bucket", "_count", "_sum", "_total", "_created")


def bare(name: str) -> str:
    """The family's name."""
    for suffix in _SUFFIXES:
        if name.endswith(suffix):
            return name.removesuffix(suffix)
    return name


@cache
def families() -> dict[str, set[str]]:
    """Labels of every metric family of ours, by its bare name."""
    found = {name: set(labels) for name, labels in FOREIGN.items()}
    for room in ("fanfold.kit", "fanfold.feed", "fanfold.image", "fanfold_operator"):
        import_module(f"{room}.metrics")  # registers
    for one in REGISTRY._collector_to_names:
        collector = cast("Any", one)
        if hasattr(collector, "_labelnames"):
            found[bare(collector._name)] = {*collector._labelnames, "le"}
    gauges: dict[str, Any] = app._gauges(*[None] * app._gauges.__code__.co_argcount)  # type: ignore[arg-type]
    gateway = GatewayCollector(
        GatewayStats(), (), tuple, {name: (text, lambda: 0.0) for name, (text, _) in gauges.items()}
    )
    for family in [*gateway.collect(), *RunCollector("x").collect()]:
        found[bare(family.name)] = {*getattr(family, "_labelnames", ()), "le"}
    for name in ("process_cpu_seconds", "process_resident_memory_bytes", "process_open_fds"):
        found[name] = set()
    return found


def selectors(expression: str) -> list[tuple[str, set[str]]]:
    """Metrics that an expression names, with the labels it asks them for."""
    return [(name, set(_MATCHER.findall(matchers or ""))) for name, matchers in _SELECTOR.findall(expression)]


def grouped(expression: str) -> set[str]:
    """Labels by which it puts together."""
    return {label.strip() for group in _GROUP.findall(expression) for label in group.split(",") if label.strip()}
