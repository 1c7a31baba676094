"""Compressed answers (RFC 9110, sections 8.4 and 12.5.3): JSON above a size, to whoever asks for it.

Answers are compressed where they are made, whole: the gateway hands them on as they are. docs/gateway.md argues why,
and by what measurements. Photos, archives and other streams are left alone.

A compressed answer is another representation, with an entity tag of its own: that of the plain one with the coding
behind it (``"5f3a-gzip"``). Routes never see it: what clients send back in conditions is put back first.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Literal

import brotli
from isal import igzip

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from starlette.types import Message, Send

Coding = Literal["gzip", "br"]

_LEVEL: Final = 1
"""Of both: the next one saves a twentieth more and takes twice the time."""
_ENCODERS: Final[Mapping[str, Callable[[bytes], bytes]]] = {
    "gzip": lambda body: igzip.compress(body, _LEVEL, mtime=0),
    "br": lambda body: brotli.compress(body, quality=_LEVEL),
}
_ALIASES: Final = {"x-gzip": "gzip"}
_WEIGHT: Final = re.compile(r"q=(0(?:\.\d{0,3})?|1(?:\.0{0,3})?)")
_PACKED_TAG: Final = re.compile(rb'"([^"]*)-(gzip|br)"')
_JSON: Final = re.compile(rb"application/(?:[a-z0-9.+-]+\+)?json")
_CONDITIONS: Final = frozenset({b"if-none-match", b"if-match"})
_VARY: Final = (b"vary", b"accept-encoding")


class Compression:
    """What is compressed, and how.

    Args:
        codings: Those offered; of those a client likes equally the first is taken. None: nothing is compressed.
        least: Smaller bodies are left alone (bytes).
    """

    def __init__(self, codings: Sequence[Coding] = (), least: int = 1024) -> None:
        self._codings = tuple(codings)
        self.least = least
        self.choose = lru_cache(maxsize=256)(self._choose)

    @property
    def offered(self) -> bool:
        """Whether anything is ever compressed."""
        return bool(self._codings)

    def _choose(self, accepted: bytes) -> Coding | None:
        """The coding for an ``Accept-Encoding``; None to send the body as it is, also where that is not welcome."""
        weights = _weights(accepted.decode("latin-1").lower())
        others = weights.get("*", 0.0)
        best: Coding | None = None
        least = weights.get("identity", 0.0)
        for coding in self._codings:
            weight = weights.get(coding, others)
            if weight > 0 and (weight > least or (best is None and weight == least)):
                best, least = coding, weight
        return best

    def pack(self, body: bytes, coding: Coding) -> bytes:
        """The body in a coding."""
        return _ENCODERS[coding](body)


def _weights(accepted: str) -> dict[str, float]:
    """Weight of each coding named; what is malformed is left out."""
    found: dict[str, float] = {}
    for element in accepted.split(","):
        name, _, parameter = (part.strip() for part in element.partition(";"))
        weight = _WEIGHT.fullmatch(parameter) if parameter else None
        if name and (weight or not parameter):
            found[_ALIASES.get(name, name)] = float(weight[1]) if weight else 1.0
    return found


class Negotiated:
    """One request and its answer, between the connection and the app.

    Args:
        compression: The rules.
        headers: Of the request, as ASGI has them.
    """

    def __init__(self, compression: Compression, headers: Sequence[tuple[bytes, bytes]]) -> None:
        self._compression = compression
        self._coding: Coding | None = None
        self._had: dict[bytes, bytes] = {}
        """Codings of the representations that the client has compressed, by their plain tags."""
        self.headers = [self._plain(name, value) for name, value in headers]
        self._start: Message | None = None

    def _plain(self, name: bytes, value: bytes) -> tuple[bytes, bytes]:
        if name == b"accept-encoding":
            self._coding = self._compression.choose(value)
        elif name in _CONDITIONS:
            self._had |= {b'"%b"' % tag: coding for tag, coding in _PACKED_TAG.findall(value)}
            return name, _PACKED_TAG.sub(rb'"\1"', value)
        return name, value

    def wrap(self, send: Send) -> Send:
        """``send`` with bodies compressed that come whole."""

        async def compressing(message: Message) -> None:
            if message["type"] == "http.response.start":
                if message["status"] == 304:
                    self._tag_as_had(message)
                elif message["status"] == 200 and _is_json(message["headers"]):
                    self._start = message
                    return
            elif self._start is not None:
                start, self._start = self._start, None
                message = self._packed(start, message)
                await send(start)
            await send(message)

        return compressing

    def _packed(self, start: Message, message: Message) -> Message:
        body = message.get("body", b"")
        if message.get("more_body") or len(body) < self._compression.least:
            return message
        headers = [*start["headers"], _VARY]
        if self._coding is not None:
            body = self._compression.pack(body, self._coding)
            headers = [_recoded(name, value, len(body), self._coding.encode()) for name, value in headers]
            headers.append((b"content-encoding", self._coding.encode()))
        start["headers"] = headers
        return {**message, "body": body}

    def _tag_as_had(self, start: Message) -> None:
        """Not modified: under the tag by which the client knows it."""
        headers: list[tuple[bytes, bytes]] = []
        for name, value in start["headers"]:
            coding = self._had.get(value) if name == b"etag" else None
            headers += [(name, value)] if coding is None else [(name, _tagged(value, coding)), _VARY]
        start["headers"] = headers


def _is_json(headers: Sequence[tuple[bytes, bytes]]) -> bool:
    values = dict(headers)
    return (
        _JSON.match(values.get(b"content-type", b"")) is not None
        and b"content-encoding" not in values
        and b"no-transform" not in values.get(b"cache-control", b"")
    )


def _recoded(name: bytes, value: bytes, size: int, coding: bytes) -> tuple[bytes, bytes]:
    if name == b"content-length":
        return name, str(size).encode()
    return (name, _tagged(value, coding)) if name == b"etag" else (name, value)


def _tagged(tag: bytes, coding: bytes) -> bytes:
    """A weak tag may name several codings of one thing (RFC 9110, section 8.8.1)."""
    return tag if tag.startswith(b"W/") else b'%b-%b"' % (tag.removesuffix(b'"'), coding)
