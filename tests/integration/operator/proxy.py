"""A way to the API server that records who called, and that can be made a bad one."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import aiohttp
import yaml
from aiohttp import web

from fanfold_operator.api import login
from tests.integration.operator.loops import complete

HOP = {"host", "connection", "transfer-encoding", "content-length", "content-encoding", "accept-encoding"}


@dataclass(frozen=True)
class Call:
    """One call as it arrived. `status` 0: not answered."""

    at: float
    agent: str
    method: str
    path: str
    status: int

    @property
    def writes(self) -> bool:
        """Whether it was to change something other than who leads."""
        return self.method != "GET" and "/leases" not in self.path


@dataclass(frozen=True)
class Fault:
    """What to answer in the API server's place; `accepted`: after it has done what it was asked."""

    status: int
    accepted: bool = False


class Proxy:
    """Forwards plain HTTP to the API server of a kubeconfig, from a thread of its own.

    `judge` gets method and path of each call but watches, and may answer with a fault. `slow` is for how many seconds
    the answer to a write is kept back. `replay` is the chance that a
    watch, after an event, begins again some events earlier, as it does when it is resumed.
    """

    def __init__(self, kubeconfig: Path) -> None:
        self.calls: list[Call] = []
        self.judge: Callable[[str, str], Fault | None] = lambda *_: None
        self.slow = 0.0
        self.replay = 0.0
        self.replayed = 0
        self._upstream = kubeconfig
        self._thread = threading.Thread(target=lambda: complete(self._main()), name="proxy")
        self._opened = threading.Event()
        self._chance = random.Random(7)
        self._port = 0

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._opened.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._closing.set)
        self._thread.join(20)
        assert not self._thread.is_alive()

    def kubeconfig(self, path: Path) -> Path:
        """Write one that leads here."""
        server = {"server": f"http://127.0.0.1:{self._port}"}
        body = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "proxy", "cluster": server}],
            "users": [{"name": "nobody", "user": {}}],
            "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "nobody"}}],
            "current-context": "proxy",
        }
        path.write_text(yaml.safe_dump(body))
        return path

    def cut(self) -> None:
        """Break all connections and refuse new ones."""
        self._wait(self._stop_listening())

    def mend(self) -> None:
        """Accept connections again."""
        self._wait(self._listen())

    def writes(self, since: float = 0.0, agent: str = "", path: str = "") -> list[Call]:
        """Calls that were to change something, of agents and paths that have these words in them."""
        calls = [call for call in list(self.calls) if call.writes and call.at >= since]
        return [call for call in calls if agent in call.agent and path in call.path]

    def _wait(self, work: Any) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _main(self) -> None:
        self._loop, self._closing = asyncio.get_running_loop(), asyncio.Event()
        await self._open()
        self._opened.set()
        await self._closing.wait()
        await self._stop_listening()
        await self._close()

    async def _open(self) -> None:
        self._client = await login(str(self._upstream))
        rest = self._client.rest_client
        connector = aiohttp.TCPConnector(ssl=rest.ssl_context, limit=0)
        self._session = aiohttp.ClientSession(
            connector=connector, auto_decompress=False, timeout=aiohttp.ClientTimeout(total=None), read_bufsize=2**21
        )
        self._base = self._client.configuration.host
        app = web.Application(client_max_size=2**24)
        app.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        await self._listen()

    async def _close(self) -> None:
        await self._runner.cleanup()
        await self._session.close()
        await self._client.close()  # type: ignore[no-untyped-call]

    async def _listen(self) -> None:
        self._site = web.TCPSite(self._runner, "127.0.0.1", self._port)
        await self._site.start()
        self._port = self._runner.addresses[0][1]

    async def _stop_listening(self) -> None:
        if self._site in self._runner.sites:
            await self._site.stop()
        assert self._runner.server is not None
        for connection in list(self._runner.server.connections):
            if connection.transport:
                connection.transport.abort()
            connection.force_close()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        at, status = time.monotonic(), 0
        try:
            if "watch" in request.query:
                return await self._watch(request)
            fault = self.judge(request.method, request.path)
            if fault and not fault.accepted:
                status = fault.status
                return _answer(fault)
            async with self._forward(request) as response:
                body = await response.read()
            if request.method != "GET" and "/leases" not in request.path:
                await asyncio.sleep(self.slow)
            status = fault.status if fault else response.status
            kept = {name: value for name, value in response.headers.items() if name.lower() not in HOP}
            return _answer(fault) if fault else web.Response(status=status, body=body, headers=kept)
        finally:
            agent = request.headers.get("User-Agent", "")
            self.calls.append(Call(at, agent, request.method, request.path, status))

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        async with self._forward(request) as response:
            answer = web.StreamResponse(status=response.status, headers={"Content-Type": "application/json"})
            await answer.prepare(request)
            told: list[bytes] = []
            async for line in response.content:
                told.append(line)
                await answer.write(line)
                if self._chance.random() < self.replay:
                    again = told[-self._chance.randint(1, 12) :]
                    self.replayed += len(again)
                    await answer.write(b"".join(again))
            return answer

    def _forward(self, request: web.Request) -> Any:
        headers = {name: value for name, value in request.headers.items() if name.lower() not in HOP}
        headers["Accept-Encoding"] = "identity"  # the API server packs long lists, and who reads here cannot tell
        data = request.content if request.can_read_body else None
        return self._session.request(request.method, self._base + request.path_qs, headers=headers, data=data)


def _answer(fault: Fault) -> web.Response:
    body = {"kind": "Status", "status": "Failure", "code": fault.status, "message": "a fault that a test made"}
    headers = {"Retry-After": "1"} if fault.status == 429 else {}
    return web.json_response(body, status=fault.status, headers=headers)
