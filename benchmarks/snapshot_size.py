"""What a snapshot of many endpoints weighs, and what it costs the operator and a gateway.

uv run python benchmarks/snapshot_size.py --endpoints 5000
"""

from __future__ import annotations

import argparse
import random
import statistics
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from fanfold.contracts.components import ROUTED
from fanfold.contracts.resources import HashRingSpec
from fanfold.contracts.ring import Ring
from fanfold.contracts.snapshot import SNAPSHOT_KEY, decode
from fanfold_operator.ring.slots import Endpoint
from fanfold_operator.ring.snapshot import Memory, advance, recall

LIMIT: Final = 1 << 20
ROUNDS: Final = 15
_CHANCE: Final = random.Random(7)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--endpoints", type=int, default=5000, help="endpoints of all services together (default 5000)")
    count = parser.parse_args().endpoints
    for family, address in (("IPv4", ipv4), ("IPv6", ipv6)):
        measure(family, address, count)


def ipv4() -> str:
    return "10.{}.{}.{}:8000".format(*(_CHANCE.randrange(100, 256) for _ in range(3)))


def ipv6() -> str:
    return "[2001:db8:85a3:{:x}:{:x}:8a2e:370:{:x}]:8000".format(*(_CHANCE.randrange(4096, 65536) for _ in range(3)))


def measure(family: str, address: Callable[[], str], count: int) -> None:
    """One replica is replaced each round, as a rollout does."""
    pods = {name: sorted({address() for _ in range(count // len(ROUTED))}) for name in ROUTED}
    spec = HashRingSpec(platform="demo", services=list(ROUTED))
    wanted = {name: len(addresses) for name, addresses in pods.items()}

    def computed(data: dict[str, str] | None) -> dict[str, str]:
        endpoints = {name: [Endpoint(one, ready=True) for one in addresses] for name, addresses in pods.items()}
        memory = recall({"data": data}) if data else Memory(None, {})
        ring = advance(memory, platform="default/demo", spec=spec, endpoints=endpoints, wanted=wanted, least_epoch=0)
        return ring.data()

    data = computed(None)
    times = []
    for _ in range(ROUNDS):
        pods["feed"][_CHANCE.randrange(len(pods["feed"]))] = address()
        spent, data = timed(partial(computed, data))
        times.append(spent)
    size = sum(map(len, data.values()))
    decoding, snapshot = timed(lambda: decode(data[SNAPSHOT_KEY]))
    first, _ = timed(lambda: [Ring(slots) for slots in snapshot.services.values()])
    stall = longest_stall(lambda: [Ring(slots) for slots in snapshot.services.values()])
    again, _ = timed(lambda: Ring(snapshot.services["feed"]))
    print(f"{family}, {sum(wanted.values())} endpoints")
    print(f"  size                     {size / 1024:.0f} KiB, {size / LIMIT:.0%} of what a ConfigMap may hold")
    print(
        f"  operator, a change       {statistics.median(times):.1f} ms, at most {max(times):.1f} (read, slots, write)"
    )
    print(f"  gateway, decoded         {decoding:.1f} ms")
    print(f"  gateway, all rings       {first:.0f} ms in a thread; the longest it held others up: {stall:.1f} ms")
    print(f"  gateway, one ring again  {again:.0f} ms")


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Milliseconds, and what came of it."""
    started = time.perf_counter()
    result = work()
    return (time.perf_counter() - started) * 1000, result


def longest_stall(work: Callable[[], Any]) -> float:
    """Most milliseconds that this thread could not run while another did the work."""
    thread = threading.Thread(target=work)
    thread.start()
    longest, before = 0.0, time.perf_counter()
    while thread.is_alive():
        time.sleep(0.0005)
        now = time.perf_counter()
        longest, before = max(longest, now - before), now
    return longest * 1000


if __name__ == "__main__":
    main()
