"""What each process of a run is told, and where it answers: JSON files in a private folder."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from fanfold_loadtest.recording import Share
from fanfold_loadtest.scenario import Scenario

PLAN_VARIABLE: Final = "FANFOLD_LOADTEST_PLAN"
"""Environment variable with the path of the plan; answers go beside it."""


class Reader(msgspec.Struct):
    """Somebody who reads. The tokens are replaced before they end."""

    user_id: str
    token: str
    refresh_token: str


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """One process's part of a scenario.

    Attributes:
        begin_at: Unix time at which all processes begin, in seconds.
        index: Number of this process, from 0; process 0 also does the events.
        of: How many processes there are: each sends its part of the rate.
        seed: Of arrivals and of who does what.
        readers: Who reads; each belongs to one process.
        token_seconds: How long tokens live.
        authors: Ids of users with posts, the celebrity not among them.
        posts: Ids of posts.
        celebrity: Who publishes at events.
        watchers: Followers of the celebrity who look out for what is published.
        celebrity_photo: Id of the photo that the celebrity publishes; empty where there are no events.
        photo: A file to upload, with its media type.
        listening: Posts of those of the readers who hold a WebSocket open; nobody unless the mix has `notify`.
    """

    scenario: Scenario
    begin_at: float
    index: int
    of: int
    seed: int
    readers: list[Reader]
    token_seconds: float
    authors: list[str]
    posts: list[str]
    celebrity: Reader
    watchers: list[Reader]
    celebrity_photo: str
    photo: tuple[str, str]
    listening: dict[str, list[str]] = {}


class Progress(msgspec.Struct, frozen=True):
    """What a process tells while it runs.

    Attributes:
        phase: The phase it is in.
        done: Requests answered, good or not.
        failed: Of these, without a good answer.
        p50_ms: Of the requests of the last seconds; 0 where there were none.
        p99_ms: The same.
        arrivals: Requests due so far.
        late: Of these, begun late.
        dropped: Of these, never begun.
        under_way: Requests not answered yet.
        cpu_cores: CPU used since it last told, in cores.
        steps: Of `Share`.
    """

    phase: str
    done: int
    failed: int
    p50_ms: float
    p99_ms: float
    arrivals: int = 0
    late: int = 0
    dropped: int = 0
    under_way: int = 0
    cpu_cores: float = 0.0
    steps: dict[str, Share] = {}


def share_path(plan: Path) -> Path:
    """Where what this process measured goes."""
    return plan.with_name(plan.stem + ".share.json")


def progress_path(plan: Path) -> Path:
    """Where its progress goes."""
    return plan.with_name(plan.stem + ".progress.json")


def read_plan(path: Path) -> Plan:
    """Parse a plan."""
    return msgspec.json.decode(path.read_bytes(), type=Plan)


def read_share(path: Path) -> Share:
    """Parse a share."""
    return msgspec.json.decode(path.read_bytes(), type=Share)


def put(path: Path, content: msgspec.Struct) -> None:
    """Write one of these files; a reader never meets half of it."""
    partial = path.with_suffix(".new")
    partial.write_bytes(msgspec.json.encode(content))
    partial.replace(path)
