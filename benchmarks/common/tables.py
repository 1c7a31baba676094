"""Figures as Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def number(value: float, digits: int = 0) -> str:
    """``12,345``; with so many digits behind the point."""
    return f"{value:,.{digits}f}"


def spread(values: Mapping[str, float], digits: int = 0) -> str:
    """``median (least to most)`` of a `common.results.summary`."""
    return f"{number(values['median'], digits)} ({number(values['min'], digits)} to {number(values['max'], digits)})"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; all columns but the first are numbers, set right."""
    marks = ["---", *(["---:"] * (len(head) - 1))]
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, marks, *rows))
