"""The public documentation: the merged OpenAPI document and a page that shows it, both from package data.

The page is our own and loads nothing from elsewhere, so that it works without the internet and under a strict policy.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import re
from importlib import resources
from typing import TYPE_CHECKING, Final

from fanfold.gateway.answers import Answer
from fanfold.kit.compression import Compression
from fanfold.kit.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Callable

    from fanfold.gateway.messages import Request

OPENAPI: Final = "openapi.json"
DOCS: Final = "docs.html"
_ACCEPTED: Final = b"accept-encoding: "
_GZIP: Final = Compression(("gzip",))


def pages() -> dict[str, Callable[[Request], Answer]]:
    """What the gateway answers itself, by route pattern."""
    files = resources.files("fanfold.gateway") / "static"
    openapi = files / OPENAPI
    page = (files / DOCS).read_bytes()
    served: dict[str, Callable[[Request], Answer]] = {"/docs": _page(page, "text/html; charset=utf-8", _policy(page))}
    if openapi.is_file():
        served["/openapi.json"] = _page(openapi.read_bytes(), "application/json", {})
    else:
        served["/openapi.json"] = _absent
    return served


def _page(body: bytes, media_type: str, headers: dict[str, str]) -> Callable[[Request], Answer]:
    """Packed once: the document is 130 kB, 14 packed."""
    tag = hashlib.sha256(body).hexdigest()[:16]
    shared = {"cache-control": "public, max-age=300", "vary": "accept-encoding", **headers}
    plain = {**shared, "etag": f'"{tag}"'}
    coded = {**shared, "etag": f'"{tag}-gzip"', "content-encoding": "gzip"}
    packed = gzip.compress(body, mtime=0)

    def answer(request: Request) -> Answer:
        for about in (plain, coded):
            if f"if-none-match: {about['etag']}\r\n".encode() in request.lines:
                return Answer(304, b"", {**shared, "etag": about["etag"]})
        accepted = next((line for line in request.lines if line.startswith(_ACCEPTED)), _ACCEPTED)
        if _GZIP.choose(accepted.removeprefix(_ACCEPTED).strip()):
            return Answer(200, packed, {"content-type": media_type, **coded})
        return Answer(200, body, {"content-type": media_type, **plain})

    return answer


def _absent(_: Request) -> Answer:
    raise NotFound("This build carries no OpenAPI document; `make openapi` writes it.")


def _policy(page: bytes) -> dict[str, str]:
    """Only this page's own script and style may run (CSP level 2, by hash)."""
    hashes = {
        tag: " ".join(
            f"'sha256-{_sha256(found)}'" for found in re.findall(rb"<%b>(.*?)</%b>" % (tag, tag), page, re.DOTALL)
        )
        for tag in (b"script", b"style")
    }
    return {
        "content-security-policy": f"default-src 'none'; connect-src 'self'; base-uri 'none'; frame-ancestors 'none'; "
        f"script-src {hashes[b'script']}; style-src {hashes[b'style']}"
    }


def _sha256(data: bytes) -> str:
    return base64.b64encode(hashlib.sha256(data).digest()).decode()
