"""Ports for servers that do not listen yet."""

from __future__ import annotations

import subprocess
import sys

import pytest

from fanfold.dev import process

FEW = range(28_000, 29_000)
ANOTHER = "from fanfold.dev import process; process.PORTS = range({}, {}); print(*process.free_ports(100))"


def test_two_processes_are_never_given_the_same_port(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests run side by side, and a server may begin to listen long after its port was chosen."""
    monkeypatch.setattr(process, "PORTS", FEW)
    mine = process.free_ports(100)
    script = ANOTHER.format(FEW.start, FEW.stop)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    others = [int(word) for word in done.stdout.split()]
    assert len({*mine, *others}) == 200


def test_ports_are_spoken_for_by_so_many_files_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "SPOKEN_FOR", len(process._spoken_for) + 3)
    before = len(process._spoken_for)
    process.free_ports(9)
    assert len(process._spoken_for) == before + 3
