"""``Idempotency-Key`` on POST: who repeats a request gets the answer of the first, for a day.

As in draft-ietf-httpapi-idempotency-key-header: the same key with another request is 422, a key whose request is still
under way is 409. Keys belong to one user and one route; those of callers who are nobody yet (registration, login) to
the route, so they must be long enough to be nobody else's. An answer is kept when it is a success. A refusal (4xx)
frees the key, for nothing was changed. After anything else the work may have been done or not: the key keeps the
`ReservedId` it gave the first attempt, so that the next one makes the same thing and can see that it is there already.

Answers hold tokens, and requests passwords. So the answer is kept sealed by a key made of the platform's secret and the
whole request, and of the request a keyed hash: neither tells anything to who reads Valkey.

A room's router takes ``route_class=IdempotentRoute``, its app ``app.state.idempotency = Idempotency(valkey, keys)``.
Such a route reads the whole body before it begins. An upload's takes `StreamedRoute`: its handler reads the body, and
then begins what it does with `Begin`.
"""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Annotated, Any, Final
from uuid import UUID

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from fastapi import Depends, Header, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute

from fanfold.contracts import headers
from fanfold.contracts.ids import new_id
from fanfold.kit.asgi import IDENTITY_KEY
from fanfold.kit.errors import BadRequest, Conflict, Problem, Unprocessable
from fanfold.kit.keyring import Keyring
from fanfold.kit.valkey import Script

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from fanfold.kit.valkey import Argument, Valkey

KEEP_SECONDS: Final = 24 * 3600
LOCK_SECONDS: Final = 30
"""An attempt that has not ended after this long has crashed: longer than a request may take."""
MAX_KEY: Final = 128
LEAST_OF_NOBODY: Final = 16
"""Least length of a key of who is not logged in: a shorter one might be another's too."""
REPLAYED: Final = "idempotent-replayed"
"""Response header of an answer that was given before."""
_KEPT_HEADERS: Final = ("cache-control", "etag", "location")
_ATTEMPT: Final = "fanfold.attempt"
_NONCE_BYTES: Final = 12

# KEYS: the record. ARGV: a fresh id, lock seconds, seconds to keep, then the request's hash by each of the keys.
# Answers: other | busy, milliseconds left | done, sealed answer | run, reserved id.
_BEGIN = Script("""
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local record = redis.call('HMGET', KEYS[1], 'request', 'id', 'until', 'sealed')
local same = not record[1]
for n = 4, #ARGV do same = same or record[1] == ARGV[n] end
if not same then return {'other', ''} end
if record[4] then return {'done', record[4]} end
if record[3] and tonumber(record[3]) > now then return {'busy', tostring(record[3] - now)} end
local id = record[2] or ARGV[1]
redis.call('HSET', KEYS[1], 'request', ARGV[4], 'id', id, 'until', now + ARGV[2] * 1000)
redis.call('EXPIRE', KEYS[1], ARGV[3])
return {'run', id}
""")


class _Answer(msgspec.Struct, frozen=True, array_like=True):
    status: int
    media_type: str
    body: bytes
    headers: dict[str, str]


class AnsweredError(Exception):
    """The request was carried out before: this was its answer."""

    def __init__(self, answer: Response) -> None:
        super().__init__("answered before")
        self.answer = answer


class Idempotency:
    """Records of requests and their answers, in Valkey.

    Args:
        valkey: Where.
        keys: Those of a secret, as `Keyring` takes them; others are derived from them.
    """

    def __init__(self, valkey: Valkey, keys: str) -> None:
        self.valkey = valkey
        self.keys = Keyring(keys, b"idempotency")

    def attempt(self, request: Request, template: str, key: str) -> Attempt:
        """One at what this request asks of the route with this template.

        Raises:
            BadRequest: The key is empty, too long, or may be another's.
        """
        user_id: UUID | None = request.scope[IDENTITY_KEY].user_id
        if not 0 < len(key) <= MAX_KEY:
            raise BadRequest(f"An Idempotency-Key has 1 to {MAX_KEY} characters.")
        if user_id is None and len(key) < LEAST_OF_NOBODY:
            raise BadRequest(f"Before login an Idempotency-Key has {LEAST_OF_NOBODY} characters at least: take a UUID.")
        owner = b"nobody" if user_id is None else user_id.bytes
        return Attempt(self, b"idempotency:" + owner + _digest(template.encode(), key.encode()), key.encode())


class Attempt:
    """One request that has a key, from its begin to its end."""

    def __init__(self, store: Idempotency, record: bytes, key: bytes) -> None:
        self._valkey, self._keys = store.valkey, store.keys
        self._record, self._key = record, key
        self._request = b""
        self.reserved: UUID | None = None
        """Id of what it makes, once it has begun."""

    async def begin(self, *request: bytes) -> None:
        """Take the record for what these parts of the request say.

        Raises:
            AnsweredError: It was carried out before.
            Conflict: An attempt is under way.
            Unprocessable: The key was used with another request.
        """
        self._request = _digest(*request)
        arguments: list[Argument] = [new_id().bytes, LOCK_SECONDS, KEEP_SECONDS]
        arguments += self._keys.each(b"request" + self._request)
        outcome, value = await self._valkey.script(_BEGIN, [self._record], arguments)
        if outcome == b"run":
            self.reserved = UUID(bytes=value)
        elif outcome == b"done":
            raise AnsweredError(self._open(value))
        elif outcome == b"busy":
            seconds = max(1, round(int(float(value)) / 1000))
            raise Conflict(
                "A request with this Idempotency-Key is under way: wait for it, then repeat this one.",
                kind="idempotency-key-in-use",
                headers={"retry-after": str(min(seconds, 5))},
            )
        else:
            raise Unprocessable(
                "This Idempotency-Key was used with another request: take a new key.", kind="idempotency-key-reused"
            )

    async def finish(self, answer: Response) -> None:
        """Keep a success; forget the key of anything else, which changed nothing."""
        if self.reserved is None:
            return
        if 200 <= answer.status_code < 300:
            await self._valkey.execute("HSET", self._record, "sealed", self._seal(answer))
        else:
            await self._forget()

    async def fail(self, error: Exception) -> None:
        """Forget the key of a refusal, which changed nothing; else let the next attempt begin at once."""
        if self.reserved is None:
            return
        if isinstance(error, RequestValidationError) or (isinstance(error, Problem) and error.status < 500):
            await self._forget()
        else:
            await self._valkey.execute("HSET", self._record, "until", 0)

    async def _forget(self) -> None:
        await self._valkey.execute("UNLINK", self._record)

    def _seals(self) -> list[AESGCM]:
        return [AESGCM(key) for key in self._keys.each(b"answer" + self._request + self._key)]

    def _seal(self, answer: Response) -> bytes:
        told = {name: answer.headers[name] for name in _KEPT_HEADERS if name in answer.headers}
        kept = _Answer(answer.status_code, answer.media_type or "application/json", bytes(answer.body), told)
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._seals()[0].encrypt(nonce, msgspec.msgpack.encode(kept), self._record)

    def _open(self, sealed: bytes) -> Response:
        for seal in self._seals():
            try:
                text = seal.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], self._record)
            except InvalidTag:
                continue
            kept = msgspec.msgpack.decode(text, type=_Answer)
            return Response(kept.body, kept.status, {**kept.headers, REPLAYED: "true"}, kept.media_type)
        raise RuntimeError("an answer that was kept has been damaged")


class IdempotentRoute(APIRoute):
    """A route that honours the header on POST."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The route's handler between the begin of an `Attempt` and its end."""
        handle = super().get_route_handler()
        template = self.path_format

        async def handle_once(request: Request) -> Response:
            key = request.headers.get(headers.IDEMPOTENCY_KEY)
            if key is None or request.method != "POST":
                return await handle(request)
            store: Idempotency = request.app.state.idempotency
            attempt = request.scope[_ATTEMPT] = store.attempt(request, template, key)
            try:
                await self.begin(attempt, request)
                answer = await handle(request)
            except AnsweredError as before:
                return before.answer
            except Exception as error:
                await attempt.fail(error)
                raise
            await attempt.finish(answer)
            return answer

        return handle_once

    async def begin(self, attempt: Attempt, request: Request) -> None:
        """Before the handler: the whole request tells what is asked."""
        await attempt.begin(f"{request.url.path}?{request.url.query}".encode(), await request.body())


class StreamedRoute(IdempotentRoute):
    """One whose handler reads the body piece by piece, and calls `Begin` when it knows what it says."""

    async def begin(self, attempt: Attempt, request: Request) -> None:
        """The handler's affair."""


def _digest(*parts: bytes) -> bytes:
    return hashlib.sha256(b"\0".join(parts)).digest()


async def _attempt(
    request: Request,
    _: Annotated[
        str | None,
        Header(
            alias="Idempotency-Key",
            min_length=1,
            max_length=MAX_KEY,
            description="Repeat a request with the same key and it is carried out once; kept for a day. "
            f"Before login a UUID, or what else has {LEAST_OF_NOBODY} characters and is nobody else's.",
        ),
    ] = None,
) -> Attempt | None:
    attempt: Attempt | None = request.scope.get(_ATTEMPT)
    return attempt


_Current = Annotated[Attempt | None, Depends(_attempt)]


async def _reserved_id(attempt: _Current) -> UUID:
    return (attempt and attempt.reserved) or new_id()


ReservedId = Annotated[UUID, Depends(_reserved_id)]
"""The id of what this POST makes: the same in every attempt with one Idempotency-Key, else a fresh one."""


async def _begin(attempt: _Current) -> Callable[[str], Coroutine[Any, Any, None]]:
    async def begin(content: str) -> None:
        if attempt is not None:
            await attempt.begin(content.encode())

    return begin


Begin = Annotated[Any, Depends(_begin)]
"""For handlers of a `StreamedRoute`: ``await begin(content)``, before anything is changed, with a hash of the body."""
