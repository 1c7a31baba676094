"""Valkey for hot paths: one connection, commands of one event-loop turn written at once (auto-pipelining).

redis-py costs about 65 µs of client CPU for a feed read, this about 7 (both measured with hiredis on one core). It does
commands, pipelines and scripts; streams, publish/subscribe and the rest go through redis-py (`redis_client`).
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import unquote, urlsplit

import hiredis
from redis.asyncio import Redis

from fanfold.kit.logging import get_logger

if TYPE_CHECKING:
    from collections.abc import Sequence

Argument = bytes | str | int | float
log = get_logger(__name__)

CONNECT_SECONDS: Final = 2.0
COMMAND_SECONDS: Final = 2.0
"""A hot read that takes longer is better answered with 503 than waited for."""


class ValkeyError(Exception):
    """Base: the server answered with an error, or did not answer."""


class ValkeyUnavailableError(ValkeyError):
    """No connection, or no answer in time. The command may or may not have been carried out."""


class _Connection(asyncio.Protocol):
    """One RESP connection: answers come in the order of the commands."""

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._reader = hiredis.Reader()
        self._buffer: list[bytes] = []
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._flush_scheduled = False
        self.closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own are no instances of it

    def data_received(self, data: bytes) -> None:
        reader, waiting = self._reader, self._waiting
        reader.feed(data)
        while (answer := reader.gets()) is not False:
            future = waiting.popleft()
            if future.done():
                continue  # the caller gave up; the answer still had to be taken off the line
            if isinstance(answer, hiredis.ReplyError):
                future.set_exception(ValkeyError(str(answer)))
            else:
                future.set_result(answer)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        error = ValkeyUnavailableError(f"the connection to Valkey was lost: {exc or 'closed by the server'}")
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_exception(error)

    def send(self, arguments: Sequence[Argument]) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = self._loop.create_future()
        self._buffer.append(hiredis.pack_command(tuple(arguments)))  # type: ignore[arg-type]  # its stub says one item
        self._waiting.append(future)
        if not self._flush_scheduled:
            self._flush_scheduled = True
            self._loop.call_soon(self._flush)
        return future

    def _flush(self) -> None:
        self._flush_scheduled = False
        data = b"".join(self._buffer)
        self._buffer.clear()
        if self._transport is not None and not self.closed:
            self._transport.write(data)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


class Script:
    """A server-side script, called by its hash and sent again when the server has forgotten it."""

    def __init__(self, body: str) -> None:
        self.body = body
        self.sha = hashlib.sha1(body.encode(), usedforsecurity=False).hexdigest()


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server is, and the commands that open a connection to it."""

    host: str
    port: int
    greeting: tuple[tuple[str, ...], ...]

    @classmethod
    def parse(cls, url: str) -> Address:
        """``redis://[user[:password]@]host[:port][/database]``; the scheme is not looked at."""
        parts = urlsplit(url)
        username, password = unquote(parts.username or ""), unquote(parts.password or "")
        greeting: list[tuple[str, ...]] = []
        if password:
            greeting.append(("AUTH", username, password) if username else ("AUTH", password))
        database = parts.path.strip("/") or "0"
        if database != "0":
            greeting.append(("SELECT", database))
        return cls(parts.hostname or "127.0.0.1", parts.port or 6379, tuple(greeting))


class Valkey:
    """Auto-pipelining client of one server; connects on first use and again after a loss."""

    def __init__(self, url: str) -> None:
        self._address = Address.parse(url)
        self._connection: _Connection | None = None
        self._connecting: asyncio.Lock = asyncio.Lock()

    async def execute(self, *arguments: Argument) -> Any:
        """One command. Strings come back as bytes.

        Raises:
            ValkeyError: The server's error answer.
            ValkeyUnavailableError: No connection or no answer within `COMMAND_SECONDS`.
        """
        connection = await self._connected()
        return await self._answer(connection.send(arguments))

    async def pipeline(self, commands: Sequence[Sequence[Argument]]) -> list[Any]:
        """Commands in one write; answers in order. An error answer stands in its place as an exception object."""
        connection = await self._connected()
        futures = [connection.send(command) for command in commands]
        answers: list[Any] = await self._answer(asyncio.gather(*futures, return_exceptions=True))
        return answers

    async def script(self, script: Script, keys: Sequence[Argument], arguments: Sequence[Argument] = ()) -> Any:
        """Run a script; errors as `execute`."""
        tail = (len(keys), *keys, *arguments)
        try:
            return await self.execute("EVALSHA", script.sha, *tail)
        except ValkeyError as error:
            if not str(error).startswith("NOSCRIPT"):
                raise
            return await self.execute("EVAL", script.body, *tail)

    async def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    async def _answer(self, future: asyncio.Future[Any]) -> Any:
        try:
            async with asyncio.timeout(COMMAND_SECONDS):
                return await future
        except TimeoutError as error:
            raise ValkeyUnavailableError(f"Valkey did not answer within {COMMAND_SECONDS} s") from error

    async def _connected(self) -> _Connection:
        connection = self._connection
        if connection is not None and not connection.closed:
            return connection
        async with self._connecting:
            if self._connection is None or self._connection.closed:
                self._connection = await self._connect()
            return self._connection

    async def _connect(self) -> _Connection:
        address = self._address
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                loop = asyncio.get_running_loop()
                _, connection = await loop.create_connection(_Connection, address.host, address.port)
                try:
                    for command in address.greeting:
                        await connection.send(command)
                except BaseException:
                    connection.close()
                    raise
        except (OSError, TimeoutError) as error:
            where = f"{address.host}:{address.port}"
            raise ValkeyUnavailableError(f"cannot connect to Valkey at {where}: {error}") from error
        log.debug("valkey_connected", host=address.host, port=address.port)
        return connection


def redis_client(url: str) -> Redis:
    """redis-py for everything that is not a hot read: streams, publish/subscribe, administration."""
    return Redis.from_url(url, socket_connect_timeout=CONNECT_SECONDS, health_check_interval=15, protocol=2)
