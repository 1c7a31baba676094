"""One child process: started with a log file, waited for with a limit, stopped by its id."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections import deque
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

PORTS: Final = range(15_000, 30_000)
"""Below those that Linux gives outgoing connections (from 32,768) and Kubernetes its services (from 30,000): what is
free here stays free until somebody listens on it."""
SPOKEN_FOR: Final = 128
"""So many of the ports given last are given to nobody else, whether somebody listens there by now or not."""
START_SECONDS: Final = 60.0
STOP_SECONDS: Final = 15.0
_POLL_SECONDS: Final = 0.05
_LOG_TAIL: Final = 2_000


class ProcessError(Exception):
    """A process ended or did not become ready: the message names it and quotes the end of its log."""


_spoken_for: deque[int] = deque()


def free_ports(count: int) -> list[int]:
    """Distinct ports of the loopback interface that are free now, and that no client's connection will take.

    Nor does another process get them from here, while this one lives, before its servers listen.
    """
    with ExitStack() as stack:
        found: list[int] = []
        while len(found) < count:
            port = secrets.choice(PORTS)
            with suppress(OSError):  # somebody listens there, one of ours included, or it is spoken for
                stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
                _speak_for(port)
                found.append(port)
        return found


def _speak_for(port: int) -> None:
    """Take the UDP port of that number, which no server of ours wants: the kernel lets go of it when we die.

    Raises:
        OSError: It is taken: the port was given to somebody.
    """
    with socket.socket(type=socket.SOCK_DGRAM) as one:
        one.bind(("127.0.0.1", port))
        _spoken_for.append(one.detach())
    if len(_spoken_for) > SPOKEN_FOR:
        os.close(_spoken_for.popleft())


class ChildProcess:
    """A running child. It is told to stop, too, when this process dies (where util-linux's setpriv is there).

    That signal is sent when the *thread* that started the child ends: start children from the main thread.

    Args:
        name: For messages.
        command: Program and arguments.
        log: File that gets standard output and error. Beside it, ``<log>.pid`` says who runs, for `end_stale`.
        user: Name of the user to run as; None for the current one.
        stop_signal: What asks it to stop at once but in order.
        env: Environment; None for the current one.
    """

    def __init__(  # noqa: PLR0913 - keyword-only wiring
        self,
        name: str,
        command: Sequence[str],
        *,
        log: Path,
        user: str | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
        env: dict[str, str] | None = None,
    ) -> None:
        self.name = name
        self._log = log
        self._stop_signal = stop_signal
        setpriv = shutil.which("setpriv")
        dies_with_us = [setpriv, "--pdeathsig", stop_signal.name.removeprefix("SIG")] if setpriv else []
        with log.open("ab") as output:
            self._process = subprocess.Popen(  # noqa: S603 - our own command line
                [*dies_with_us, *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=log.parent,
                user=user,
                group=_group(user),
                extra_groups=[] if user else None,
                env=env,
                start_new_session=True,
            )
        self._pid_file = _pid_file(log)
        self._pid_file.write_text(f"{self.pid} {_started_at(self.pid)}")

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def wait_until(self, ready: Callable[[], bool], seconds: float = START_SECONDS) -> None:
        """Until ``ready()`` is true.

        Raises:
            ProcessError: The process ended, or ``seconds`` passed.
        """
        deadline = time.monotonic() + seconds
        while not ready():
            if not self.running():
                raise ProcessError(f"{self.name} ended with code {self._process.returncode}. {self.tail()}")
            if time.monotonic() > deadline:
                raise ProcessError(f"{self.name} was not ready after {seconds:.0f} s. {self.tail()}")
            time.sleep(_POLL_SECONDS)

    def wait(self, seconds: float) -> int:
        """Until it ends by itself; its exit code.

        Raises:
            ProcessError: It did not within ``seconds``.
        """
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise ProcessError(f"{self.name} did not end within {seconds:.0f} s. {self.tail()}") from None

    @property
    def returncode(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""
        return self._process.poll()

    def kill(self) -> None:
        """End it at once, as a crash would."""
        self._process.kill()
        self._process.wait(STOP_SECONDS)

    def ask_to_stop(self) -> None:
        """Send its stop signal and do not wait: several can stop at the same time."""
        if self.running():
            self._process.send_signal(self._stop_signal)

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """Ask it to stop; kill it if it has not after ``seconds``."""
        self.ask_to_stop()
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
        self._pid_file.unlink(missing_ok=True)

    def tail(self) -> str:
        """The end of its log, and where the whole is: for messages."""
        text = self._log.read_text(encoding="utf-8", errors="replace")[-_LOG_TAIL:]
        return f"The end of its log ({self._log}):\n{text}"


def end_stale(log: Path, stop_signal: signal.Signals = signal.SIGTERM, seconds: float = STOP_SECONDS) -> None:
    """End the process of an earlier run that wrote ``log`` and outlived its parent; do nothing if there is none.

    A process is known by its id and its start time, so that a stranger who inherited the id is left alone.
    """
    file = _pid_file(log)
    try:
        pid, _, started = file.read_text().partition(" ")
    except FileNotFoundError:
        return
    for number, patience in ((stop_signal, seconds), (signal.SIGKILL, seconds)):
        if not started or _started_at(int(pid)) != started:
            break
        os.kill(int(pid), number)
        deadline = time.monotonic() + patience
        while _started_at(int(pid)) == started and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
    file.unlink()


def _pid_file(log: Path) -> Path:
    return log.with_name(f"{log.name}.pid")


def _started_at(pid: int) -> str:
    """When the process started, in the kernel's ticks; empty when it is gone, a zombie, or there is no /proc."""
    try:
        # proc(5): the command's name may hold spaces and brackets; fields 3 (state) and 22 (start time) come after it.
        fields = (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def _group(user: str | None) -> int | None:
    if user is None:
        return None
    import pwd  # noqa: PLC0415 - POSIX only, like users

    return pwd.getpwnam(user).pw_gid


def is_root() -> bool:
    """Whether this process runs as root, which PostgreSQL refuses to."""
    return os.geteuid() == 0
