"""The gateway most people would write first: FastAPI, aiohttp, PyJWT, prometheus-client.

Run by ``benchmarks/gateway.py`` in the peers' environment, not in ours. It is given what it needs to be quick: uvloop,
httptools, verified tokens remembered, one pooled session, a ring that is searched by bisection.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from bisect import bisect
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import jwt
import uvicorn
import xxhash
from fastapi import FastAPI, Request, Response
from prometheus_client import Counter, Histogram, generate_latest

SLOTS: list[str] = os.environ["SLOTS"].split(",")
KEYS = {key.key_id: key.key for key in jwt.PyJWKSet.from_dict(json.loads(os.environ["JWKS"])).keys}
RING = sorted((xxhash.xxh3_64_intdigest(f"{slot}#{number}".encode()), slot) for slot in SLOTS for number in range(160))
POSITIONS = [position for position, _ in RING]
HOPS = frozenset(
    {"connection", "keep-alive", "transfer-encoding", "content-length", "host", "authorization", "upgrade", "x-user-id"}
)
REQUESTS = Counter("requests", "Requests", ["status"])
SECONDS = Histogram("seconds", "Time of a request")
known: dict[str, tuple[str, float]] = {}


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    connector = aiohttp.TCPConnector(limit=256)
    async with aiohttp.ClientSession(
        connector=connector, auto_decompress=False, timeout=aiohttp.ClientTimeout(total=10)
    ) as session:
        app.state.session = session
        yield


app = FastAPI(lifespan=lifespan)


def user_of(authorization: str) -> str | None:
    found = known.get(authorization)
    if found is None:
        try:
            token = authorization.removeprefix("Bearer ")
            key = KEYS[jwt.get_unverified_header(token)["kid"]]
            claims: dict[str, Any] = jwt.decode(token, key, algorithms=["EdDSA"], issuer="fanfold")
        except (jwt.PyJWTError, KeyError):
            return None
        found = known[authorization] = (claims["sub"], claims["exp"])
    return found[0] if found[1] > time.time() else None


@app.get("/metrics")
async def metrics() -> Response:
    return Response(generate_latest(), media_type="text/plain")


@app.api_route("/{path:path}", methods=["GET", "POST", "PUT", "DELETE"])
async def proxy(path: str, request: Request) -> Response:
    started = time.perf_counter()
    user = user_of(request.headers.get("authorization", ""))
    if user is None:
        REQUESTS.labels("401").inc()
        return Response(status_code=401)
    slot = RING[bisect(POSITIONS, xxhash.xxh3_64_intdigest(user.encode())) % len(RING)][1]
    headers = {name: value for name, value in request.headers.items() if name not in HOPS}
    headers["x-user-id"] = user
    headers["x-request-id"] = uuid.uuid4().hex
    url = f"http://{slot}/{path}"
    session: aiohttp.ClientSession = app.state.session
    async with session.request(
        request.method, url, params=request.query_params, data=await request.body(), headers=headers
    ) as answer:
        body = await answer.read()
    REQUESTS.labels(str(answer.status)).inc()
    SECONDS.observe(time.perf_counter() - started)
    passed = {name: value for name, value in answer.headers.items() if name.lower() not in HOPS}
    return Response(body, answer.status, {**passed, "x-request-id": headers["x-request-id"]})


if __name__ == "__main__":
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=int(os.environ["PORT"]),
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="warning",
    )
