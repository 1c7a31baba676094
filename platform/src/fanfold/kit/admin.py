"""The admin port of every component: for the kubelet, for Prometheus and for the operator; never for clients.

It is open to the cluster, so nothing here can hurt: `/drain` only waits, and `/release` only ends that wait.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from fastapi import FastAPI, Request, Response
from prometheus_client.exposition import choose_encoder

if TYPE_CHECKING:
    from fanfold.kit.runtime import Runtime


def admin_app(runtime: Runtime[Any]) -> FastAPI:
    """The app; components may add pages of their own.

    - ``/livez``: the loop turns.
    - ``/readyz``: the parts it needs answer.
    - ``/metrics``: Prometheus text, or OpenMetrics with exemplars for those who ask for it.
    - ``/drain``: the kubelet's preStop hook. Answers once no gateway sends here any more, or when the wait is over.
    - ``/release`` (POST): the operator says that no gateway does, and none will.
    """
    app = FastAPI(title="admin", openapi_url=None, docs_url=None, redoc_url=None)

    @app.get("/livez")
    async def _() -> Response:
        return Response("ok\n", media_type="text/plain")

    @app.get("/readyz")
    async def _() -> Response:
        reasons = await runtime.unready()
        body = msgspec.json.encode({"ready": not reasons, "reasons": reasons})
        return Response(body, 503 if reasons else 200, media_type="application/json")

    @app.get("/metrics")
    async def _(request: Request) -> Response:
        encode, media_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(runtime.registry), media_type=media_type)

    @app.get("/drain")
    async def _() -> dict[str, bool]:
        return {"released": await runtime.release_awaited()}

    @app.post("/release", status_code=204)
    async def _() -> None:
        runtime.release()

    return app
