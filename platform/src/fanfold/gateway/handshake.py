"""The opening handshake of a WebSocket (RFC 6455 section 4.2): who asks, from where, and the answer.

Browsers cannot set ``Authorization`` on a WebSocket, so the token may also come as a subprotocol (``bearer.TOKEN``,
beside ``fanfold.v1``) or, for clients that can do neither, as ``?access_token=``. The subprotocol is better: query
strings end up in the logs of proxies on the way. This gateway logs no query.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs, urlsplit

from wsproto.utilities import generate_accept_token

from fanfold.contracts.keys import notifications
from fanfold.gateway.messages import STATUS_LINES
from fanfold.gateway.websocket import Hub, Session
from fanfold.kit.errors import BadRequest, Forbidden, Problem

if TYPE_CHECKING:
    from fanfold.gateway.messages import Request
    from fanfold.gateway.settings import GatewaySettings
    from fanfold.gateway.tokens import Tokens

SUBPROTOCOL: Final = "fanfold.v1"
_BEARER: Final = "bearer."
_KEY: Final = re.compile(rb"[A-Za-z0-9+/]{21}[AQgw]==")
_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class UpgradeRequired(Problem):
    """The path speaks WebSocket only."""

    status = 426
    kind = "upgrade-required"


class Handshake:
    """Opens sessions on a hub."""

    def __init__(self, settings: GatewaySettings, tokens: Tokens, hub: Hub) -> None:
        self._settings = settings
        self._tokens = tokens
        self._hub = hub

    def open(self, request: Request) -> tuple[Session, bytes]:
        """The session of a request, and the answer that begins it.

        Raises:
            UpgradeRequired: No WebSocket handshake.
            BadRequest: A malformed one.
            Forbidden: A page of a site that is not allowed.
            Unauthorized: No valid token.
            TooManyRequests: The user has too many sockets.
        """
        key = _check(request)
        self._check_origin(request)
        query = {name: values[-1] for name, values in parse_qs(request.target.partition(b"?")[2].decode()).items()}
        offered = [
            item.strip() for item in request.noted.get(b"sec-websocket-protocol", b"").decode("latin-1").split(",")
        ]
        principal = self._tokens.principal(_authorization(request, offered, query), request.started)
        cursor = query.get("cursor", "")
        if cursor and not _UUID.fullmatch(cursor):
            raise BadRequest("The cursor is the id of the last notification you saw.")
        assert principal.identity.user_id is not None
        channel = notifications(principal.identity.user_id)
        self._hub.require_room(channel)
        session = Session(self._hub, principal, channel, cursor, principal.expires - time.time())
        return session, _accept(key, _chosen(offered))

    def _check_origin(self, request: Request) -> None:
        """Browsers name the page's origin; other clients name none."""
        origin = request.noted.get(b"origin")
        if origin is None:
            return
        text = origin.decode("latin-1")
        allowed = self._settings.websocket_origins
        if "*" in allowed or text in allowed or urlsplit(text).netloc == request.noted[b"host"].decode("latin-1"):
            return
        raise Forbidden(
            f"Pages of {text} may not open WebSockets here; FANFOLD_WEBSOCKET_ORIGINS lists those that may."
        )


def _check(request: Request) -> bytes:
    noted = request.noted
    connection = {part.strip().lower() for part in noted.get(b"connection", b"").split(b",")}
    if noted.get(b"upgrade", b"").lower() != b"websocket" or b"upgrade" not in connection:
        raise UpgradeRequired(
            "This path speaks WebSocket; poll GET /v1/notifications where sockets are blocked.",
            headers={"upgrade": "websocket", "connection": "upgrade"},
        )
    if noted.get(b"sec-websocket-version") != b"13":
        raise UpgradeRequired("WebSocket version 13 is served.", headers={"sec-websocket-version": "13"})
    key = noted.get(b"sec-websocket-key", b"")
    if not _KEY.fullmatch(key):
        raise BadRequest("Sec-WebSocket-Key must be 16 bytes in base64.")
    return key


def _authorization(request: Request, offered: list[str], query: dict[str, str]) -> bytes | None:
    given = request.noted.get(b"authorization")
    if given is not None:
        return given
    token = next(
        (item.removeprefix(_BEARER) for item in offered if item.startswith(_BEARER)), query.get("access_token")
    )
    return None if token is None else b"Bearer " + token.encode()


def _chosen(offered: list[str]) -> str:
    """Browsers give up on a server that chooses none of those offered."""
    if SUBPROTOCOL in offered:
        return SUBPROTOCOL
    return next((item for item in offered if item.startswith(_BEARER)), "")


def _accept(key: bytes, subprotocol: str) -> bytes:
    lines = [
        b"upgrade: websocket\r\nconnection: Upgrade\r\n",
        b"sec-websocket-accept: %b\r\n" % generate_accept_token(key),
    ]
    if subprotocol:
        lines.append(b"sec-websocket-protocol: %b\r\n" % subprotocol.encode("latin-1"))
    return STATUS_LINES[101] + b"".join(lines) + b"\r\n"
