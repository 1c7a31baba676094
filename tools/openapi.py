"""Merge the services' OpenAPI documents into the one that the gateway serves: ``make openapi``."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fastapi import FastAPI

from fanfold.contracts.components import ROUTED
from fanfold.dev import credentials
from fanfold.kit.runtime import Runtime
from tools.progress import ROOT, fail, say

TARGET: Final = ROOT / "platform" / "src" / "fanfold" / "gateway" / "static" / "openapi.json"
BEARER: Final = {"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}}
ANONYMOUS: Final = {
    ("/v1/accounts", "post"),
    ("/v1/sessions", "post"),
    ("/v1/sessions/refresh", "post"),
}
"""Operations without an access token, beside everything under ``/v1/media``."""


SOCKET: Final = {
    "get": {
        "tags": ["notification"],
        "summary": "Hear notifications as they happen, over WebSocket",
        "description": (
            "A WebSocket handshake (RFC 6455). Each message is a text frame with one JSON object: a notification as "
            "`GET /v1/notifications` shows it, or a hint that something changed. The token comes as `Authorization`, "
            "as subprotocol `bearer.TOKEN` beside `fanfold.v1`, or as `access_token`. Close codes: 1008 the token "
            "ended, 1012 the gateway restarts (the reason says when to come back), 1013 come back with your cursor."
        ),
        "operationId": "open_socket",
        "parameters": [
            {
                "name": "cursor",
                "in": "query",
                "required": False,
                "description": "Id of the last notification seen: what came since is sent first.",
                "schema": {"type": "string", "format": "uuid"},
            },
            {
                "name": "access_token",
                "in": "query",
                "required": False,
                "description": "For clients that can send the token in no other way; proxies may log it.",
                "schema": {"type": "string"},
            },
        ],
        "responses": {
            "101": {"description": "The connection speaks WebSocket from here on."},
            "400": {"description": "A malformed handshake or cursor."},
            "401": {"description": "No valid token."},
            "403": {"description": "A page of a site that may not."},
            "426": {"description": "No WebSocket handshake."},
            "429": {"description": "Too many sockets of this user are open."},
        },
        "security": [{"bearer": []}],
    }
}
"""What the gateway itself serves, beside this document and the page that shows it."""


@dataclass
class Nowhere:
    """Addresses of the right form that lead nowhere: building an app connects to nothing."""

    database_url: str = "postgresql+asyncpg://127.0.0.1:1/none"
    valkey_url: str = "redis://127.0.0.1:1/0"
    s3_access_key: str = "none"
    s3_secret_key: str = "none"  # noqa: S105 - it opens nothing


def merged() -> dict[str, Any]:
    """The document: paths and schemas of every routed service, sorted, so that equal code gives equal bytes."""
    with tempfile.TemporaryDirectory() as folder:
        credentials.write(Path(folder), Nowhere())
        documents = [asyncio.run(_document(room, Path(folder))) for room in ROUTED]
    paths: dict[str, Any] = {}
    schemas: dict[str, Any] = {}
    for room, document in zip(ROUTED, documents, strict=True):
        for path, operations in document["paths"].items():
            _add(paths, path, operations, room)
        for name, schema in document.get("components", {}).get("schemas", {}).items():
            if schemas.setdefault(name, schema) != schema:
                fail(f"{room} has another schema {name!r} than a room before it: rename one")
    _secure(paths)
    paths["/v1/ws"] = SOCKET
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Fanfold",
            "version": documents[0]["info"]["version"],
            "description": "A photo feed. Errors are RFC 9457 problem details; lists are pages with opaque cursors.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": dict(sorted(paths.items())),
        "components": {"schemas": dict(sorted(schemas.items())), "securitySchemes": BEARER},
    }


def _add(paths: dict[str, Any], path: str, operations: dict[str, Any], room: str) -> None:
    known = paths.setdefault(path, {})
    for method, operation in operations.items():
        if method in known:
            fail(f"{room} serves {method.upper()} {path}, which a room before it serves too")
        known[method] = operation


def _secure(paths: dict[str, Any]) -> None:
    for path, operations in paths.items():
        for method, operation in operations.items():
            open_to_all = (path, method) in ANONYMOUS or path.startswith("/v1/media")
            operation["security"] = [] if open_to_all else [{"bearer": []}]


async def _document(room: str, folder: Path) -> dict[str, Any]:
    """One room's document. Its connections are made on first use, so none is made here."""
    module = importlib.import_module(f"fanfold.{room}.app")
    runtime = Runtime(module.SETTINGS(service=room, secrets_dir=folder))
    app = await module.build(runtime)
    while not isinstance(app, FastAPI):  # a hot route stands in front of the app it wraps
        app = app.app
    return app.openapi()


def main(arguments: list[str]) -> None:
    """Write the document; with ``--check`` only compare, exit code 1 when it is not current."""
    os.environ.setdefault("FANFOLD_LOG_LEVEL", "ERROR")
    text = json.dumps(merged(), indent=1, ensure_ascii=False) + "\n"
    if arguments == ["--check"]:
        if not TARGET.exists() or TARGET.read_text() != text:
            fail(f"{TARGET.relative_to(ROOT)} is not current: run `make openapi`")
        return
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(text)
    say(f"wrote {TARGET.relative_to(ROOT)}")


if __name__ == "__main__":
    main(sys.argv[1:])
