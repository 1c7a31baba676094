"""A typed client of the gateway's API, for journeys and checks. Load is made by other means.

Every call has a time limit. 429 and 503 are waited out as ``Retry-After`` says, three times at most; a POST carries an
``Idempotency-Key``, so that its repetition does nothing twice.
"""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar
from urllib.parse import urljoin

import httpx
import msgspec
from websockets.asyncio.client import connect

from fanfold_loadtest.shapes import Account, Comment, Image, Page, Post, Problem, Tokens

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fanfold_loadtest.photos import Photo

Answer = TypeVar("Answer")

TIMEOUT: Final = httpx.Timeout(15.0, connect=5.0)
ATTEMPTS: Final = 4
MAX_PAUSE: Final = 5.0
HANDSHAKE_SECONDS: Final = 10.0
_WAIT_OUT: Final = (429, 503)


class ApiError(Exception):
    """The gateway refused, failed or did not answer; the message names the call and quotes the problem."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class Api:
    """The gateway, as nobody in particular. An async context manager.

    Args:
        url: Base URL of the gateway.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        limits = httpx.Limits(max_connections=64, max_keepalive_connections=64)
        self._client = httpx.AsyncClient(base_url=self.url, timeout=TIMEOUT, limits=limits)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def send(
        self, method: str, path: str, *, token: str = "", attempts: int = ATTEMPTS, **options: Any
    ) -> httpx.Response:
        """One request, and again after 429 and 503 (give ``attempts=1`` to measure).

        Raises:
            ApiError: Any answer but 2xx and 304, or none.
        """
        headers = {"authorization": f"Bearer {token}"} if token else {}
        if method == "POST":
            headers["idempotency-key"] = uuid.uuid4().hex
        headers |= options.pop("headers", {})
        for attempt in range(1, attempts + 1):
            try:
                answer = await self._client.request(method, path, headers=headers, **options)
            except httpx.TransportError as error:
                raise ApiError(f"{method} {path}: {type(error).__name__}: {error}") from error
            if answer.status_code not in _WAIT_OUT or attempt == attempts:
                break
            await asyncio.sleep(min(MAX_PAUSE, _seconds(answer.headers.get("retry-after"))))
        if answer.is_success or answer.status_code == httpx.codes.NOT_MODIFIED:
            return answer
        raise ApiError(f"{method} {path}: {_quoted(answer)}", answer.status_code)

    async def call(self, method: str, path: str, kind: type[Answer], *, token: str = "", **options: Any) -> Answer:
        """`send`, and the answer decoded.

        Raises:
            ApiError: As `send`, or the answer is not of this shape.
        """
        answer = await self.send(method, path, token=token, **options)
        try:
            return msgspec.json.decode(answer.content, type=kind)
        except msgspec.DecodeError as error:
            raise ApiError(f"{method} {path}: the answer is not what the API promises: {error}") from error

    async def register(self, username: str, password: str, display_name: str) -> Account:
        """Make an account."""
        body = {"username": username, "password": password, "display_name": display_name}
        return await self.call("POST", "/v1/accounts", Account, json=body)

    async def login(self, username: str, password: str) -> Person:
        """Begin a session."""
        body = {"username": username, "password": password}
        tokens = await self.call("POST", "/v1/sessions", Tokens, json=body)
        return Person(self, username, tokens)

    async def download(self, url: str, **headers: str) -> httpx.Response:
        """A photo variant, from the gateway or a CDN, without a token."""
        return await self.send("GET", urljoin(self.url + "/", url), headers=headers)


class Person:
    """A logged-in user of the API."""

    def __init__(self, api: Api, username: str, tokens: Tokens) -> None:
        self.api = api
        self.id = tokens.user_id
        self.username = username
        self.token = tokens.access_token
        self.refresh_token = tokens.refresh_token
        self.expires_in = tokens.expires_in

    async def _do(self, method: str, path: str, **options: Any) -> None:
        await self.api.send(method, path, token=self.token, **options)

    async def _get(self, path: str, kind: type[Answer], **parameters: Any) -> Answer:
        wanted = {name: value for name, value in parameters.items() if value is not None}
        return await self.api.call("GET", path, kind, token=self.token, params=wanted)

    async def follow(self, user_id: str) -> None:
        """Follow somebody."""
        await self._do("PUT", f"/v1/users/me/following/{user_id}")

    async def unfollow(self, user_id: str) -> None:
        """Follow somebody no longer."""
        await self._do("DELETE", f"/v1/users/me/following/{user_id}")

    async def upload(self, photo: Photo) -> Image:
        """Upload a photograph."""
        content = await asyncio.to_thread(photo.path.read_bytes)
        files = {"file": (photo.path.name, content, photo.media_type)}
        return await self.api.call("POST", "/v1/images", Image, token=self.token, files=files)

    async def image(self, image_id: str) -> Image:
        """An uploaded photo."""
        return await self._get(f"/v1/images/{image_id}", Image)

    async def post(self, image_ids: Sequence[str], caption: str, alt_texts: Sequence[str]) -> Post:
        """Publish photos."""
        body = {"image_ids": list(image_ids), "caption": caption, "alt_texts": list(alt_texts)}
        return await self.api.call("POST", "/v1/posts", Post, token=self.token, json=body)

    async def delete_post(self, post_id: str) -> None:
        """Take one's own post back."""
        await self._do("DELETE", f"/v1/posts/{post_id}")

    async def renew(self) -> None:
        """New tokens for old ones."""
        body = {"refresh_token": self.refresh_token}
        tokens = await self.api.call("POST", "/v1/sessions/refresh", Tokens, json=body)
        self.token, self.refresh_token, self.expires_in = tokens.access_token, tokens.refresh_token, tokens.expires_in

    async def leave(self, password: str) -> None:
        """Delete the account and everything of its."""
        await self._do("DELETE", "/v1/users/me", json={"password": password})

    async def read_post(self, post_id: str) -> Post:
        """One post."""
        return await self._get(f"/v1/posts/{post_id}", Post)

    async def timeline(self, user_id: str, limit: int | None = None, cursor: str | None = None) -> Page[Post]:
        """A user's own posts, newest first."""
        return await self._get(f"/v1/users/{user_id}/posts", Page[Post], limit=limit, cursor=cursor)

    async def like(self, post_id: str) -> None:
        """Like a post."""
        await self._do("PUT", f"/v1/posts/{post_id}/like")

    async def comment(self, post_id: str, text: str) -> Comment:
        """Comment on a post."""
        path = f"/v1/posts/{post_id}/comments"
        return await self.api.call("POST", path, Comment, token=self.token, json={"text": text})

    async def comments(self, post_id: str) -> Page[Comment]:
        """The newest comments on a post."""
        return await self._get(f"/v1/posts/{post_id}/comments", Page[Comment])

    async def feed(self, limit: int | None = None, cursor: str | None = None) -> Page[Post]:
        """The home feed, newest first."""
        return await self._get("/v1/feed", Page[Post], limit=limit, cursor=cursor)

    async def notifications(self) -> str:
        """The newest notifications, as the JSON they come in."""
        return (await self.api.send("GET", "/v1/notifications", token=self.token)).text

    def listen(self) -> connect:
        """Live notifications: an async context manager of a connection, one JSON object a message."""
        url = self.api.url.replace("http", "ws", 1) + "/v1/ws"
        return connect(
            url,
            additional_headers={"authorization": f"Bearer {self.token}"},
            open_timeout=HANDSHAKE_SECONDS,
            close_timeout=2,
            proxy=None,
        )


def _seconds(retry_after: str | None) -> float:
    return float(retry_after) if retry_after and retry_after.isdigit() else 1.0


def _quoted(answer: httpx.Response) -> str:
    try:
        problem = msgspec.json.decode(answer.content, type=Problem)
    except msgspec.DecodeError:
        return f"{answer.status_code}: {answer.text[:200]}"
    request = f" (request {problem.request_id})" if problem.request_id else ""
    return f"{answer.status_code}: {problem.detail or problem.type}{request}"
