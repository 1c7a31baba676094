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
PAGE: Final = 100
MAX_PAGES: Final = 5
"""Pages a session catches up on; a client that was away for longer reads the list first."""
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
            Unavailable: The service has no replica, or refuses, or there are more than `MAX_PAGES` pages.
            httpx.HTTPError: It does not answer.
            msgspec.DecodeError: It answers with something else than a page.
        """
        missed: list[bytes] = []
        for _ in range(MAX_PAGES):
            items = await self._page(principal, cursor)
            missed += [bytes(item) for item in items]
            if len(items) < PAGE:
                return missed
            cursor = _decode_item(items[-1]).id
        raise Unavailable(f"More than {MAX_PAGES * PAGE} notifications were missed.")

    async def _page(self, principal: Principal, cursor: str) -> list[msgspec.Raw]:
        """Notifications after ``cursor``, oldest first."""
        endpoint = self._balancer.choose(SERVICE, principal.key, set())
        endpoint.in_flight += 1
        try:
            answer = await self._client.get(
                f"http://{endpoint.address}/v1/notifications",
                params={"after": cursor, "limit": PAGE},
                headers={headers.IDENTITY: self._tokens.sign(principal)},
            )
        finally:
            endpoint.in_flight -= 1
        if answer.status_code != httpx.codes.OK:
            raise Unavailable(f"The notification service answered {answer.status_code}.")
        return _decode_page(answer.content).items

    async def close(self) -> None:
        """Close idle connections."""
        await self._client.aclose()
