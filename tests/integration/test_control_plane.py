"""The control plane alone, as tests of the operator use it: many at once, gone with the test whatever happens."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.waiting import until

ROOT = Path(__file__).parents[2]
BINARY = ROOT / ".build" / "bin" / "fanfold-cluster"
START_SECONDS = 120

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not BINARY.exists(), reason="the control plane is not built: run cluster/build.sh"),
]


def control_plane(verb: str, state: Path, *flags: str) -> list[str]:
    return [str(BINARY), "control-plane", verb, "--state", str(state), *flags]


def kubectl(config: str | Path, *words: str) -> str:
    return subprocess.run(
        [BINARY, "kubectl", "--kubeconfig", config, *words], capture_output=True, text=True, timeout=60, check=True
    ).stdout


def processes(state: Path) -> set[int]:
    """Every process that carries this control plane's mark."""
    mark = f"FANFOLD_CLUSTER_OWNER=control-plane:{state.resolve()}".encode()
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (folder / "environ").read_bytes().split(b"\0"):
                found.add(int(folder.name))
        except OSError:
            continue  # it ended meanwhile, or is somebody else's
    return found


@contextmanager
def started(state: Path) -> Iterator[subprocess.Popen[str]]:
    """``control-plane run`` until the block ends."""
    with subprocess.Popen(
        control_plane("run", state), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as running:
        assert running.stdin
        try:
            yield running
        finally:
            running.stdin.close()
            running.wait(60)


def kubeconfig(running: subprocess.Popen[str]) -> str:
    """As soon as it serves."""
    assert running.stdout
    readable, _, _ = select.select([running.stdout], [], [], START_SECONDS)
    assert readable, f"not ready within {START_SECONDS} s: read the logs beside its state"
    mark, _, config = running.stdout.readline().strip().partition("=")
    assert mark == "READY kubeconfig"
    return config


@contextmanager
def serving(state: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The same once it serves, and its kubeconfig."""
    with started(state) as running:
        yield running, kubeconfig(running)


def test_several_at_once_are_worlds_of_their_own(tmp_path: Path) -> None:
    with started(tmp_path / "one") as first, started(tmp_path / "two") as second:
        one, two = kubeconfig(first), kubeconfig(second)
        kubectl(one, "create", "namespace", "only-here")
        assert "only-here" in kubectl(one, "get", "namespaces")
        assert "only-here" not in kubectl(two, "get", "namespaces")


def test_it_ends_when_its_input_closes_and_keeps_its_data(tmp_path: Path) -> None:
    state = tmp_path / "a-folder-whose-name-is-so-long-that-no-socket-could-have-a-path-in-it" / ("x" * 60)
    with serving(state) as (_, config):
        kubectl(config, "create", "namespace", "kept")
    until(lambda: not processes(state))
    with serving(state) as (running, config):
        assert "kept" in kubectl(config, "get", "namespaces")
    assert running.returncode == 0


def test_one_refuses_a_second_in_its_folder_and_leaves_no_process_behind_when_it_is_killed(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with serving(state) as (running, _):
        second = subprocess.run(
            control_plane("run", state),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert second.returncode == 1
        assert "already runs" in second.stderr
        assert len(processes(state)) >= 2
        os.kill(running.pid, signal.SIGKILL)
        until(lambda: not processes(state))


def test_in_the_background_it_runs_until_it_is_told_to_stop(tmp_path: Path) -> None:
    state = tmp_path / "state"
    words = control_plane("up", state, "--controller-manager")
    config = subprocess.run(words, capture_output=True, text=True, timeout=120, check=True).stdout.strip()
    try:
        assert kubectl(config, "get", "serviceaccount", "default", "-o", "name").strip() == "serviceaccount/default"
    finally:
        subprocess.run(control_plane("down", state), timeout=60, check=True)
    assert processes(state) == set()


def test_a_program_that_refuses_to_start_is_named_at_once_with_its_log(tmp_path: Path) -> None:
    state = tmp_path / "state"
    (state / "etcd").mkdir(parents=True)
    (state / "etcd" / "member").touch()  # where etcd wants a folder
    begun = time.monotonic()
    failed = subprocess.run(
        control_plane("run", state), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=100, check=False
    )
    assert failed.returncode == 1
    assert "etcd ended (exit code 1)" in failed.stderr
    assert str(state / "logs" / "etcd.log") in failed.stderr
    assert time.monotonic() - begun < 60, "at once, and not after the two minutes that a start may take"
