"""``Idempotency-Key`` on POST: who repeats a request gets the answer of the first, for a day.

As in draft-ietf-httpapi-idempotency-key-header: the same key with another request is 422, a key whose request is still
under way is 409. Keys belong to one user and one route. An answer is kept when it is a success. A refusal (4xx) frees
the key, for nothing was changed. After anything else the work may have been done or not: the key keeps the `ReservedId`
it gave the first attempt, so that the next one makes the same thing and can see that it is there already.

A room's router takes ``route_class=IdempotentRoute``, its app ``app.state.idempotency = Idempotency(valkey)``. Such a
route reads the whole body: it is not for uploads.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Annotated, Any, Final
from uuid import UUID

import msgspec
from fastapi import Depends, Header, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute

from fanfold.contracts import headers
from fanfold.contracts.ids import new_id
from fanfold.kit.asgi import IDENTITY_KEY
from fanfold.kit.errors import BadRequest, Conflict, Problem, Unprocessable
from fanfold.kit.valkey import Script

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from fanfold.kit.valkey import Argument, Valkey

KEEP_SECONDS: Final = 24 * 3600
LOCK_SECONDS: Final = 30
"""An attempt that has not ended after this long has crashed: longer than a request may take."""
MAX_KEY: Final = 128
REPLAYED: Final = "idempotent-replayed"
"""Response header of an answer that was given before."""
_RESERVED: Final = "fanfold.reserved-id"

# KEYS: the record. ARGV: fingerprint, a fresh id, lock seconds, seconds to keep.
# Answers: other | busy, milliseconds left | done, answer | run, reserved id.
_BEGIN = Script("""
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local record = redis.call('HMGET', KEYS[1], 'fingerprint', 'id', 'until', 'answer')
if record[1] and record[1] ~= ARGV[1] then return {'other', ''} end
if record[4] then return {'done', record[4]} end
if record[3] and tonumber(record[3]) > now then return {'busy', tostring(record[3] - now)} end
local id = record[2] or ARGV[2]
redis.call('HSET', KEYS[1], 'fingerprint', ARGV[1], 'id', id, 'until', now + ARGV[3] * 1000)
redis.call('EXPIRE', KEYS[1], ARGV[4])
return {'run', id}
""")


class _Answer(msgspec.Struct, frozen=True, array_like=True):
    status: int
    media_type: str
    body: bytes


class Idempotency:
    """Records of requests and their answers, in Valkey."""

    def __init__(self, valkey: Valkey) -> None:
        self._valkey = valkey

    async def begin(self, record: bytes, fingerprint: bytes) -> UUID | Response:
        """Take the record for one attempt: the id reserved for what it makes, or the answer given before.

        Raises:
            Conflict: An attempt is under way.
            Unprocessable: The key was used with another request.
        """
        arguments: list[Argument] = [fingerprint, new_id().bytes, LOCK_SECONDS, KEEP_SECONDS]
        outcome, value = await self._valkey.script(_BEGIN, [record], arguments)
        if outcome == b"run":
            return UUID(bytes=value)
        if outcome == b"done":
            answer = msgspec.msgpack.decode(value, type=_Answer)
            return Response(answer.body, answer.status, {REPLAYED: "true"}, answer.media_type)
        if outcome == b"busy":
            seconds = max(1, round(int(float(value)) / 1000))
            raise Conflict(
                "A request with this Idempotency-Key is under way: wait for it, then repeat this one.",
                kind="idempotency-key-in-use",
                headers={"retry-after": str(min(seconds, 5))},
            )
        raise Unprocessable(
            "This Idempotency-Key was used with another request: take a new key.", kind="idempotency-key-reused"
        )

    async def finish(self, record: bytes, answer: Response) -> None:
        """Keep the answer."""
        kept = _Answer(answer.status_code, answer.media_type or "application/json", bytes(answer.body))
        await self._valkey.execute("HSET", record, "answer", msgspec.msgpack.encode(kept))

    async def free(self, record: bytes) -> None:
        """Forget the key: nothing was changed."""
        await self._valkey.execute("UNLINK", record)

    async def unlock(self, record: bytes) -> None:
        """Let the next attempt begin at once, with the same reserved id."""
        await self._valkey.execute("HSET", record, "until", 0)


class IdempotentRoute(APIRoute):
    """A route that honours the header on POST. Callers that are nobody get no memory: they would share it."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The route's handler between `Idempotency.begin` and its end."""
        handle = super().get_route_handler()
        template = self.path_format

        async def handle_once(request: Request) -> Response:
            key = request.headers.get(headers.IDEMPOTENCY_KEY)
            user_id = request.scope[IDENTITY_KEY].user_id
            if key is None or user_id is None or request.method != "POST":
                return await handle(request)
            if not 0 < len(key) <= MAX_KEY:
                raise BadRequest(f"An Idempotency-Key has 1 to {MAX_KEY} characters.")
            record = b"idempotency:" + user_id.bytes + _digest(template.encode(), key.encode())
            store: Idempotency = request.app.state.idempotency
            target = f"{request.url.path}?{request.url.query}"
            begun = await store.begin(record, _digest(target.encode(), await request.body()))
            if isinstance(begun, Response):
                return begun
            request.scope[_RESERVED] = begun
            return await _attempt(store, record, lambda: handle(request))

        return handle_once


async def _attempt(store: Idempotency, record: bytes, handle: Callable[[], Coroutine[Any, Any, Response]]) -> Response:
    try:
        answer = await handle()
    except (Problem, RequestValidationError) as refusal:
        changed_nothing = isinstance(refusal, RequestValidationError) or refusal.status < 500
        await (store.free(record) if changed_nothing else store.unlock(record))
        raise
    except Exception:
        await store.unlock(record)
        raise
    if 200 <= answer.status_code < 300:
        await store.finish(record, answer)
    else:
        await store.free(record)
    return answer


def _digest(*parts: bytes) -> bytes:
    return hashlib.sha256(b"\0".join(parts)).digest()


async def _reserved_id(
    request: Request,
    _: Annotated[
        str | None,
        Header(
            alias="Idempotency-Key",
            min_length=1,
            max_length=MAX_KEY,
            description="Repeat a request with the same key and it is carried out once; kept for a day.",
        ),
    ] = None,
) -> UUID:
    reserved: UUID | None = request.scope.get(_RESERVED)
    return reserved or new_id()


ReservedId = Annotated[UUID, Depends(_reserved_id)]
"""The id of what this POST makes: the same in every attempt with one Idempotency-Key, else a fresh one."""
