"""The ports of a run in a cluster: one that tells how it goes and takes an end, one that workers come to."""

from __future__ import annotations

import threading
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from wsgiref.types import StartResponse, WSGIEnvironment

Answer = tuple[int, bytes]
"""Status and body."""
REASONS: Final = {
    200: "OK",
    202: "Accepted",
    204: "No Content",
    400: "Bad Request",
    404: "Not Found",
    413: "Content Too Large",
}
LIMIT_BYTES: Final = 64 << 20
"""A worker's histograms are some hundred KB."""


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, *_: object) -> None:
        """One line per scrape would hide what the run has to say."""


def serving(address: str, handle: Callable[[str, str, bytes], Answer]) -> int:
    """Answer on ``HOST:PORT`` from threads of its own until the process ends; the port.

    Args:
        address: Where.
        handle: Called with method, path and body; answers with status and body.

    Raises:
        OSError: The address cannot be had.
    """

    def app(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        length = int(environ.get("CONTENT_LENGTH") or 0)
        status, body = 413, b""
        if length <= LIMIT_BYTES:
            status, body = handle(environ["REQUEST_METHOD"], environ["PATH_INFO"], environ["wsgi.input"].read(length))
        kind = CONTENT_TYPE_LATEST if environ["PATH_INFO"] == "/metrics" else "application/json"
        start(f"{status} {REASONS[status]}", [("Content-Type", kind), ("Content-Length", str(len(body)))])
        return [body]

    host, _, port = address.rpartition(":")
    server = make_server(host, int(port), app, server_class=_Server, handler_class=_Quiet)
    threading.Thread(target=server.serve_forever, name=f"port {port}", daemon=True).start()
    return server.server_port


def admin(cancel: Callable[[], object], acts: Callable[[bytes], bytes]) -> Callable[[str, str, bytes], Answer]:
    """``GET /metrics``, ``GET /livez``, ``POST /cancel`` and ``PUT /acts``."""

    def handle(method: str, path: str, body: bytes) -> Answer:
        if (method, path) == ("GET", "/metrics"):
            return 200, generate_latest(REGISTRY)
        if (method, path) == ("GET", "/livez"):
            return 200, b'"ok"\n'
        if (method, path) == ("POST", "/cancel"):
            cancel()
            return 204, b""
        if (method, path) == ("PUT", "/acts"):
            try:
                return 200, acts(body)
            except msgspec.DecodeError as error:
                return 400, str(error).encode()
        return 404, b""

    return handle
