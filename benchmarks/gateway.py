"""The gateway beside proxies people would use instead: requests per second of a core, latency at a fixed rate.

    uv run python benchmarks/gateway.py

Every peer passes the same checks first: tokens that do not count are refused (where it verifies any), an identity sent
from outside does not arrive, a user stays at one slot. Then rounds, one peer after another, everything on one core, as
fast as answers come; requests per core-second are answers over CPU seconds that the kernel counted for the proxy's
processes. Then latency at a fixed rate, proxy and generator on different cores.
"""

from __future__ import annotations

import argparse
import base64
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import jwt
from common.house import House, get
from common.load import Outcome, closed, paced
from common.processes import Workshop, cpu_seconds, here, listens
from common.results import save, say, summary
from peers import configs
from peers.install import PeerError, envoy, haproxy, install, library_path, nginx, python, versions

from fanfold.contracts import headers
from fanfold.contracts.ids import new_id
from fanfold.contracts.snapshot import Slot
from fanfold.dev.process import free_ports

BODY_BYTES: Final = 896
SLOTS: Final = 3
CONNECTIONS: Final = 32
PATH: Final = "/v1/feed"
ONE_CORE: Final = [0]
OTHER_CORE: Final = [1]
NOTES: Final = (
    "Envoy keeps verified tokens in its cache, as Fanfold does.",
    "HAProxy verifies HS256 on each request, its cheapest signature (it has no EdDSA); nginx verifies nothing.",
    "Fanfold runs with its defaults: limits of users and slots, outliers, retry budget, tracing.",
)


@dataclass
class Peer:
    """A running proxy."""

    name: str
    title: str
    port: int
    pid: int
    requests: list[bytes]
    verifies: bool = True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=2000, help="each with a token of their own (default 2000)")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds (default 5)")
    parser.add_argument("--seconds", type=float, default=4, help="of one peer in one round (default 4)")
    parser.add_argument("--rate", type=float, default=1000, help="requests a second for the latencies (default 1000)")
    parser.add_argument("--only", nargs="*", help="names of peers, for a quick look")
    options = parser.parse_args()
    install()
    with Workshop() as shop:
        peers = [peer for peer in start(shop, options.users) if not options.only or peer.name in options.only]
        for peer in peers:
            check(peer)
        say("every peer does what it is measured for")
        figures = measure(peers, options)
    notes = [
        f"{SLOTS} upstreams (nginx), {BODY_BYTES} B answers, {options.users} users' tokens, {CONNECTIONS} connections.",
        *NOTES,
    ]
    say(str(save("gateway", {"versions": versions(), "peers": figures}, notes=notes)))


def start(shop: Workshop, users: int) -> list[Peer]:
    """All upstreams and proxies, idle."""
    slots = free_ports(SLOTS)
    run_nginx(shop, "upstream", configs.upstream(slots, str(folder(shop, "upstream")), BODY_BYTES), slots[0])
    house = House(shop)
    house.start_valkey()
    house.locate({"feed": [Slot(f"feed-{number}", f"127.0.0.1:{port}") for number, port in enumerate(slots)]})
    ids = [new_id() for _ in range(users)]
    signed = [get(PATH, house.token(one)) for one in ids]
    ours = house.start("gateway", cores=ONE_CORE)
    fastapi, envoy_port, envoy_admin, haproxy_port, haproxy_stats, nginx_port = free_ports(6)
    jwks = (house.secrets / "token_jwks").read_text()
    peers = [Peer("fanfold", "Fanfold", ours.port, ours.pid, signed)]

    env = {"PORT": str(fastapi), "JWKS": jwks, "SLOTS": ",".join(f"127.0.0.1:{port}" for port in slots)}
    program = str(Path(configs.__file__).with_name("fastapi_gateway.py"))
    child = shop.start("fastapi", [str(python()), program], ready=listens(fastapi), env=env, cores=ONE_CORE)
    peers.append(Peer("fastapi", "FastAPI + aiohttp", fastapi, child.pid, signed))

    file = folder(shop, "envoy") / "envoy.json"
    file.write_text(configs.envoy(envoy_port, envoy_admin, slots, jwks, 2 * users))
    command = [str(envoy()), "-c", str(file), "--concurrency", "1", "--log-level", "warning", "--use-dynamic-base-id"]
    child = shop.start("envoy", command, ready=listens(envoy_port), cores=ONE_CORE)
    peers.append(Peer("envoy", "Envoy", envoy_port, child.pid, signed))

    secret = secrets.token_hex(32)
    file = folder(shop, "haproxy") / "haproxy.cfg"
    file.write_text(configs.haproxy(haproxy_port, haproxy_stats, slots, secret))
    command = [str(haproxy()), "-db", "-f", str(file)]
    child = shop.start("haproxy", command, ready=listens(haproxy_port), env=library_path(), cores=ONE_CORE)
    symmetric = [get(PATH, symmetric_token(house, str(one), secret)) for one in ids]
    peers.append(Peer("haproxy", "HAProxy", haproxy_port, child.pid, symmetric))

    config = configs.nginx(nginx_port, slots, str(folder(shop, "nginx")))
    pid = run_nginx(shop, "nginx", config, nginx_port)
    peers.append(Peer("nginx", "nginx, without tokens", nginx_port, pid, signed, verifies=False))
    return peers


def folder(shop: Workshop, name: str) -> Path:
    made = shop.folder / name
    made.mkdir(exist_ok=True)
    return made


def run_nginx(shop: Workshop, name: str, config: str, port: int) -> int:
    file = folder(shop, name) / "nginx.conf"
    file.write_text(config)
    command = [str(nginx()), "-c", str(file), "-p", str(file.parent)]
    return shop.start(name, command, ready=listens(port), env=library_path(), cores=ONE_CORE).pid


def symmetric_token(house: House, user: str, secret: str) -> str:
    """The same claims, signed as HAProxy can check them."""
    claims = jwt.decode(house.token(new_id()), options={"verify_signature": False})
    return jwt.encode({**claims, "sub": user}, secret, algorithm="HS256")


def check(peer: Peer) -> None:
    """Whether the peer does the work.

    Raises:
        PeerError: It does not, and what.
    """
    good = authorization(peer.requests[0])
    with httpx.Client(base_url=f"http://127.0.0.1:{peer.port}") as client:

        def ask(token: str, **more: str) -> httpx.Response:
            return client.get(PATH, headers={"authorization": token, **more} if token else more)

        expect(peer, "answers", ask(good).status_code == 200)
        if peer.verifies:
            for name, token in bad_tokens(good).items():
                expect(peer, f"refuses {name}", ask(token).status_code == 401)
            header = headers.IDENTITY if peer.name == "fanfold" else "x-user-id"
            forged = ask(good, **{header: "mallory"})
            expect(peer, "drops a forged identity", "mallory" not in str(forged.headers) + forged.text)
        expect(peer, "gives ids", "x-request-id" in ask(good).headers or peer.name == "haproxy")
        places = {authorization(one): ask(authorization(one)).headers["x-slot"] for one in peer.requests[:60]}
        expect(peer, "uses every slot", len(set(places.values())) == SLOTS)
        again = {token: ask(token).headers["x-slot"] for token in places}
        expect(peer, "keeps users where they are", again == places)


def expect(peer: Peer, what: str, holds: bool) -> None:  # noqa: FBT001 - reads as a sentence
    if not holds:
        raise PeerError(f"{peer.name}: it should be one that {what}")


def authorization(request: bytes) -> str:
    return request.split(b"Authorization: ")[1].split(b"\r\n")[0].decode()


def bad_tokens(good: str) -> dict[str, str]:
    """Tokens that count nowhere, by what is wrong with them."""
    head, claims, signature = good.removeprefix("Bearer ").split(".")
    none = base64.urlsafe_b64encode(json.dumps({"alg": "none", "typ": "JWT"}).encode()).rstrip(b"=").decode()
    other = jwt.decode(good.removeprefix("Bearer "), options={"verify_signature": False})
    swapped = base64.urlsafe_b64encode(json.dumps({**other, "sub": str(new_id())}).encode()).rstrip(b"=").decode()
    return {
        "no token": "",
        "garbage": "Bearer garbage",
        "alg=none": f"Bearer {none}.{claims}.",
        "claims of another": f"Bearer {head}.{swapped}.{signature}",
    }


def measure(peers: Sequence[Peer], options: argparse.Namespace) -> dict[str, Any]:
    """Rounds of all peers in turn."""
    rates: dict[str, list[float]] = {peer.name: [] for peer in peers}
    halves: dict[str, list[Outcome]] = {peer.name: [] for peer in peers}
    with here(ONE_CORE):
        for peer in peers:
            closed(peer.port, peer.requests, connections=CONNECTIONS, seconds=2)
        for number in range(options.rounds):
            for peer in peers:
                before = cpu_seconds(peer.pid)
                outcome = closed(peer.port, peer.requests, connections=CONNECTIONS, seconds=options.seconds)
                refuse_errors(peer, outcome)
                rates[peer.name].append(len(outcome.latencies) / (cpu_seconds(peer.pid) - before))
            say(f"round {number + 1}: " + ", ".join(f"{name} {values[-1]:,.0f}" for name, values in rates.items()))
    with here(OTHER_CORE):
        for number in range(options.rounds):
            for peer in peers:
                outcome = paced(peer.port, peer.requests, rate=options.rate, seconds=options.seconds)
                refuse_errors(peer, outcome)
                halves[peer.name].append(outcome)
            say(
                f"latencies {number + 1}: "
                + ", ".join(f"{name} {percentiles(values[-1])}" for name, values in halves.items())
            )
    return {
        peer.name: {
            "title": peer.title,
            "per_core_second": summary(rates[peer.name]),
            "rate": options.rate,
            "p50_ms": summary([one.percentile(0.5) for one in halves[peer.name]]),
            "p99_ms": summary([one.percentile(0.99) for one in halves[peer.name]]),
        }
        for peer in peers
    }


def percentiles(outcome: Outcome) -> str:
    return f"{outcome.percentile(0.5):.2f}/{outcome.percentile(0.99):.2f} ms"


def refuse_errors(peer: Peer, outcome: Outcome) -> None:
    if outcome.errors:
        raise PeerError(f"{peer.name} failed {outcome.errors} requests: {dict(outcome.statuses)}")


if __name__ == "__main__":
    main()
