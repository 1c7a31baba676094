"""Several processes on one port, as ``FANFOLD_PROCESSES`` starts them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from fanfold.dev.process import free_ports
from fanfold.gateway.processes import merge, oldest
from tests.waiting import eventually

if TYPE_CHECKING:
    from tests.integration.gateway.conftest import Rig

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]
PROCESSES = 2


class Gateway:
    def __init__(self, rig: Rig, secrets: Path, folder: Path) -> None:
        self.port, self.admin_port = free_ports(2)
        environment = {
            **os.environ,
            "FANFOLD_PROCESSES": str(PROCESSES),
            "FANFOLD_SECRETS_DIR": str(secrets),
            "FANFOLD_SNAPSHOT_SOURCE": f"file:{rig.file}",
            "FANFOLD_SNAPSHOT_CACHE": str(folder / "cache"),
            "FANFOLD_TRAFFIC_PORT": str(self.port),
            "FANFOLD_ADMIN_PORT": str(self.admin_port),
            "FANFOLD_DRAIN_SECONDS": "0.2",
            "FANFOLD_GRACE_SECONDS": "2",
        }
        self.process = subprocess.Popen([sys.executable, "-m", "fanfold", "run", "gateway"], env=environment)

    def admin(self, path: str) -> httpx.Response:
        return httpx.get(f"http://127.0.0.1:{self.admin_port}{path}", timeout=30)

    def ready(self) -> bool:
        try:
            return self.admin("/readyz").status_code == 200
        except httpx.HTTPError:
            return False

    def children(self) -> list[int]:
        return [
            int(pid) for pid in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        ]

    @staticmethod
    def alive(pids: list[int]) -> list[int]:
        return [pid for pid in pids if Path(f"/proc/{pid}").exists()]

    async def until(self, condition: Callable[[], object]) -> None:
        async def holds() -> object:
            answer = await asyncio.to_thread(condition)
            assert answer or self.process.poll() is None, "it has ended"
            return answer

        await eventually(holds, pause=0.1)


@pytest.fixture
def gateway(rig: Rig, secrets_dir: Path, tmp_path: Path) -> Iterator[Gateway]:
    rig.locate()
    made = Gateway(rig, secrets_dir, tmp_path)
    yield made
    made.process.terminate()
    try:
        made.process.wait(60)
    finally:
        made.process.kill()


async def test_processes_share_the_port_and_one_admin_port_answers_for_all(gateway: Gateway, rig: Rig) -> None:
    await gateway.until(gateway.ready)
    assert len(gateway.children()) == PROCESSES

    def served() -> set[str]:
        for _ in range(20):  # each on a connection of its own: the kernel spreads those
            answer = httpx.get(f"http://127.0.0.1:{gateway.port}/v1/feed", headers=rig.bearer(), timeout=30)
            assert answer.status_code == 200
        lines = gateway.admin("/metrics").text.splitlines()
        return {line for line in lines if line.startswith("fanfold_gateway_requests_total") and "/v1/feed" in line}

    await gateway.until(lambda: {line.partition('process="')[2][:1] for line in served()} == {"0", "1"})
    assert gateway.admin("/snapshot").json()["epoch"] == 1
    rig.locate(2)
    await gateway.until(lambda: gateway.admin("/snapshot").json()["epoch"] == 2)

    children = gateway.children()
    os.kill(children[0], signal.SIGKILL)
    await gateway.until(lambda: not gateway.ready() or gateway.children() != children)
    await gateway.until(lambda: len(gateway.children()) == PROCESSES and gateway.ready())

    children = gateway.children()
    gateway.process.terminate()
    assert await asyncio.to_thread(gateway.process.wait, 60) == 0
    assert not gateway.alive(children)


async def test_processes_end_when_the_one_that_watches_them_is_killed(gateway: Gateway) -> None:
    await gateway.until(gateway.ready)
    children = gateway.children()
    gateway.process.kill()
    await eventually(lambda: not gateway.alive(children), "the end of the others")


def test_the_snapshot_told_is_the_oldest_in_use() -> None:
    assert oldest([{"epoch": 5}, {"epoch": 4}, {"epoch": 9}]) == {"epoch": 4}
    assert oldest([{"epoch": 5}, {"epoch": None}]) == {"epoch": None}


def test_metrics_of_several_processes_stay_apart_and_whole() -> None:
    text = (
        '# HELP a A.\n# TYPE a counter\na_total{x="1"} 3.0\n'
        "# HELP h H.\n# TYPE h histogram\n"
        'h_bucket{le="1.0"} 2.0 # {trace_id="abc"} 0.5\nh_bucket{le="+Inf"} 2.0\nh_count 2.0\nh_sum 1.0\n# EOF\n'
    )
    families: dict[str, Any] = {}
    merge(families, text, 0)
    merge(families, text, 1)
    assert [(one.labels, one.value) for one in families["a"].samples] == [
        ({"x": "1", "process": "0"}, 3.0),
        ({"x": "1", "process": "1"}, 3.0),
    ]
    assert families["h"].samples[0].exemplar.labels == {"trace_id": "abc"}
    assert json.dumps(len(families["h"].samples)) == "8"
