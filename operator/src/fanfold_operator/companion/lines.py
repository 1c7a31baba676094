"""Lines of logs: read, chosen, and brought into one order. Pure."""

from __future__ import annotations

import heapq
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

LEVELS: Final = ("debug", "info", "warning", "error", "critical")
_DURATION: Final = re.compile(r"(\d+)(s|m|h|d)")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_KNOWN: Final = frozenset({"level", "event", "timestamp", "logger", "service", "replica"})
"""Fields that are shown in places of their own, or by the pod's name already."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of one pod.

    Attributes:
        time: When the kubelet took it in, RFC 3339 with nanoseconds, UTC.
        text: The line itself.
        level: Lower case; None of a line that is not of ours.
        event: What happened; the whole text of a line that is not of ours.
        fields: What else a structured line says.
    """

    service: str
    pod: str
    time: str
    text: str
    level: str | None = None
    event: str = ""
    fields: dict[str, Any] = field(default_factory=dict)


def read(service: str, pod: str, raw: str) -> Line:
    """A line as the API gives it with timestamps: the time, a space, and the text."""
    time, _, text = raw.rstrip("\n").partition(" ")
    try:
        entry = msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.DecodeError:
        return Line(service, pod, time, text, event=text)
    level = entry.get("level")
    rest = {name: value for name, value in entry.items() if name not in _KNOWN}
    return Line(service, pod, time, text, str(level).lower() if level else None, str(entry.get("event", "")), rest)


@dataclass(frozen=True, slots=True)
class Choice:
    """Which lines are wanted: of at least this level, and with this pattern in their text.

    Lines without a level, such as a database's, are shown unless a level is asked for.
    """

    level: str | None = None
    pattern: re.Pattern[str] | None = None

    def __call__(self, line: Line) -> bool:
        """Whether this line is."""
        if self.level is not None and (line.level not in LEVELS or LEVELS.index(line.level) < LEVELS.index(self.level)):
            return False
        return self.pattern is None or self.pattern.search(line.text) is not None


def merged(histories: Iterable[Iterable[Line]]) -> Iterator[Line]:
    """Lines of several pods, each in its own order, in the order of their times."""
    return heapq.merge(*histories, key=lambda line: line.time)


def seconds(duration: str) -> int:
    """``90s``, ``5m``, ``2h30m`` or ``1d`` in seconds.

    Raises:
        ValueError: Of another form, or zero.
    """
    parts = _DURATION.findall(duration)
    total = sum(int(count) * _SECONDS[unit] for count, unit in parts)
    if not total or "".join(count + unit for count, unit in parts) != duration:
        raise ValueError(f"{duration!r} is no duration: write 90s, 5m, 2h30m or 1d")
    return total
