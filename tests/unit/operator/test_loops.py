"""Loops of tests leave no connection behind: a socket that the garbage collector finds fails whatever test it is in."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from tests.integration.operator.loops import complete


@pytest.fixture
def port() -> Any:
    """Of a server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


async def _connect(port: int, kept: list[Any]) -> None:
    transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, "127.0.0.1", port)
    kept.append(transport.get_extra_info("socket"))


def test_connections_that_nobody_closed_are(port: int) -> None:
    kept: list[Any] = []

    async def work() -> str:
        await _connect(port, kept)
        return "done"

    assert complete(work()) == "done"
    assert [one.fileno() for one in kept] == [-1]


def test_so_are_those_of_tasks_that_still_run_and_of_work_that_fails(port: int) -> None:
    kept: list[Any] = []
    tasks = set()

    async def forever() -> None:
        await _connect(port, kept)
        await asyncio.Event().wait()

    async def work() -> None:
        tasks.add(asyncio.create_task(forever()))
        while not kept:
            await asyncio.sleep(0)
        raise LookupError("the work's own")

    with pytest.raises(LookupError, match="the work's own"):
        complete(work())
    assert [one.fileno() for one in kept] == [-1]
    assert all(task.cancelled() for task in tasks)
