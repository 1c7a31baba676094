"""The traffic port: accepts connections within a limit, keeps their deadlines, drains them at the end."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING, Final, cast

from fanfold.gateway.answers import encode, problem_answer
from fanfold.gateway.downstream import Downstream
from fanfold.kit.errors import Unavailable
from fanfold.kit.logging import get_logger

if TYPE_CHECKING:
    from ssl import SSLContext

    from fanfold.gateway.context import Context

log = get_logger(__name__)

TICK_SECONDS: Final = 0.25
"""How late a deadline may be noticed. One pass over all connections costs less than a timer for each request."""
BACKLOG: Final = 4_096


class _Refused(asyncio.Protocol):
    """A connection beyond the limit: told so, and closed."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast("asyncio.Transport", transport)
        problem = Unavailable("This gateway has no connection to spare; try again.", kind="overloaded", retry_after=2)
        transport.write(encode(problem_answer(problem, ""), request_id="", close=True))
        transport.close()


class Server:
    """Listens for clients.

    Args:
        context: What connections share.
        tls: Ends TLS here; None speaks plainly.

    Attributes:
        port: The port in use, once started.
    """

    def __init__(self, context: Context, tls: SSLContext | None = None) -> None:
        self._context = context
        self._tls = tls
        self._server: asyncio.Server | None = None
        self.port = 0

    async def start(self) -> None:
        """Listen.

        Raises:
            OSError: The port is taken.
        """
        settings = self._context.settings
        self._server = await asyncio.get_running_loop().create_server(
            self._accept,
            settings.traffic_host,
            settings.traffic_port,
            backlog=BACKLOG,
            reuse_port=settings.reuse_port or None,
            ssl=self._tls,
            ssl_handshake_timeout=settings.head_seconds if self._tls else None,
        )
        self.port = self._server.sockets[0].getsockname()[1]
        log.info("listening", host=settings.traffic_host, port=self.port)

    async def run(self) -> None:
        """Keep deadlines, for ever."""
        context = self._context
        while True:
            await asyncio.sleep(TICK_SECONDS)
            now = monotonic()
            for connection in [one for one in context.connections if one.deadline <= now]:
                connection.expire()
            context.balancer.sweep(now)
            context.stats.budget.tick(now)

    async def drain(self) -> None:
        """Accept nothing more, ask everybody to leave, and wait for them for the time of grace."""
        if self._server is not None:
            self._server.close()
        connections = self._context.connections
        for connection in tuple(connections):
            connection.drain()
        try:
            async with asyncio.timeout(self._context.settings.grace_seconds):
                await connections.empty()
        except TimeoutError:
            log.warning("connections_cut_off", count=len(connections))
        for connection in tuple(connections):
            connection.abort()
        self._context.balancer.close()

    def _accept(self) -> asyncio.Protocol:
        context = self._context
        if len(context.connections) >= context.settings.max_connections:
            context.stats.connections_refused += 1
            return _Refused()
        return Downstream(context)
