"""Warm feed reads by many users, from the client's socket to Valkey and back, with what each hop costs.

    uv run python benchmarks/feed_read.py

One gateway, one feed service, one Valkey, and the generator beside them share the machine. The same reads straight from
Valkey by the same client are the limit; a feed as a first version would have it (FastAPI, SQLModel, SQL for each read)
is where one comes from. Posts have one photo in all twelve variants, as the image worker makes them.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import secrets
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import uvloop
from common.brute import fill
from common.feeds import Seeded, seed
from common.house import House, get, stopping
from common.load import closed, paced
from common.processes import PYTHON, Workshop, listens, spending
from common.results import save, say, summary
from peers import brute_force
from peers.install import PeerError

from fanfold.contracts import keys
from fanfold.contracts.snapshot import Slot
from fanfold.dev.postgres import Postgres
from fanfold.dev.process import free_ports
from fanfold.image.pictures import WIDTHS
from fanfold.kit.valkey import Valkey, packed

LENGTH: Final = 20
CONNECTIONS: Final = 64
READERS: Final = 32
"""Reads under way at once straight from Valkey."""
BRUTE_USERS: Final = 1000
PATH: Final = f"/v1/feed?limit={LENGTH}"


@dataclass
class Round:
    """One way of reading, measured for some seconds: reads a second, CPU microseconds a read by process."""

    rate: float
    budget: dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=10_000, help="readers, each with a feed (default 10,000)")
    parser.add_argument("--posts", type=int, default=8_000, help="posts in their feeds (default 8,000)")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds (default 5)")
    parser.add_argument("--seconds", type=float, default=4, help="of each way in one round (default 4)")
    options = parser.parse_args()
    with Workshop() as shop:
        figures, size = Bench(shop, options).measure()
    notes = [
        f"{options.users} readers in random order, {options.posts} posts, {LENGTH} posts a feed: {size} B an answer.",
        "One gateway, one feed service, one Valkey; the generator is one more process of the same machine.",
        "Straight from Valkey: the same two round trips by the same client, answers parsed and thrown away.",
    ]
    say(str(save("feed_read", figures, notes=notes)))


class Bench:
    """All that is measured, running."""

    def __init__(self, shop: Workshop, options: argparse.Namespace) -> None:
        self._options = options
        chance = random.Random(1)
        house = House(shop)
        self._valkey_pid = house.start_valkey()
        self._url = house.valkey_url
        self._world = uvloop.run(
            seed(self._url, users=options.users, posts=options.posts, length=LENGTH, chance=chance)
        )
        self._feed = house.start("feed")
        house.locate({"feed": [Slot("feed-0", f"127.0.0.1:{self._feed.port}")]})
        self._gateway = house.start("gateway")
        self._requests = [get(PATH, house.token(user)) for user in self._world.users]
        chance.shuffle(self._requests)
        self._start_brute(shop, house)
        say("started and filled")

    def measure(self) -> tuple[dict[str, Any], int]:
        """Rounds of the three ways in turn, then latencies at half the rate; the size of an answer."""
        size = self._check()
        rounds: dict[str, list[Round]] = {"valkey": [], "fanfold": [], "brute": []}
        closed(self._gateway.port, self._requests, connections=CONNECTIONS, seconds=max(6, self._options.seconds))
        for number in range(self._options.rounds):
            rounds["valkey"].append(self._straight())
            rounds["fanfold"].append(self._through(self._gateway.port, self._requests, self._hops()))
            rounds["brute"].append(self._through(self._brute_port, self._brute_requests, self._brute_hops()))
            say(f"round {number + 1}: " + ", ".join(f"{name} {found[-1].rate:,.0f}" for name, found in rounds.items()))
        figures: dict[str, Any] = {name: _figures(found) for name, found in rounds.items()}
        half = figures["fanfold"]["rate"]["median"] / 2
        calm = [
            paced(self._gateway.port, self._requests, rate=half, seconds=self._options.seconds)
            for _ in range(self._options.rounds)
        ]
        figures["half_load"] = {
            "rate": half,
            "p50_ms": summary([one.percentile(0.5) for one in calm]),
            "p99_ms": summary([one.percentile(0.99) for one in calm]),
        }
        return figures, size

    def _check(self) -> int:
        """Both feeds are whole: the size of ours."""
        sizes = {}
        for name, port, request in (
            ("fanfold", self._gateway.port, self._requests[0]),
            ("brute", self._brute_port, self._brute_requests[0]),
        ):
            token = request.split(b"Authorization: ")[1].split(b"\r\n")[0].decode()
            answer = httpx.get(f"http://127.0.0.1:{port}{PATH}", headers={"authorization": token}, timeout=10)
            answer.raise_for_status()
            items = answer.json()["items"]
            ids = [item["id"] for item in items]
            if (
                len(items) != LENGTH
                or ids != sorted(ids, reverse=True)
                or items[0]["images"][0]["variants"]["widths"] != list(WIDTHS)
            ):
                raise PeerError(f"{name} gives no whole feed: {answer.text[:300]}")
            sizes[name] = len(answer.content)
        return sizes["fanfold"]

    def _hops(self) -> dict[str, int]:
        return {"gateway": self._gateway.pid, "feed": self._feed.pid, "valkey": self._valkey_pid}

    def _brute_hops(self) -> dict[str, int]:
        return {"service": self._brute_pid, "postgresql": self._postgres_pid}

    def _through(self, port: int, requests: Sequence[bytes], hops: dict[str, int]) -> Round:
        with spending(hops) as spent:
            outcome = closed(port, requests, connections=CONNECTIONS, seconds=self._options.seconds)
        if outcome.errors:
            raise PeerError(f"{outcome.errors} reads failed: {dict(outcome.statuses)}")
        spent["generator"] = outcome.generator_cpu
        return Round(outcome.rate, {name: 1e6 * one / len(outcome.latencies) for name, one in spent.items()})

    def _straight(self) -> Round:
        client = time.process_time()
        with spending({"valkey": self._valkey_pid}) as spent:
            reads = uvloop.run(read_straight(self._url, self._world, self._options.seconds))
        spent["client"] = time.process_time() - client
        return Round(reads / self._options.seconds, {name: 1e6 * one / reads for name, one in spent.items()})

    def _start_brute(self, shop: Workshop, house: House) -> None:
        postgres = Postgres(Path(shop.folder / "postgres"), secrets.token_hex(16), durable=False)
        postgres.start()
        shop.keep(stopping(postgres))
        postgres.wait()
        readers = asyncio.run(fill(postgres.url, users=BRUTE_USERS, posts=self._options.posts, chance=random.Random(3)))
        (self._brute_port,) = free_ports(1)
        env = {
            "PORT": str(self._brute_port),
            "DATABASE_URL": postgres.url,
            "JWKS": (house.secrets / "token_jwks").read_text(),
        }
        command = [PYTHON, str(brute_force.__file__)]
        self._brute_pid = shop.start("brute", command, ready=listens(self._brute_port), env=env).pid
        self._postgres_pid = postgres.process.pid
        self._brute_requests = [get(PATH, house.token(reader)) for reader in readers]


async def read_straight(url: str, world: Seeded, seconds: float) -> int:
    """What the feed service asks Valkey for, and nothing else: reads done within ``seconds``."""
    valkey = Valkey(url)
    done: Counter[str] = Counter()
    until = time.perf_counter() + seconds

    async def reader(number: int) -> None:
        chance = random.Random(number)
        while time.perf_counter() < until:
            user = chance.choice(world.users)
            members = (await valkey.execute("LRANGE", keys.feed(user), 0, -1))[1:]
            posts = [member[:16] for member in members]
            authors = list({member[16:] for member in members})
            await valkey.all(
                (
                    packed((b"MGET",), keys.POST, posts),
                    packed((b"MGET",), keys.USER, authors),
                    packed((b"MGET",), keys.COUNTS, posts),
                    packed((b"ZMSCORE", keys.liked(user), keys.COMPLETE), b"", posts),
                )
            )
            done["reads"] += 1

    await asyncio.gather(*(reader(number) for number in range(READERS)))
    await valkey.close()
    return done["reads"]


def _figures(rounds: Sequence[Round]) -> dict[str, Any]:
    return {
        "rate": summary([one.rate for one in rounds]),
        "budget_us": {name: summary([one.budget[name] for one in rounds]) for name in rounds[0].budget},
    }


if __name__ == "__main__":
    main()
