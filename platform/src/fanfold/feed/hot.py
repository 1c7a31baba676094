"""``GET /v1/feed`` in front of FastAPI: the most frequent read of all pays for no routing, validation or middleware.

It takes what is plainly right; anything else goes to FastAPI's route of the same path, which answers the same way and
explains what is wrong.
"""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import TYPE_CHECKING, Final

from fanfold.feed.routes import CACHE_CONTROL, FEED_PATH
from fanfold.kit.asgi import IDENTITY_KEY
from fanfold.kit.errors import Unavailable
from fanfold.kit.pagination import DEFAULT_LIMIT, MAX_LIMIT
from fanfold.kit.valkey import ValkeyError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from fanfold.feed.routes import FeedPages
    from fanfold.kit.identity import Identity

_ROUTE: Final = SimpleNamespace(path=FEED_PATH)  # what Starlette leaves in the scope: metrics and logs name it
_HEAD: Final = [(b"content-type", b"application/json"), (b"cache-control", CACHE_CONTROL.encode())]
_PLAIN: Final = re.compile(rb"(?:limit=(\d{1,3})(?:&|$))?(?:cursor=([\w-]{1,64}))?")


class HotFeed:
    """ASGI app: the hot route, and all others of ``app``."""

    def __init__(self, app: ASGIApp, pages: FeedPages) -> None:
        self.app = app
        self._pages = pages

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, its identity verified already (`kit.asgi.Edge`)."""
        if scope["type"] == "http" and scope["path"] == FEED_PATH and scope["method"] == "GET":
            identity: Identity = scope[IDENTITY_KEY]
            asked = plain_query(scope["query_string"])
            if asked is not None and identity.user_id is not None:
                scope["route"] = _ROUTE
                try:
                    body = await self._pages.read(identity.user_id, *asked)
                except ValkeyError as error:
                    raise Unavailable("The cache does not answer; try again.") from error
                head = [*_HEAD, (b"content-length", b"%d" % len(body))]
                await send({"type": "http.response.start", "status": 200, "headers": head})
                await send({"type": "http.response.body", "body": body})
                return
        await self.app(scope, receive, send)


def plain_query(query: bytes) -> tuple[int, str | None] | None:
    """Limit and cursor of ``[limit=…][&][cursor=…]``; None when it is anything else or out of bounds."""
    match = _PLAIN.fullmatch(query)
    if match is None:
        return None
    limit = int(match[1] or DEFAULT_LIMIT)
    if not 1 <= limit <= MAX_LIMIT:
        return None
    return limit, match[2].decode() if match[2] else None
