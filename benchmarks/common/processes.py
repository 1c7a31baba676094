"""Processes under measurement: started by us, known by pid, their CPU time read from /proc with their children's."""

from __future__ import annotations

import os
import socket
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self, TypeVar

from fanfold.dev.process import ChildProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

Kept = TypeVar("Kept")

ROOT: Final = Path(__file__).resolve().parents[2]
PYTHON: Final = sys.executable
_TICKS: Final = os.sysconf("SC_CLK_TCK")


class Workshop:
    """Context manager: a temporary folder and the processes started in it, all ended at its end."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self.folder = Path()

    def __enter__(self) -> Self:
        self.folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="fanfold-bench-")))
        self.folder.chmod(0o755)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def start(
        self,
        name: str,
        command: Sequence[str],
        *,
        ready: Callable[[], bool],
        env: dict[str, str] | None = None,
        cores: Iterable[int] | None = None,
    ) -> ChildProcess:
        """Start a process and wait until ``ready()``; on ``cores`` alone when they are given.

        Raises:
            ProcessError: It ended, or was not ready in time.
        """
        pinned = ["taskset", "-c", ",".join(map(str, cores))] if cores is not None else []
        child = ChildProcess(
            name, [*pinned, *command], log=self.folder / f"{name}.log", env={**os.environ, **(env or {})}
        )
        self._stack.callback(child.stop, 10)
        child.wait_until(ready)
        return child

    def keep(self, manager: AbstractContextManager[Kept]) -> Kept:
        """Enter a context manager and leave it at the end."""
        return self._stack.enter_context(manager)


@contextmanager
def here(cores: Iterable[int]) -> Iterator[None]:
    """Run this process on ``cores`` alone meanwhile, where there are so many."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, before & set(cores) or before)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def listens(port: int) -> Callable[[], bool]:
    """Whether somebody takes connections on a loopback port."""

    def probe() -> bool:
        try:
            socket.create_connection(("127.0.0.1", port), 0.2).close()
        except OSError:
            return False
        return True

    return probe


def tree(pid: int) -> list[int]:
    """A process and its descendants."""
    found, waiting = [], [pid]
    while waiting:
        current = waiting.pop()
        found.append(current)
        for task in Path(f"/proc/{current}/task").glob("*/children"):
            try:
                waiting += map(int, task.read_text().split())
            except OSError:
                continue
    return found


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and its living descendants, in steps of a hundredth of a second."""
    total = 0
    for one in tree(pid):
        try:
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += sum(map(int, fields[11:15]))  # utime, stime, and those of children waited for (proc(5))
    return total / _TICKS


@contextmanager
def spending(pids: Mapping[str, int]) -> Iterator[dict[str, float]]:
    """CPU seconds that processes (and their descendants) spend within, by name; there once it has ended."""
    spent: dict[str, float] = {}
    before = {name: cpu_seconds(pid) for name, pid in pids.items()}
    yield spent
    spent.update({name: cpu_seconds(pid) - before[name] for name, pid in pids.items()})


def resident_bytes(pid: int) -> int:
    """Proportional share of memory of a process and its descendants (smaps_rollup)."""
    total = 0
    for one in tree(pid):
        for line in Path(f"/proc/{one}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) << 10
    return total


def wait_for(holds: Callable[[], bool], seconds: float, what: str) -> None:
    """Until ``holds()``.

    Raises:
        TimeoutError: Not within ``seconds``.
    """
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not happen within {seconds:.0f} s")
        time.sleep(0.05)
