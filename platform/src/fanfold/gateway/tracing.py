"""Request ids and W3C trace context: one random number a request, both made from it."""

from __future__ import annotations

import random
import re
from binascii import hexlify
from typing import Final

from fanfold.contracts import headers

TRACE_ID: Final = 3
SPAN_ID: Final = 5
FLAGS: Final = 7
"""Places in the pieces that `trace` gives."""
_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._-]{7,63}")
_TRACEPARENT: Final = re.compile(rb"00-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-([0-9a-f]{2})")
_bits = random.SystemRandom().getrandbits
_random = random.Random(_bits(128))  # noqa: S311 - ids must differ, not be secret


def trace(noted: dict[bytes, bytes]) -> tuple[bytes, tuple[bytes, ...]]:
    """Ids of one request.

    Returns:
        The request id (the client's own when it is well-formed, else the trace id), and the pieces of two header lines
        for the service: request id and traceparent, with a span id of this hop.
    """
    made = hexlify(_random.getrandbits(192).to_bytes(24, "big"))
    trace_id, span_id, flags = made[:32], made[32:], b"00"
    request_id = trace_id
    if len(noted) > _COMMON_NOTED:
        given = noted.get(_TRACEPARENT_NAME)
        if given is not None and (found := _TRACEPARENT.fullmatch(given)):
            trace_id, flags = found.groups()
        wanted = noted.get(_REQUEST_ID_NAME)
        request_id = wanted if wanted is not None and _REQUEST_ID.fullmatch(wanted) else trace_id
    lines = (_REQUEST_ID_BEGIN, request_id, _TRACEPARENT_BEGIN, trace_id, b"-", span_id, b"-", flags, b"\r\n")
    return request_id, lines


def trace_id(lines: tuple[bytes, ...]) -> str:
    """The trace id in what `trace` gave."""
    return lines[TRACE_ID].decode()


_COMMON_NOTED: Final = 1
"""Every request has a Host; one with more may bring ids."""
_REQUEST_ID_BEGIN: Final = b"x-request-id: "
_TRACEPARENT_BEGIN: Final = b"\r\ntraceparent: 00-"
_TRACEPARENT_NAME: Final = headers.TRACEPARENT.encode()
_REQUEST_ID_NAME: Final = headers.REQUEST_ID.encode()
