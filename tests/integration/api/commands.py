"""Commands that tests run beside the platform."""

from __future__ import annotations

import asyncio
import os


async def run(*words: str, seconds: float = 120, **environment: str) -> tuple[int, str]:
    """A command's exit code, and what it said on both outputs.

    In a process of its own: what runs a command in this one has its output take the place of the platform's too.
    """
    process = await asyncio.create_subprocess_exec(
        *words,
        env={**os.environ, "COLUMNS": "200", **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    return await outcome(process, seconds)


async def outcome(process: asyncio.subprocess.Process, seconds: float) -> tuple[int, str]:
    """Exit code of a command and what it said, on the one pipe it has for both outputs.

    Raises:
        TimeoutError: It took longer than ``seconds``; it is killed.
    """
    assert process.stdout is not None
    try:
        async with asyncio.timeout(seconds):
            said = (await process.stdout.read()).decode(errors="replace")
            return await process.wait(), said
    finally:
        if process.returncode is None:
            process.kill()
