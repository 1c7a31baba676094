"""Health and metrics of the operator itself."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


@asynccontextmanager
async def serving(
    host: str,
    port: int,
    why_dead: Callable[[], str | None],
    why_unready: Callable[[], str | None],
    targets: Callable[[str, str], list[dict[str, Any]]],
) -> AsyncIterator[int]:
    """Answer ``/livez``, ``/readyz``, ``/metrics`` and ``/targets/NAMESPACE/PLATFORM`` for the time of the block.

    It is given the port. The first callables say what is wrong, or None; `targets` is for a Prometheus.
    """

    def health(why: Callable[[], str | None]) -> Callable[[web.Request], web.Response]:
        async def answer(_: web.Request) -> web.Response:
            problem = why()
            return web.Response(text=(problem or "ok") + "\n", status=503 if problem else 200)

        return answer  # type: ignore[return-value]

    async def show_metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def name_targets(request: web.Request) -> web.Response:
        return web.json_response(targets(request.match_info["namespace"], request.match_info["platform"]))

    app = web.Application()
    app.router.add_get("/livez", health(why_dead))  # type: ignore[arg-type]
    app.router.add_get("/readyz", health(why_unready))  # type: ignore[arg-type]
    app.router.add_get("/metrics", show_metrics)
    app.router.add_get("/targets/{namespace}/{platform}", name_targets)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()
