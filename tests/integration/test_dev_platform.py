"""``fanfold dev``: up with one command, repaired while it runs, gone when told to stop."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.waiting import until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

SERVICES = "gateway,profile"
READY_SECONDS = 150


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="fanfold-test-") as name:
        Path(name).chmod(0o711)
        yield Path(name) / "dev"


def fanfold_dev(folder: Path, *arguments: str, port: int = 0) -> list[str]:
    limits = [f"--ready-seconds={READY_SECONDS}", f"--port={port}", f"--folder={folder}"]
    return [sys.executable, "-m", "fanfold", "dev", *limits, *arguments]


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)


def pid_files(folder: Path) -> list[Path]:
    return list(folder.rglob("*log.pid"))


def processes_of(folder: Path) -> list[str]:
    """Command lines of processes that have the folder among their arguments or in their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
        except OSError:
            continue
        if entry.name.isdigit() and entry.name != str(os.getpid()) and str(folder).encode() in words:
            found.append(words[:100].decode(errors="replace"))
    return found


class Running:
    """``fanfold dev`` with its output in a file."""

    def __init__(self, folder: Path) -> None:
        self.output = folder.parent / "output"
        with self.output.open("w") as out:
            command = fanfold_dev(folder, f"--services={SERVICES}", "--quiet")
            self.process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
        until(
            lambda: "Ctrl-C stops everything" in self.said() or self.process.poll() is not None,
            "ready",
            seconds=READY_SECONDS,
        )
        assert self.process.poll() is None, self.said()
        self.url = next(line.split()[-1] for line in self.said().splitlines() if " gateway: " in line)

    def said(self) -> str:
        return self.output.read_text()

    def register(self, name: str) -> int:
        body = {"username": name, "password": "correct horse battery"}
        try:
            return httpx.post(f"{self.url}/v1/accounts", json=body, trust_env=False, timeout=60).status_code
        except httpx.TransportError:
            return 0


@pytest.fixture
def running(folder: Path) -> Iterator[Running]:
    running = Running(folder)
    yield running
    if running.process.poll() is None:
        running.process.terminate()
    running.process.wait(60)


def test_it_serves_repairs_what_crashes_and_leaves_nothing_when_told_to_stop(running: Running, folder: Path) -> None:
    assert running.register("anna") == 201
    assert running.register("anna") == 409
    profile = folder / "logs" / "profile.log.pid"
    before = profile.read_text()
    os.kill(int(before.split()[0]), signal.SIGKILL)
    until(lambda: profile.exists() and profile.read_text() != before, "started again", seconds=READY_SECONDS)
    assert "profile ended with code -9; starting it again" in running.said()
    until(lambda: running.register("anna") == 409, "the account is still there", seconds=READY_SECONDS, pause=0.1)
    running.process.send_signal(signal.SIGINT)
    assert running.process.wait(60) == 0
    assert "stopped by SIGINT" in running.said()
    assert processes_of(folder) == []
    assert pid_files(folder) == []


def test_once_ends_by_itself_and_the_second_run_finds_data_and_keys_of_the_first(folder: Path) -> None:
    command = fanfold_dev(folder, f"--services={SERVICES}", "--once")
    first = run(*command)
    assert first.returncode == 0, first.stdout + first.stderr
    kept = {name: (folder / "secrets" / name).read_text() for name in ("identity_key", "cursor_key", "token_jwks")}
    assert run(*command).returncode == 0
    assert kept == {name: (folder / "secrets" / name).read_text() for name in kept}
    assert {file.stat().st_mode & 0o777 for file in (folder / "secrets").iterdir()} == {0o600}
    assert processes_of(folder) == []


def test_an_unknown_service_and_a_taken_port_are_refused_before_anything_starts(folder: Path) -> None:
    answer = run(*fanfold_dev(folder, "--services=gateway,foto"))
    assert answer.returncode == 1
    assert "no component foto" in answer.stderr
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        answer = run(*fanfold_dev(folder, port=port))
    assert answer.returncode == 1
    assert f"port {port} is taken" in answer.stderr
    assert not folder.exists()
