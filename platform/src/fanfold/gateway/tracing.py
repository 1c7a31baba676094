"""Request ids and W3C trace context: one random number a request, both made from it."""

from __future__ import annotations

import random
import re
from typing import Final

from fanfold.contracts import headers

_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._-]{7,63}")
_TRACEPARENT: Final = re.compile(rb"00-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-([0-9a-f]{2})")
_bits = random.SystemRandom().getrandbits
_random = random.Random(_bits(128))  # noqa: S311 - ids must differ, not be secret


class Trace:
    """Ids of one request.

    Attributes:
        request_id: The client's own when it is well-formed, else the trace id.
        lines: Headers for the service: request id and traceparent, with a span id of this hop.
    """

    __slots__ = ("lines", "request_id")

    def __init__(self, noted: dict[bytes, bytes]) -> None:
        made = b"%048x" % _random.getrandbits(192)
        trace, span, flags = made[:32], made[32:], b"00"
        given = noted.get(_TRACEPARENT_NAME)
        if given is not None and (found := _TRACEPARENT.fullmatch(given)):
            trace, flags = found.groups()
        wanted = noted.get(_REQUEST_ID_NAME)
        self.request_id = wanted if wanted is not None and _REQUEST_ID.fullmatch(wanted) else trace
        self.lines = b"x-request-id: %b\r\ntraceparent: 00-%b-%b-%b\r\n" % (self.request_id, trace, span, flags)


_TRACEPARENT_NAME: Final = headers.TRACEPARENT.encode()
_REQUEST_ID_NAME: Final = headers.REQUEST_ID.encode()
