"""What a request costs the gateway's own code, and what each feature adds to it.

    uv run python benchmarks/gateway_features.py

The gateway's real connections on transports in memory: no kernel, no other process, so that a microsecond can be seen
that is lost in the spread of a whole run. A request is read, admitted, put on the ring and sent; its answer is read and
written. Features are switched on or off one at a time; their rounds take turns, and a round counts by its least time of
several, for whatever else the machine does only adds. The floor is the same two messages parsed and joined, by the same
parser, with nothing decided about them: what a proxy in Python cannot do without.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast

import httptools
from common.house import House, get
from common.processes import PYTHON, Workshop, listens
from common.results import save, say, summary

from fanfold.contracts.ids import new_id
from fanfold.contracts.snapshot import Slot, Snapshot
from fanfold.dev.process import free_ports
from fanfold.gateway.balancer import Balancer
from fanfold.gateway.context import Context
from fanfold.gateway.cors import Cors
from fanfold.gateway.downstream import Downstream
from fanfold.gateway.limits import limits_of
from fanfold.gateway.messages import Request
from fanfold.gateway.metrics import GatewayStats
from fanfold.gateway.routes import RouteTable, public_routes
from fanfold.gateway.settings import GatewaySettings
from fanfold.gateway.spans import spans_of
from fanfold.gateway.tokens import KeySet, Tokens
from fanfold.gateway.upstream import UpstreamConnection
from fanfold.kit.identity import IdentitySigner
from fanfold.kit.logging import configure
from fanfold.kit.settings import Settings

PATH: Final = "/v1/feed?limit=20"
BODY: Final = b"x" * 896
ANSWER: Final = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncache-control: private, no-store\r\n"
    b"x-request-id: 0123456789abcdef0123456789abcdef\r\ncontent-length: %d\r\n\r\n%b" % (len(BODY), BODY)
)
SLOTS: Final = 3
TURNS: Final = 5
"""A round counts by the least of so many."""
COLLECTOR: Final = "of traces"
"""Stands for the address of one that is started here."""
FEATURES: Final[dict[str, dict[str, Any]]] = {
    "with its defaults": {},
    "without limits of users": {"user_rate": 0},
    "without a log of each hundredth answer": {"access_log_sample": 0},
    "limits of addresses too": {"address_rate": 1e9, "address_burst": 1_000_000},
    "behind a trusted load balancer": {"trusted_proxies": ["127.0.0.0/8"]},
    "pages of other sites may call": {"cors_origins": ["https://app.example"]},
    "hedged feed reads": {"hedge_seconds": 1.0},
    "each hundredth request traced": {"otlp_endpoint": COLLECTOR, "trace_sample": 0.01},
    "every request traced": {"otlp_endpoint": COLLECTOR, "trace_sample": 1.0},
}


class Wire:
    """A transport whose writes are kept, or told to ``written``."""

    def __init__(self, written: Callable[[bytes], None]) -> None:
        self.write = written

    def get_extra_info(self, name: str) -> Any:
        return ("127.0.0.1", 50_000) if name == "peername" else None

    def set_write_buffer_limits(self, high: int) -> None:
        """As a transport has it."""

    def is_closing(self) -> bool:
        return False


@dataclass
class Gateway:
    """One gateway in memory: clients on one side, an idle connection to every slot on the other."""

    context: Context
    client: Downstream
    busy: deque[UpstreamConnection] = field(default_factory=deque)
    answers: deque[bytes] = field(default_factory=lambda: deque(maxlen=1))

    def ask(self, request: bytes) -> None:
        """A request and its answer, as two reads."""
        self.client.data_received(request)
        self.busy.popleft().data_received(ANSWER)


class Floor:
    """Both messages parsed and joined again, nothing else."""

    def __init__(self) -> None:
        self._lines: list[bytes] = []
        self._body: list[bytes] = []
        self._request = httptools.HttpRequestParser(self)
        self._response = httptools.HttpResponseParser(self)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._lines.append(name + b": " + value + b"\r\n")

    def on_body(self, data: bytes) -> None:
        self._body.append(data)

    def ask(self, request: bytes) -> None:
        self._request.feed_data(request)
        self._joined()
        self._response.feed_data(ANSWER)
        self._joined()

    def _joined(self) -> bytes:
        message = b"".join((b"HTTP/1.1 200 OK\r\n", *self._lines, b"\r\n", *self._body))
        self._lines.clear()
        self._body.clear()
        return message


def gateway(house: House, settings: GatewaySettings) -> Gateway:
    """As `fanfold.gateway.app` builds one, without listening."""
    stats = GatewayStats()
    balancer = Balancer(settings, stats)
    slots = [Slot(f"feed-{number}", f"127.0.0.1:{1 + number}") for number in range(SLOTS)]
    snapshot = Snapshot("bench/house", 1, {"feed": slots})
    balancer.apply(snapshot, balancer.build_rings(snapshot))
    tokens = Tokens(KeySet(house.secrets / "token_jwks"), IdentitySigner((house.secrets / "identity_key").read_text()))
    tokens.reload_keys()
    context = Context(
        settings=settings,
        routes=RouteTable(public_routes(settings)),
        tokens=tokens,
        balancer=balancer,
        stats=stats,
        pages={},
        open_socket=no_sockets,
        draining=lambda: False,
        limits=limits_of(settings, stats),
        cors=Cors(settings.cors_origins) if settings.cors_origins else None,
        spans=spans_of(settings) if settings.otlp_endpoint else None,
    )
    made = Gateway(context, Downstream(context))
    made.client.connection_made(cast("asyncio.Transport", Wire(made.answers.append)))
    for _, endpoint in balancer.endpoints():
        connection = UpstreamConnection(endpoint)
        wire = Wire(lambda _, one=connection: made.busy.append(one))  # type: ignore[misc]  # the default binds it
        connection.connection_made(cast("asyncio.Transport", wire))
        endpoint.release(connection)
    return made


def no_sockets(_: Request) -> Any:
    raise AssertionError("nobody asks for one here")


def requests_of(house: House, users: int) -> list[bytes]:
    """One of each user, with what browsers' and apps' requests have besides."""
    more = "Origin: https://app.example\r\nUser-Agent: bench/1\r\nAccept-Encoding: identity\r\n"
    return [get(PATH, house.token(new_id()), more=more) for _ in range(users)]


def timed(ask: Callable[[bytes], None], requests: list[bytes]) -> float:
    """CPU microseconds a request, the least of `TURNS`."""

    def turns() -> Iterator[float]:
        for _ in range(TURNS):
            begun = time.process_time()
            for request in requests:
                ask(request)
            yield (time.process_time() - begun) / len(requests) * 1e6

    return min(turns())


async def measure(house: House, collector: str, options: argparse.Namespace) -> dict[str, Any]:
    """Microseconds by feature, the floor under its own name."""
    requests = requests_of(house, options.users)
    random.Random(1).shuffle(requests)
    base = GatewaySettings(snapshot_source="file:/none", max_connections=1)
    asked: dict[str, Callable[[bytes], None]] = {"parsed and joined, nothing decided": Floor().ask}
    async with AsyncExitStack() as stack:
        for name, changes in FEATURES.items():
            settings = {**base.model_dump(), **changes}
            if settings["otlp_endpoint"] == COLLECTOR:
                settings["otlp_endpoint"] = collector
            one = gateway(house, GatewaySettings(**settings))
            if one.context.spans is not None:
                stack.push_async_callback(one.context.spans.close)
            for request in requests:
                one.ask(request)
                assert one.answers[0].startswith(b"HTTP/1.1 200 "), one.answers[0][:200]
            asked[name] = one.ask
        rounds: dict[str, list[float]] = {name: [] for name in asked}
        for number in range(options.rounds):
            for name, ask in asked.items():
                rounds[name].append(timed(ask, requests))
                await asyncio.sleep(0)
            say(f"round {number + 1}: " + ", ".join(f"{values[-1]:.1f}" for values in rounds.values()))
    return {name: summary(values) for name, values in rounds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=1000, help="each with a token of their own (default 1000)")
    parser.add_argument("--rounds", type=int, default=7, help="of all features in turn (default 7)")
    options = parser.parse_args()
    with Workshop() as shop, Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
        configure(Settings(log_level="INFO"))
        (port,) = free_ports(1)
        program = str(Path(__file__).with_name("common") / "collector.py")
        shop.start("collector", [PYTHON, program, str(port)], ready=listens(port))
        figures = asyncio.run(measure(House(shop), f"http://127.0.0.1:{port}", options))
    notes = [
        f"A GET of {PATH} and an answer of {len(BODY)} B, {options.users} users, {SLOTS} slots, connections kept.",
        "System calls and the event loop come on top, and take more than all of this.",
    ]
    say(str(save("gateway_features", figures, notes=notes)))


if __name__ == "__main__":
    main()
