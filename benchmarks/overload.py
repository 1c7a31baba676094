"""What the gateway does with more than its services can take: goodput, latency of what is accepted, share refused.

    uv run python benchmarks/overload.py

Two slots of known capacity (so many at once, so long each, the rest in line, as a service without any limit of its own
has it). Their capacity is measured first, then an open model offers shares of it: with the gateway's adaptive limits,
and without any. Goodput are answers within a second: later ones nobody waits for.
"""

from __future__ import annotations

import argparse
from typing import Any, Final

from common import slot
from common.house import Component, House, get
from common.load import Outcome, closed, paced
from common.processes import PYTHON, Workshop, listens
from common.results import save, say

from fanfold.contracts.ids import new_id
from fanfold.contracts.snapshot import Slot
from fanfold.dev.process import free_ports

SLOTS: Final = 2
AT_ONCE: Final = 4
MILLISECONDS: Final = 40.0
LOADS: Final = (0.5, 0.8, 1.0, 1.5, 2.0, 3.0)
USERS: Final = 500
CONNECTIONS: Final = 1500
PATIENCE_SECONDS: Final = 1.0
SETTLE_SECONDS: Final = 3.0
"""At the beginning of each load, not judged: limits find their place within."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=8, help=f"of each load, {SETTLE_SECONDS:.0f} more to settle")
    options = parser.parse_args()
    with Workshop() as shop:
        house = House(shop)
        house.start_valkey()
        slots = []
        for name, port in zip((f"feed-{number}" for number in range(SLOTS)), free_ports(SLOTS), strict=True):
            command = [PYTHON, str(slot.__file__), name, str(port), str(MILLISECONDS), str(AT_ONCE)]
            shop.start(name, command, ready=listens(port))
            slots.append(Slot(name, f"127.0.0.1:{port}"))
        house.locate({"feed": slots})
        gateways = {
            "adaptive": house.start("gateway", instance="adaptive"),
            "unlimited": house.start("gateway", instance="unlimited", target_seconds=0, max_in_flight_per_slot=100_000),
        }
        requests = [get("/v1/feed", house.token(new_id())) for _ in range(USERS)]
        capacity = closed(gateways["adaptive"].port, requests, connections=4 * SLOTS * AT_ONCE, seconds=5).rate
        say(f"capacity {capacity:.0f}/s")
        figures: dict[str, Any] = {"capacity": capacity, "patience_seconds": PATIENCE_SECONDS}
        for name, gateway in gateways.items():
            figures[name] = []
            for load in LOADS:
                row = offer(gateway, requests, load * capacity, options.seconds)
                figures[name].append({"load": load, **row})
                say(f"{name} {load:.1f}x: " + ", ".join(f"{key} {value:.3g}" for key, value in row.items()))
    notes = [
        f"{SLOTS} slots, {AT_ONCE} requests at once each, {MILLISECONDS:.0f} ms a request; {USERS} users.",
        f"Goodput: answers with 200 within {PATIENCE_SECONDS:.0f} s of the moment their request was due.",
    ]
    say(f"goodput kept past capacity: {100 * kept(figures['adaptive']):.0f} % of its peak")
    say(str(save("overload", figures, notes=notes)))


def offer(gateway: Component, requests: list[bytes], rate: float, seconds: float) -> dict[str, float]:
    """One load, judged once it has settled."""
    whole = SETTLE_SECONDS + seconds
    outcome = paced(gateway.port, requests, rate=rate, seconds=whole, connections=CONNECTIONS)
    return judge(outcome, SETTLE_SECONDS, whole)


def kept(rows: list[dict[str, float]]) -> float:
    """The least goodput past capacity, as a share of the best at any load."""
    return min(row["goodput"] for row in rows if row["load"] > 1) / max(row["goodput"] for row in rows)


def judge(outcome: Outcome, begin: float, end: float) -> dict[str, float]:
    """Of the requests that were due between ``begin`` and ``end`` (seconds from the start)."""
    due = [
        (latency, status)
        for latency, finished, status in zip(outcome.latencies, outcome.finished, outcome.codes, strict=True)
        if begin <= finished - latency < end
    ]
    accepted = sorted(latency for latency, status in due if status == 200)
    refused = sum(1 for _, status in due if status in (429, 503))
    return {
        "offered": len(due) / (end - begin),
        "goodput": sum(1 for latency in accepted if latency <= PATIENCE_SECONDS) / (end - begin),
        "p50_ms": 1000 * accepted[len(accepted) // 2] if accepted else 0.0,
        "p99_ms": 1000 * accepted[int(len(accepted) * 0.99)] if accepted else 0.0,
        "shed": refused / len(due) if due else 0.0,
        "failed": len(due) - len(accepted) - refused + outcome.statuses[-1],
    }


if __name__ == "__main__":
    main()
