"""Notifications over WebSocket (RFC 6455): terminated here, one message a text frame.

A client that was away connects with ``?cursor=`` (the id of the last notification it saw): the session first hears the
user's channel, then asks the notification service for what came since, and drops what it gets twice.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec
from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Message, Ping, TextMessage
from wsproto.utilities import RemoteProtocolError

from fanfold.contracts.ids import new_id
from fanfold.kit.errors import TooManyRequests
from fanfold.kit.logging import get_logger

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fanfold.gateway.context import Connections
    from fanfold.gateway.metrics import GatewayStats
    from fanfold.gateway.settings import GatewaySettings
    from fanfold.gateway.tokens import Principal
    from fanfold.kit.fanin import FanIn

    CatchUp = Callable[[Principal, str], Awaitable[list[bytes]]]

log = get_logger(__name__)

NORMAL: Final = 1000
POLICY_VIOLATION: Final = 1008
TOO_BIG: Final = 1009
INTERNAL_ERROR: Final = 1011
SERVICE_RESTART: Final = 1012
TRY_AGAIN_LATER: Final = 1013
"""Close codes of RFC 6455 section 7.4.1 and IANA's registry."""

CLOSE_SECONDS: Final = 5.0
"""For the other side to close too."""
RECONNECT_SPREAD_MS: Final = 5_000
"""Clients of a closing gateway come back at random within this, not all at once."""
REMEMBERED_IDS: Final = 256
"""Ids already sent, to drop repeats where catching up and live messages overlap."""
HELD_MESSAGES: Final = 256
"""Live messages kept while the session catches up."""


class _Head(msgspec.Struct):
    id: str = ""


_decode_head = msgspec.json.Decoder(_Head).decode


class Hub:
    """All WebSockets of this gateway.

    Args:
        catch_up: Notifications of a principal after a cursor, as JSON, oldest first.
    """

    def __init__(self, settings: GatewaySettings, stats: GatewayStats, fan_in: FanIn, catch_up: CatchUp) -> None:
        self.settings = settings
        self.stats = stats
        self.fan_in = fan_in
        self.catch_up = catch_up
        self.sessions: set[Session] = set()
        self._per_user: dict[bytes, int] = {}

    def require_room(self, channel: bytes) -> None:
        """Hold one user to so many sockets.

        Raises:
            TooManyRequests: There are as many already.
        """
        most = self.settings.websocket_max_per_user
        if self._per_user.get(channel, 0) >= most:
            raise TooManyRequests(
                f"You have {most} WebSockets open here already; close one.", headers={"retry-after": "10"}
            )

    def join(self, session: Session) -> None:
        """A session has begun."""
        self.sessions.add(session)
        self.stats.websockets += 1
        self._per_user[session.channel] = self._per_user.get(session.channel, 0) + 1

    def part(self, session: Session) -> None:
        """A session's connection is gone."""
        self.sessions.discard(session)
        self.stats.websockets -= 1
        left = self._per_user[session.channel] - 1
        if left:
            self._per_user[session.channel] = left
        else:
            del self._per_user[session.channel]

    def close_revoked(self, revoked: frozenset[bytes]) -> None:
        """End the sockets of sessions that were logged out."""
        for session in [session for session in self.sessions if session.principal.session in revoked]:
            session.close(POLICY_VIOLATION, "this session was logged out")


class Session(asyncio.Protocol):
    """One user's socket. Ends with its token: a client then refreshes and connects again with its cursor."""

    __slots__ = (
        "_awaiting_pong",
        "_catching_up",
        "_closing",
        "_connection",
        "_connections",
        "_cursor",
        "_expires",
        "_held",
        "_hub",
        "_message_bytes",
        "_seen",
        "_transport",
        "channel",
        "deadline",
        "principal",
    )

    def __init__(self, hub: Hub, principal: Principal, channel: bytes, cursor: str, lifetime: float) -> None:
        self._hub = hub
        self.principal = principal
        self.channel = channel
        self._cursor = cursor
        self._expires = monotonic() + lifetime
        self._connection = Connection(ConnectionType.SERVER)
        self._transport: asyncio.Transport | None = None
        self._connections: Connections | None = None
        self._catching_up: asyncio.Task[None] | None = None
        self._held: list[bytes] = []
        self._seen: deque[str] = deque(maxlen=REMEMBERED_IDS)
        self._message_bytes = 0
        self._awaiting_pong = False
        self._closing = False
        self.deadline = 0.0

    # The HTTP connection's side.

    def take_over(self, transport: object, connections: Connections, early: bytes) -> None:
        """Speak on ``transport`` from now on."""
        transport = cast("asyncio.Transport", transport)
        transport.set_protocol(self)
        self._transport = transport
        self._connections = connections
        connections.add(self)
        self._hub.join(self)
        self._rest()
        if early:
            self.data_received(early)
        self._hub.fan_in.listen(self.channel, self)

    # asyncio's side.

    def data_received(self, data: bytes) -> None:
        """Part of `asyncio.Protocol`."""
        if self._connection.state is ConnectionState.CLOSED:
            return
        self._awaiting_pong = False
        try:
            self._connection.receive_data(data)
            for event in self._connection.events():
                self._handle(event)
        except RemoteProtocolError as error:
            self.close(
                int(error.event_hint.code) if isinstance(error.event_hint, CloseConnection) else 1002, str(error)
            )

    def connection_lost(self, exc: Exception | None) -> None:
        """Part of `asyncio.Protocol`."""
        del exc
        self._closing = True
        if self._connections is not None:
            self._connections.discard(self)
        self._hub.part(self)
        self._leave()

    # The channel's side.

    def on_subscribed(self) -> None:
        """Hearing from now on: ask for what was missed since the cursor, or remember this moment as the cursor."""
        if not self._cursor:
            self._cursor = str(new_id())
            return
        if self._catching_up is not None:
            self._catching_up.cancel()
        self._catching_up = asyncio.get_running_loop().create_task(self._catch_up())

    def on_published(self, payload: bytes) -> None:
        """Send one notification, after those that the session still catches up on."""
        if self._catching_up is None:
            self._send(payload)
        elif len(self._held) < HELD_MESSAGES:
            self._held.append(payload)
        else:
            self.close(TRY_AGAIN_LATER, "too many notifications while catching up; connect again with your cursor")

    # The server's side.

    def expire(self) -> None:
        """Time to look: the token's end, a missing pong, the next ping, or a close that was not answered."""
        now = monotonic()
        if self._closing:
            self.abort()
        elif now >= self._expires:
            self.close(POLICY_VIOLATION, "the access token has expired; refresh it and connect again")
        elif self._awaiting_pong:
            self._count_close(INTERNAL_ERROR)
            self.abort()
        else:
            self._awaiting_pong = True
            self._write(self._connection.send(Ping()))
            self._rest()

    def drain(self) -> None:
        """Ask the client to connect elsewhere, at a moment of its own."""
        pause = random.randrange(RECONNECT_SPREAD_MS)  # noqa: S311 - spreads load
        self.close(SERVICE_RESTART, f"reconnect after {pause} ms")

    def abort(self) -> None:
        """End now."""
        if self._transport is not None:
            self._transport.abort()

    def close(self, code: int, reason: str) -> None:
        """Begin the closing handshake. ``reason``: at most 123 bytes."""
        if self._closing:
            return
        self._closing = True
        self._count_close(code)
        self._leave()
        if self._connection.state in (ConnectionState.OPEN, ConnectionState.REMOTE_CLOSING):
            self._write(self._connection.send(CloseConnection(code, reason[:123])))
        self.deadline = monotonic() + CLOSE_SECONDS

    # Within.

    def _handle(self, event: object) -> None:
        match event:
            case Ping():
                self._write(self._connection.send(event.response()))
            case CloseConnection():
                if not self._closing:
                    self._closing = True
                    self._leave()
                    self._write(self._connection.send(event.response()))
                if self._transport is not None:
                    self._transport.close()
                self.deadline = monotonic() + CLOSE_SECONDS
            case TextMessage() | BytesMessage():
                self._discard(event)

    def _discard(self, message: Message[Any]) -> None:
        """Clients have nothing to say yet; what they say is counted, so that it stays small."""
        self._message_bytes += len(message.data)
        if self._message_bytes > self._hub.settings.websocket_max_message:
            self.close(TOO_BIG, f"messages may have {self._hub.settings.websocket_max_message} bytes")
        if message.message_finished:
            self._message_bytes = 0

    def _send(self, payload: bytes) -> None:
        identifier = _id_of(payload)
        if identifier:
            if identifier in self._seen:
                return
            self._seen.append(identifier)
            self._cursor = identifier
        transport = self._transport
        if self._closing or transport is None:
            return
        if transport.get_write_buffer_size() > self._hub.settings.websocket_max_buffer:
            self.close(TRY_AGAIN_LATER, "you read too slowly; connect again with your cursor")
            return
        self._hub.stats.websocket_messages += 1
        self._write(self._connection.send(TextMessage(payload.decode("utf-8", "replace"))))

    async def _catch_up(self) -> None:
        try:
            missed = await self._hub.catch_up(self.principal, self._cursor)
        except Exception as error:  # noqa: BLE001 - whatever keeps the service from answering, the client comes again
            log.warning("catch_up_failed", error=repr(error))
            self.close(
                TRY_AGAIN_LATER,
                "what you missed cannot be sent; read GET /v1/notifications, then connect with its newest id as cursor",
            )
            return
        self._catching_up = None
        for payload in missed:
            self._send(payload)
        held, self._held = self._held, []
        for payload in held:
            self._send(payload)

    def _leave(self) -> None:
        self._hub.fan_in.leave(self.channel, self)
        if self._catching_up is not None:
            self._catching_up.cancel()

    def _rest(self) -> None:
        """Until the next ping, or the token's end."""
        self.deadline = min(self._expires, monotonic() + self._hub.settings.websocket_ping_seconds)

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def _count_close(self, code: int) -> None:
        closes = self._hub.stats.websocket_closes
        closes[code] = closes.get(code, 0) + 1


def _id_of(payload: bytes) -> str:
    """The notification's id; empty when it has none."""
    try:
        return _decode_head(payload).id
    except msgspec.DecodeError:
        return ""
