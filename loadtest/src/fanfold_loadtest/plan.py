"""What a scenario's process is told, and what it answers: two JSON files in a private folder."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

PLAN_VARIABLE: Final = "FANFOLD_LOADTEST_PLAN"
"""Environment variable with the path of the plan; the result goes to `result_path` of it."""


class Reader(msgspec.Struct, frozen=True):
    """Somebody who reads."""

    user_id: str
    token: str


class Plan(msgspec.Struct, frozen=True):
    """One scenario's load.

    Attributes:
        rate: Arrivals a second.
        seconds: How long they come.
        seed: Of the arrivals and of who reads what.
        readers: Who reads; their tokens must outlive the run.
        authors: Ids of users with posts.
        posts: Ids of posts.
    """

    rate: float
    seconds: float
    seed: int
    readers: list[Reader]
    authors: list[str]
    posts: list[str]


class Figures(msgspec.Struct, frozen=True):
    """One kind of request. Milliseconds; null where nothing was answered."""

    requests: int
    failures: int
    p50_ms: float | None
    p99_ms: float | None
    max_ms: float | None


class Result(msgspec.Struct, frozen=True):
    """What came of a plan.

    Attributes:
        requests: Figures by kind of request.
        failures: All failed requests.
        first_failure: Message of one of them, or empty.
        arrivals: Intended starts.
        late_starts: Those that began more than `arrivals.LATE_SECONDS` late: blame the generator.
    """

    requests: dict[str, Figures]
    failures: int
    first_failure: str
    arrivals: int
    late_starts: int


def result_path(plan: Path) -> Path:
    """Where the result of this plan goes."""
    return plan.with_name("result.json")


def read_plan(path: Path) -> Plan:
    """Parse a plan."""
    return msgspec.json.decode(path.read_bytes(), type=Plan)
