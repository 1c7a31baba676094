"""Valkey for hot paths: one connection, commands of one event-loop turn written at once (auto-pipelining).

redis-py costs about 65 µs of client CPU for a read of twenty posts, this about 7. It does commands, pipelines
and scripts; streams, publish/subscribe and the rest go through redis-py (`redis_client`).
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any, Final, cast
from urllib.parse import quote, unquote, urlsplit

import hiredis
from redis.asyncio import Redis

from fanfold.kit.logging import get_logger

Argument = bytes | str | int | float
Command = Sequence[Argument] | bytes
"""Words, or the bytes of a packed command (`packed`)."""
log = get_logger(__name__)

CONNECT_SECONDS: Final = 2.0
DEFAULT_PORT: Final = 6379
CLUSTER_SCHEME: Final = "redis+cluster"
COMMAND_SECONDS: Final = 2.0
"""A hot read that takes longer is better answered with 503 than waited for."""


class ValkeyError(Exception):
    """Base: the server answered with an error, or did not answer."""


class ValkeyUnavailableError(ValkeyError):
    """No connection, or no answer in time. The command may or may not have been carried out."""


def _pack(words: Sequence[Argument]) -> bytes:
    command: bytes = hiredis.pack_command(tuple(words))  # type: ignore[arg-type]  # its stub says one item
    return command


def packed(words: Sequence[bytes], prefix: bytes, ids: Sequence[bytes]) -> bytes:
    """A command that ends in many arguments of one length: each of ``ids``, behind ``prefix``. A tenth of the time.

    Raises:
        ValueError: There are no ids.
    """
    if not ids:
        raise ValueError("a command with ids needs one")
    lead = b"\r\n$%d\r\n%b" % (len(prefix) + len(ids[0]), prefix)
    head = b"".join([b"\r\n$%d\r\n%b" % (len(word), word) for word in words])
    return b"*%d%b%b%b\r\n" % (len(words) + len(ids), head, lead, lead.join(ids))


class _Batch:
    """Commands written together, and whoever waits for the last of their answers."""

    __slots__ = ("answers", "future", "sent", "wanted")

    def __init__(self, wanted: int, future: asyncio.Future[list[Any]], sent: float) -> None:
        self.wanted = wanted
        self.future = future
        self.sent = sent
        self.answers: list[Any] = []


class _Connection(asyncio.Protocol):
    """One RESP connection: answers come in the order of the commands.

    A batch has one future, and all batches one timer: for each command of its own they would cost more than it does.
    """

    def __init__(self) -> None:
        self._waiting: deque[_Batch] = deque()
        self._reader = hiredis.Reader()
        self._buffer: list[bytes] = []
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._flush_scheduled = False
        self._timer: asyncio.TimerHandle | None = None
        self.closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own are no instances of it

    def data_received(self, data: bytes) -> None:
        reader, waiting = self._reader, self._waiting
        reader.feed(data)
        while (answer := reader.gets()) is not False:
            batch = waiting[0]
            answers = batch.answers
            answers.append(answer)
            if len(answers) == batch.wanted:
                waiting.popleft()
                if not batch.future.done():  # else the caller gave up; the answers still had to be taken off the line
                    batch.future.set_result(answers)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        if self._timer is not None:
            self._timer.cancel()
        error = f"the connection to Valkey was lost: {exc or 'closed by the server'}"
        while self._waiting:
            future = self._waiting.popleft().future
            if not future.done():
                future.set_exception(ValkeyUnavailableError(error))

    def send(self, commands: Sequence[Command]) -> asyncio.Future[list[Any]]:
        """Answers in order, those that are errors as they came."""
        loop = self._loop
        future: asyncio.Future[list[Any]] = loop.create_future()
        for command in commands:
            self._buffer.append(command if isinstance(command, bytes) else _pack(command))
        self._waiting.append(_Batch(len(commands), future, monotonic()))
        if self._timer is None:
            self._timer = loop.call_later(COMMAND_SECONDS, self._expire)
        if not self._flush_scheduled:
            self._flush_scheduled = True
            loop.call_soon(self._flush)
        return future

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def _flush(self) -> None:
        self._flush_scheduled = False
        data = b"".join(self._buffer)
        self._buffer.clear()
        if self._transport is not None and not self.closed:
            self._transport.write(data)

    def _expire(self) -> None:
        """Fail what has waited too long. Its answers, should they come, are still taken off the line."""
        self._timer = None
        now = monotonic()
        for batch in self._waiting:
            left = batch.sent + COMMAND_SECONDS - now
            if left > 0:
                self._timer = self._loop.call_later(left, self._expire)
                return
            if not batch.future.done():
                batch.future.set_exception(ValkeyUnavailableError(f"Valkey did not answer within {COMMAND_SECONDS} s"))


class Script:
    """A server-side script, called by its hash and sent again when the server has forgotten it."""

    def __init__(self, body: str) -> None:
        self.body = body
        self.sha = hashlib.sha1(body.encode(), usedforsecurity=False).hexdigest()


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server is, and how to log in to it."""

    host: str
    port: int
    username: str = ""
    password: str = ""
    database: int = 0

    @classmethod
    def parse(cls, url: str) -> list[Address]:
        """``redis://[user[:password]@]host[:port][/database]``, or one for each node that a cluster's URL names.

        Raises:
            ValueError: A port or the database is no number.
        """
        parts = urlsplit(url)
        login, _, hosts = parts.netloc.rpartition("@")
        username, _, password = (unquote(part) for part in login.partition(":"))
        database = int(parts.path.strip("/") or 0)
        nodes = [urlsplit(f"//{host}") for host in hosts.split(",")]
        return [
            cls(node.hostname or "127.0.0.1", node.port or DEFAULT_PORT, username, password, database) for node in nodes
        ]

    @property
    def url(self) -> str:
        """Of this server alone."""
        login = f"{quote(self.username)}:{quote(self.password)}@" if self.password else ""
        return f"redis://{login}{self.host}:{self.port}/{self.database}"

    @property
    def greeting(self) -> tuple[tuple[str, ...], ...]:
        """Commands that open a connection."""
        login = (("AUTH", *filter(None, (self.username, self.password))),) if self.password else ()
        return (*login, ("SELECT", str(self.database))) if self.database else login


def is_cluster(url: str) -> bool:
    """Whether a URL names nodes of a cluster (``redis+cluster://``), not one server."""
    return urlsplit(url).scheme == CLUSTER_SCHEME


class Valkey:
    """Auto-pipelining client of one server; connects on first use and again after a loss. See `cluster.connect`."""

    def __init__(self, where: str | Sequence[Address]) -> None:
        self._address = (Address.parse(where) if isinstance(where, str) else where)[0]
        self._connection: _Connection | None = None
        self._connecting: asyncio.Lock = asyncio.Lock()

    async def execute(self, *arguments: Argument) -> Any:
        """One command. Strings come back as bytes.

        Raises:
            ValkeyError: The server's error answer.
            ValkeyUnavailableError: No connection or no answer within `COMMAND_SECONDS`.
        """
        return (await self.all([arguments]))[0]

    async def pipeline(self, commands: Sequence[Command]) -> list[Any]:
        """Commands in one write; answers in order. An error answer stands in its place as an exception object."""
        answers = await self.send(commands)
        return [ValkeyError(str(one)) if isinstance(one, hiredis.ReplyError) else one for one in answers]

    async def all(self, commands: Sequence[Command]) -> list[Any]:
        """As `pipeline`, where no answer may be an error.

        Raises:
            ValkeyError: The first error answer, once all are there.
            ValkeyUnavailableError: As for `execute`.
        """
        answers = await self.send(commands)
        _refuse_errors(answers)
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

    async def send(self, commands: Sequence[Command]) -> list[Any]:
        """Commands in one write; answers in order, those that are errors as they came (`hiredis.ReplyError`).

        Raises:
            ValkeyUnavailableError: As for `execute`.
        """
        if not commands:
            return []
        connection = self._connection
        if connection is None or connection.closed:
            connection = await self._connected()
        return await connection.send(commands)

    async def _connected(self) -> _Connection:
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
                    if address.greeting:
                        _refuse_errors(await connection.send(address.greeting))
                except BaseException:
                    connection.close()
                    raise
        except (OSError, TimeoutError) as error:
            where = f"{address.host}:{address.port}"
            raise ValkeyUnavailableError(f"cannot connect to Valkey at {where}: {error}") from error
        log.debug("valkey_connected", host=address.host, port=address.port)
        return connection


def _refuse_errors(answers: Sequence[Any]) -> None:
    for answer in answers:
        if isinstance(answer, hiredis.ReplyError):
            raise ValkeyError(str(answer))


def redis_client(url: str) -> Redis:
    """redis-py for everything that is not a hot read: streams, administration. See `cluster.connect_redis`."""
    return Redis.from_url(url, socket_connect_timeout=CONNECT_SECONDS, health_check_interval=15, protocol=2)
