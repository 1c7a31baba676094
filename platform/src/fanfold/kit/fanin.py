"""One Valkey connection that listens for many, a channel a user: WebSockets of a gateway, long polls of a service.

After a loss it connects again and subscribes to everything anew; publish/subscribe keeps nothing, so each confirmed
subscription tells its listeners to ask for what they missed.
"""

from __future__ import annotations

import asyncio
from itertools import cycle
from time import monotonic
from typing import Any, Final, Protocol, cast

import hiredis

from fanfold.kit.logging import get_logger
from fanfold.kit.valkey import CONNECT_SECONDS, Address

log = get_logger(__name__)

PING_SECONDS: Final = 15.0
RECONNECT_SECONDS: Final = 0.5
_BATCH: Final = 500


class Listener(Protocol):
    """Who hears a channel."""

    def on_subscribed(self) -> None:
        """From now on nothing is missed; what came before must be asked for."""

    def on_published(self, payload: bytes) -> None:
        """One message."""


class FanIn:
    """Subscribes on behalf of many listeners.

    Args:
        url: Of the Valkey server, or of nodes of a cluster: what one publishes, all tell.
    """

    def __init__(self, url: str) -> None:
        self._addresses = cycle(Address.parse(url))
        self._listeners: dict[bytes, set[Listener]] = {}
        self._confirmed: set[bytes] = set()
        self._connection: _Subscriber | None = None

    @property
    def connected(self) -> bool:
        """Messages can arrive now."""
        return self._connection is not None

    def listen(self, channel: bytes, listener: Listener) -> None:
        """Hand what is published on ``channel`` to ``listener``, after its `Listener.on_subscribed`."""
        listeners = self._listeners.setdefault(channel, set())
        listeners.add(listener)
        if channel in self._confirmed:
            listener.on_subscribed()
        elif len(listeners) == 1 and self._connection is not None:
            self._connection.send(b"SUBSCRIBE", channel)

    def leave(self, channel: bytes, listener: Listener) -> None:
        """Hand nothing more to ``listener``."""
        listeners = self._listeners.get(channel)
        if listeners is None:
            return
        listeners.discard(listener)
        if not listeners:
            del self._listeners[channel]
            self._confirmed.discard(channel)
            if self._connection is not None:
                self._connection.send(b"UNSUBSCRIBE", channel)

    async def run(self) -> None:
        """Stay connected for ever."""
        while True:
            try:
                await self._session()
            except (OSError, TimeoutError) as error:
                log.warning("fan_in_lost", error=str(error) or "no answer in time")
            await asyncio.sleep(RECONNECT_SECONDS)

    async def _session(self) -> None:
        """One connection, from greeting to loss.

        Raises:
            OSError: It was lost or refused.
            TimeoutError: It cannot be made, or went silent.
        """
        loop = asyncio.get_running_loop()
        address = next(self._addresses)
        async with asyncio.timeout(CONNECT_SECONDS):
            _, connection = await loop.create_connection(lambda: _Subscriber(self), address.host, address.port)
        try:
            for command in address.greeting:
                connection.send(*(part.encode() for part in command))
            channels = list(self._listeners)
            for start in range(0, len(channels), _BATCH):
                connection.send(b"SUBSCRIBE", *channels[start : start + _BATCH])
            self._connection = connection
            await connection.watch()
        finally:
            self._connection = None
            self._confirmed.clear()
            connection.close()

    def on_message(self, message: list[Any]) -> None:
        """One push from the server: its kind, the channel, the payload."""
        kind, channel = message[0], message[1]
        listeners = self._listeners.get(channel)
        if listeners is None:
            return
        if kind == b"message":
            for listener in tuple(listeners):
                listener.on_published(message[2])
        elif kind == b"subscribe":
            self._confirmed.add(channel)
            for listener in tuple(listeners):
                listener.on_subscribed()


class _Subscriber(asyncio.Protocol):
    """The RESP2 connection."""

    def __init__(self, owner: FanIn) -> None:
        self._owner = owner
        self._reader = hiredis.Reader()
        self._transport: asyncio.Transport | None = None
        self._heard = monotonic()
        self._lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast("asyncio.Transport", transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._heard = monotonic()
        reader = self._reader
        reader.feed(data)
        while (message := reader.gets()) is not False:
            if isinstance(message, list) and len(message) == 3:
                self._owner.on_message(message)
            elif isinstance(message, hiredis.ReplyError):
                self._fail(OSError(f"Valkey refused: {message}"))

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(OSError(f"the connection to Valkey was lost: {exc or 'closed by the server'}"))

    def send(self, *arguments: bytes) -> None:
        assert self._transport is not None
        self._transport.write(hiredis.pack_command(arguments))  # type: ignore[arg-type]  # the stub says one argument

    async def watch(self) -> None:
        """Ping when it is quiet, until the connection is lost."""
        while True:
            done, _ = await asyncio.wait([self._lost], timeout=PING_SECONDS)
            if done:
                self._lost.result()
            quiet = monotonic() - self._heard
            if quiet > 2 * PING_SECONDS:
                raise TimeoutError(f"Valkey said nothing for {quiet:.0f} s")
            self.send(b"PING")

    def close(self) -> None:
        self._fail(OSError("closed"))
        self._lost.exception()  # seen: nobody else may be waiting
        if self._transport is not None:
            self._transport.abort()

    def _fail(self, error: OSError) -> None:
        if not self._lost.done():
            self._lost.set_exception(error)
