"""What the backing stores have in common: a folder, a port, a process, a probe."""

from __future__ import annotations

import signal
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

from fanfold.dev.process import ChildProcess, end_stale

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


class Store(ABC):
    """One backing store. `start` it, `wait` for it, `stop` it; started again, it has the same address and data.

    Args:
        folder: Its own: data, configuration and ``log``.
        durable: Whether data outlives the folder's user. If not, nothing waits for the disk.

    Attributes:
        process: The server, once started.
    """

    name: ClassVar[str]
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    stop_seconds: ClassVar[float] = 15.0
    process: ChildProcess

    def __init__(self, folder: Path, *, durable: bool) -> None:
        self.folder = folder
        self.durable = durable
        self.user: str | None = None
        self.log = folder / "log"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    @property
    @abstractmethod
    def url(self) -> str:
        """Where clients find it, with the password if the scheme has a place for it."""

    @abstractmethod
    def prepare(self) -> Sequence[str]:
        """Write what the server needs and return its command line."""

    @abstractmethod
    def is_ready(self) -> bool:
        """Whether clients are served now."""

    def start(self) -> None:
        """Start the server and do not wait. A server that an earlier run left behind in this folder is ended first."""
        end_stale(self.log, self.stop_signal, self.stop_seconds)
        command = self.prepare()
        self.process = ChildProcess(self.name, command, log=self.log, user=self.user, stop_signal=self.stop_signal)

    def wait(self) -> None:
        """Until clients are served.

        Raises:
            ProcessError: The server ended or was not ready in time; the message quotes its log.
        """
        self.process.wait_until(self.is_ready)

    def stop(self) -> None:
        """Stop the server in order; safe to call for one that has ended."""
        self.process.stop(self.stop_seconds)
