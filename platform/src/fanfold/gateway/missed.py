"""Asks the notification service what a WebSocket client missed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import httpx
import msgspec

from fanfold.contracts import headers
from fanfold.kit.errors import Unavailable

if TYPE_CHECKING:
    from fanfold.gateway.balancer import Balancer
    from fanfold.gateway.tokens import Principal, Tokens

SERVICE: Final = "notification"
LIMIT: Final = 100
"""Notifications a session catches up on; a client that was away for longer reads the list."""
TIMEOUT: Final = httpx.Timeout(5.0, connect=1.0)


class _Item(msgspec.Struct):
    id: str


class _Page(msgspec.Struct):
    items: list[msgspec.Raw]


_decode_page = msgspec.json.Decoder(_Page).decode
_decode_item = msgspec.json.Decoder(_Item).decode


class MissedNotifications:
    """Reads the list of one user, as that user."""

    def __init__(self, balancer: Balancer, tokens: Tokens) -> None:
        self._balancer = balancer
        self._tokens = tokens
        self._client = httpx.AsyncClient(timeout=TIMEOUT, limits=httpx.Limits(max_connections=32))

    async def after(self, principal: Principal, cursor: str) -> list[bytes]:
        """Notifications newer than the one named ``cursor``, as JSON, oldest first.

        Raises:
            Unavailable: The service has no replica, or refuses.
            httpx.HTTPError: It does not answer.
            msgspec.DecodeError: It answers with something else than a page.
        """
        endpoint = self._balancer.choose(SERVICE, principal.key, set())
        endpoint.in_flight += 1
        try:
            answer = await self._client.get(
                f"http://{endpoint.address}/v1/notifications",
                params={"after": cursor, "limit": LIMIT},
                headers={headers.IDENTITY: self._tokens.sign(principal)},
            )
        finally:
            endpoint.in_flight -= 1
        if answer.status_code != httpx.codes.OK:
            raise Unavailable(f"The notification service answered {answer.status_code}.")
        items = _decode_page(answer.content).items
        # UUIDv7 in its text form sorts by time.
        return [bytes(item) for item in sorted(items, key=lambda item: _decode_item(item).id)]

    async def close(self) -> None:
        """Close idle connections."""
        await self._client.aclose()
