"""A real Prometheus for a test."""

from __future__ import annotations

import shutil
import time
from contextlib import ExitStack
from pathlib import Path

import httpx

from fanfold.dev.process import ChildProcess, free_ports

START_SECONDS = 60


def answers(url: str) -> bool:
    """Whether there is a good answer."""
    try:
        return httpx.get(url, trust_env=False, timeout=30).is_success
    except httpx.TransportError:
        return False


def start_prometheus(stack: ExitStack, folder: Path, config: str) -> str:
    """Start one with these settings, to be ended with the stack; its URL."""
    program = shutil.which("prometheus")
    assert program, "tools/install-prometheus.sh puts it into .build/bin"
    (folder / "prometheus.yml").write_text(config)
    (port,) = free_ports(1)
    command = [program, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    command.append(f"--web.listen-address=127.0.0.1:{port}")
    server = ChildProcess("prometheus", command, log=folder / "prometheus.log")
    stack.callback(server.stop)
    url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + START_SECONDS
    while not answers(f"{url}/-/ready"):
        assert time.monotonic() < deadline, server.tail()
        time.sleep(0.3)
    return url
