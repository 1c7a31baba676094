from __future__ import annotations

import asyncio
import operator
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from PIL import Image

from fanfold.image.pictures import Limits, inspect
from fanfold.image.processes import NICENESS, ChildError, Processes
from fanfold.image.settings import ImageSettings
from tests.waiting import until

MIB = 1 << 20


@pytest.fixture
async def processes() -> AsyncIterator[Processes]:
    pool = Processes(count=1, memory=256 * MIB, seconds=60)
    await pool.run(os.getpid)
    yield pool
    await pool.close()


async def test_calls_run_in_another_process_that_is_kept(processes: Processes) -> None:
    first = await processes.run(os.getpid)
    assert first != os.getpid()
    assert await processes.run(os.getpid) == first


async def test_they_give_way_to_their_parent(processes: Processes) -> None:
    own = os.getpriority(os.PRIO_PROCESS, 0)
    assert await processes.run(os.getpriority, os.PRIO_PROCESS, 0) == min(own + NICENESS, 19)


async def test_what_the_function_raises_is_raised_and_the_process_is_kept(processes: Processes) -> None:
    before = await processes.run(os.getpid)
    with pytest.raises(ZeroDivisionError):
        await processes.run(operator.floordiv, 1, 0)
    assert await processes.run(os.getpid) == before


async def test_a_crash_costs_one_call_and_the_next_finds_a_fresh_process(processes: Processes) -> None:
    before = await processes.run(os.getpid)
    with pytest.raises(ChildError, match="crashed"):
        await processes.run(signal.raise_signal, signal.SIGKILL)
    assert await processes.run(os.getpid) != before


async def test_a_call_that_takes_too_long_is_killed() -> None:
    impatient = Processes(count=1, memory=256 * MIB, seconds=1.0)
    before = await impatient.run(os.getpid)
    started = time.monotonic()
    with pytest.raises(ChildError, match="longer than 1 s"):
        await impatient.run(time.sleep, 100)
    assert time.monotonic() - started < 60
    assert await impatient.run(os.getpid) != before
    until(lambda: not Path(f"/proc/{before}").exists())
    await impatient.close()


async def test_memory_is_bounded(processes: Processes) -> None:
    assert len(await processes.run(bytearray, 10 * MIB)) == 10 * MIB
    with pytest.raises(MemoryError):
        await processes.run(bytearray, 512 * MIB)


async def test_the_event_loop_stays_free_while_a_child_works(processes: Processes) -> None:
    work = asyncio.create_task(processes.run(time.sleep, 0.5))
    turns = 0
    while not work.done():
        await asyncio.sleep(0.01)
        turns += 1
    assert turns > 3


async def test_no_more_calls_run_at_once_than_there_are_children() -> None:
    pool = Processes(count=2, memory=256 * MIB, seconds=60)
    try:
        pids = await asyncio.gather(*(pool.run(os.getpid) for _ in range(20)))
        assert 1 <= len(set(pids)) <= 2
    finally:
        await pool.close()


async def test_the_largest_picture_allowed_fits_into_a_childs_memory(tmp_path: Path) -> None:
    settings = ImageSettings()
    path = tmp_path / "large.png"
    Image.new("RGBA", (7_071, 7_071), (10, 200, 30, 128)).save(path, compress_level=1)  # 49,999,041 pixels
    pool = Processes(count=1, memory=settings.image_process_mib * MIB, seconds=60)
    try:
        found = await pool.run(inspect, str(path), Limits())
        assert found.width == 7_071
    finally:
        await pool.close()


def test_children_end_when_their_parent_is_killed() -> None:
    script = (
        "import asyncio, os, time\n"
        "from fanfold.image.processes import Processes\n"
        "async def main():\n"
        "    pool = Processes(1, 1 << 28, 30)\n"
        "    print(await pool.run(os.getpid), flush=True)\n"
        "    time.sleep(60)\n"
        "if __name__ == '__main__': asyncio.run(main())\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        os.kill(child, 0)
        parent.kill()
    until(lambda: not Path(f"/proc/{child}").exists())
