"""Commands that tests run beside the platform."""

from __future__ import annotations

import asyncio


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
