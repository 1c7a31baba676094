"""Stages of a long job: one line when a stage begins, one when it ends, its output in a log of its own."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NoReturn

ROOT: Final = Path(__file__).resolve().parents[1]
LOGS: Final = ROOT / ".build" / "logs"
TAIL_LINES: Final = 40
HEARTBEAT_SECONDS: Final = 30


class StageError(Exception):
    """A stage failed; the message says which log to read. Of a command that ended, all it printed and its exit code."""

    def __init__(self, message: str, output: str = "", code: int | None = None) -> None:
        super().__init__(message)
        self.output = output
        self.code = code


def say(text: str = "") -> None:
    """Print one line at once."""
    print(text, flush=True)  # noqa: T201 - progress is this module's purpose


def fail(message: str, code: int = 1) -> NoReturn:
    """Say why on standard error and exit."""
    print(f"error: {message}", file=sys.stderr, flush=True)  # noqa: T201 - a command's last word
    raise SystemExit(code)


class Stages:
    """Numbered stages with their seconds.

    Args:
        total: How many stages there will be, for the counter.
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self._number = 0
        self.seconds: dict[str, float] = {}

    def run(self, name: str, work: Callable[[], str | None]) -> None:
        """Do ``work``; a string it returns is shown beside the time.

        Raises:
            StageError: As ``work`` raises it.
        """
        self._number += 1
        label = f"[{self._number}/{self._total}] {name}"
        say(f"{label} …")
        started = time.monotonic()
        done = threading.Event()
        threading.Thread(target=_heartbeat, args=(done, label, started), daemon=True).start()
        try:
            note = work()
        except StageError:
            say(f"{label}: FAILED after {time.monotonic() - started:.1f} s")
            raise
        finally:
            done.set()
        self.seconds[name] = time.monotonic() - started
        say(f"{label}: {self.seconds[name]:.1f} s{f'  ({note})' if note else ''}")


def _heartbeat(done: threading.Event, label: str, started: float) -> None:
    while not done.wait(HEARTBEAT_SECONDS):
        say(f"{label} … {time.monotonic() - started:.0f} s")


def command(name: str, arguments: Sequence[str | Path], *, seconds: float, env: dict[str, str] | None = None) -> str:
    """Run a command with its output in ``.build/logs/<name>.log``; the output.

    Raises:
        StageError: It failed or took longer than ``seconds``; the message ends with the log's tail and place.
    """
    LOGS.mkdir(parents=True, exist_ok=True)
    log = LOGS / f"{name}.log"
    with tempfile.NamedTemporaryFile("w+", dir=LOGS, errors="replace", delete=False) as output:
        Path(output.name).replace(log)  # of several at once each reads its own output; the last one's keeps the name
        try:
            process = subprocess.run(  # noqa: S603 - our own commands
                [str(argument) for argument in arguments],
                cwd=ROOT,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=seconds,
                check=False,
            )
            code: int | None = process.returncode
            problem = f"exit code {code}" if code else ""
        except subprocess.TimeoutExpired:
            code, problem = None, f"no end within {seconds:.0f} s"
        except FileNotFoundError as error:
            raise StageError(f"{name}: {error.filename} is not there; run `make bootstrap`") from error
        output.seek(0)
        text = output.read()
    if problem:
        tail = "\n".join(text.splitlines()[-TAIL_LINES:])
        raise StageError(f"{tail}\n{name}: {problem}; the whole log is {log.relative_to(ROOT)}", text, code)
    return text
