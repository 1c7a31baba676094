"""Child processes for work on hostile files: memory and time are bounded, a crash costs one call and nothing else."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import queue
import resource
import signal
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, TypeVar, TypeVarTuple

from fanfold.kit.logging import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess

log = get_logger(__name__)

Given = TypeVarTuple("Given")
Answer = TypeVar("Answer")

START_SECONDS: Final = 20.0
"""For a child to import what it needs, added to the limit of its first call."""
END_SECONDS: Final = 2.0
NICENESS: Final = 10
"""Children give way to their parent, which answers probes and says what waits, when the pod is short of CPU."""
# The fork server imports the decoders once; children share those pages and are ready in milliseconds. Plain fork would
# copy a process that has threads.
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["fanfold.image.pictures"])


class ChildError(Exception):
    """The child did not answer: it crashed, or it was killed for taking too long."""


def _serve(connection: Connection, memory: int) -> None:
    """A child's life: answer calls until the parent is gone (its end of the pipe closes with it)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole terminal; ending is the parent's decision
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    os.nice(NICENESS)
    while True:
        try:
            function, arguments = connection.recv()
        except EOFError:
            return
        answer: tuple[Any, Exception | None]
        try:
            answer = (function(*arguments), None)
        except Exception as error:  # noqa: BLE001 - raised again on the parent's side
            answer = (None, error)
        try:
            connection.send(answer)
        except BrokenPipeError:
            return


class _Child:
    """One process, started on first use and again after a crash. One caller at a time."""

    def __init__(self, memory: int, seconds: float) -> None:
        self._memory = memory
        self._seconds = seconds
        self._process: BaseProcess | None = None
        self._connection: Connection | None = None

    def call(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        seconds = self._seconds if self._process else self._seconds + START_SECONDS
        connection = self._connection or self._start()
        try:
            connection.send((function, arguments))
            received = connection.recv() if connection.poll(seconds) else None
        except (EOFError, OSError) as gone:
            self.kill()
            raise ChildError("the decoding process crashed") from gone
        if received is None:
            self.kill()
            raise ChildError(f"decoding took longer than {self._seconds:g} s")
        answer, error = received
        if error is not None:
            raise error
        return answer

    def _start(self) -> Connection:
        ours, theirs = _context.Pipe()
        self._process = _context.Process(target=_serve, args=(theirs, self._memory), daemon=True)
        self._process.start()
        theirs.close()
        self._connection = ours
        return ours

    def kill(self) -> None:
        if self._connection is not None:
            self._connection.close()
        if self._process is not None:
            self._process.kill()
            self._process.join(END_SECONDS)
        self._process = self._connection = None


class Processes:
    """A fixed number of children.

    Args:
        count: Children, started when needed.
        memory: Bytes of data each may use (``RLIMIT_DATA``); over it, allocation fails in the child.
        seconds: Limit of one call.
    """

    def __init__(self, count: int, memory: int, seconds: float) -> None:
        self._children = [_Child(memory, seconds) for _ in range(count)]
        self._free: queue.SimpleQueue[_Child] = queue.SimpleQueue()
        for child in self._children:
            self._free.put(child)
        # As many threads as children: a thread that runs finds a free child.
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="children")

    async def start(self) -> None:
        """Start one child: the fork server has then loaded the decoders, and no upload has to wait for that."""
        await self.run(os.getpid)

    async def run(self, function: Callable[[*Given], Answer], *arguments: *Given) -> Answer:
        """Call a module's function with picklable arguments in a child; more calls than children wait their turn.

        Raises:
            ChildError: No answer; the child was replaced.
            Exception: Whatever the function raised.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._call, function, arguments)

    def _call(self, function: Callable[..., Answer], arguments: tuple[Any, ...]) -> Answer:
        child = self._free.get()
        try:
            answer: Answer = child.call(function, arguments)
        except ChildError as error:
            log.warning("decoding_failed", error=str(error))
            raise
        finally:
            self._free.put(child)
        return answer

    async def close(self) -> None:
        """Kill the children; calls under way end with `ChildError`."""
        for child in self._children:
            child.kill()
        await asyncio.to_thread(self._threads.shutdown, cancel_futures=True)
