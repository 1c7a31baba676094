"""How long somebody waits for an answer: set by the gateway, handed on from service to service, kept by each.

Work for a caller that has given up helps nobody, least of all in an overload, when there is most of it.
"""

from __future__ import annotations

import time
from contextvars import ContextVar
from typing import Final

from fanfold.contracts import headers
from fanfold.kit.errors import Problem

SKEW_SECONDS: Final = 0.5
"""Clocks of nodes may differ by this much before work is refused that somebody still waits for."""

current: ContextVar[bytes] = ContextVar("deadline", default=b"")
"""The deadline of the request being handled as it came: Unix milliseconds in ASCII; empty without one."""


class DeadlinePassed(Problem):
    """Nobody waits for the answer any more. Nothing was done."""

    status = 504
    kind = "deadline-passed"


def check(value: bytes) -> None:
    """Refuse work whose deadline has passed; a value that is no number counts as none.

    Raises:
        DeadlinePassed: It has.
    """
    if value and value.isdigit() and int(value) < (time.time() - SKEW_SECONDS) * 1000:
        raise DeadlinePassed("The request's deadline has passed; nothing was done.")


def onward() -> dict[str, str]:
    """The header for calls of other services."""
    value = current.get()
    return {headers.DEADLINE: value.decode("ascii", "replace")} if value else {}
