"""Looks at keys again and again, each in a task of its own, with what is remembered of it from look to look."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Generic, TypeVar

import structlog

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fanfold_operator.kinds import Key

log = structlog.stdlib.get_logger(__name__)

Memory = TypeVar("Memory")


class Keeper(Generic[Memory]):
    """A task per key.

    Args:
        look: Called with a key and its memory; answers after how many seconds it wants to look again. What it raises is
            logged.
        memory: Makes the memory of a new key.
        name: What is done, for logs: ``autoscale``.
        retry_seconds: Until the next look after one that raised.
    """

    def __init__(
        self,
        look: Callable[[Key, Memory], Awaitable[float]],
        memory: Callable[[], Memory],
        *,
        name: str,
        retry_seconds: float,
    ) -> None:
        self._look = look
        self._memory = memory
        self._name = name
        self._retry_seconds = retry_seconds
        self._kept: dict[Key, tuple[asyncio.Task[None], Memory]] = {}

    def keep(self, key: Key) -> Memory:
        """Look at this key from now on; what is remembered of it."""
        if key not in self._kept:
            memory = self._memory()
            self._kept[key] = asyncio.create_task(self._run(key, memory), name=f"{self._name} {key}"), memory
        return self._kept[key][1]

    def forget(self, key: Key) -> None:
        """Look at it no longer; kept again, it begins anew."""
        if kept := self._kept.pop(key, None):
            kept[0].cancel()

    async def close(self) -> None:
        """Forget all; returns when nobody looks any more."""
        tasks = [task for task, _ in self._kept.values()]
        for key in list(self._kept):
            self.forget(key)
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task

    async def _run(self, key: Key, memory: Memory) -> None:
        while True:
            delay = self._retry_seconds
            try:
                delay = await self._look(key, memory)
            except Exception:
                log.exception("look_failed", of=self._name, key=str(key))
            await asyncio.sleep(delay)
