"""What all connections of one gateway share."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from fanfold.gateway.messages import SECURITY_LINES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fanfold.gateway.answers import Answer
    from fanfold.gateway.balancer import Balancer
    from fanfold.gateway.cors import Cors
    from fanfold.gateway.limits import Limits
    from fanfold.gateway.messages import Request
    from fanfold.gateway.metrics import GatewayStats
    from fanfold.gateway.routes import RouteTable
    from fanfold.gateway.settings import GatewaySettings
    from fanfold.gateway.spans import Spans
    from fanfold.gateway.tokens import Tokens


class Tracked(Protocol):
    """A client connection, HTTP or WebSocket, as the server's clock and drain see it."""

    deadline: float
    """Monotonic time at which `expire` is called."""

    def expire(self) -> None:
        """The deadline passed."""

    def drain(self) -> None:
        """End as soon as decency allows: the gateway shuts down."""

    def abort(self) -> None:
        """End now."""


class Connections:
    """All client connections."""

    def __init__(self) -> None:
        self._open: set[Tracked] = set()
        self._emptied = asyncio.Event()

    def add(self, connection: Tracked) -> None:
        """A connection was made."""
        self._open.add(connection)

    def discard(self, connection: Tracked) -> None:
        """A connection was lost, or handed over."""
        self._open.discard(connection)
        if not self._open:
            self._emptied.set()

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[Tracked]:
        return iter(self._open)

    async def empty(self) -> None:
        """Until none is left."""
        while self._open:
            self._emptied.clear()
            await self._emptied.wait()


@dataclass(slots=True)
class Context:
    """The parts of a gateway.

    Attributes:
        pages: Answers the gateway has itself, by route pattern.
        open_socket: Takes a WebSocket request over: gives what speaks on its connection from now on, and the bytes that
            begin it. Raises `Problem` to refuse.
        limits: Of requests by user and address; None without any.
        cors: Which other sites' pages may call; None: none.
        spans: Makes traces; None: none.
        fixed_lines: Header lines of every answer.
        draining: Whether the gateway is shutting down: answers then close their connections.
        connections: All client connections.
    """

    settings: GatewaySettings
    routes: RouteTable
    tokens: Tokens
    balancer: Balancer
    stats: GatewayStats
    pages: dict[str, Callable[[Request], Answer]]
    open_socket: Callable[[Request], tuple[SocketProtocol, bytes]]
    draining: Callable[[], bool]
    limits: Limits | None = None
    cors: Cors | None = None
    spans: Spans | None = None
    fixed_lines: bytes = SECURITY_LINES
    connections: Connections = field(default_factory=Connections)


class SocketProtocol(Tracked, Protocol):
    """A WebSocket that takes over a connection; otherwise an `asyncio.Protocol`."""

    def take_over(self, transport: object, connections: Connections, early: bytes) -> None:
        """Begin, on a transport whose handshake was answered; ``early``: bytes that came with the handshake."""
