"""The hash ring beside rendezvous hashing and Maglev: a lookup, a rebuild, balance, and who moves when a slot goes.

All three in Python with the same hash, in CPU time of one thread. A rebuild counts although it is off the hot path: it
holds the interpreter's lock. ``moved`` is the share of keys that changed their slot, over the share that had to.

    uv run python benchmarks/ring_choice.py --slots 3 10 50 200
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import xxhash
from common.results import save, say

from fanfold.contracts import ring
from fanfold.contracts.ring import Ring
from fanfold.contracts.snapshot import Slot

_CHANCE: Final = random.Random(7)
KEYS: Final = [_CHANCE.getrandbits(64) for _ in range(20_000)]
ROUNDS: Final = 5
TABLE: Final = 65_537
"""Maglev's smaller table (Eisenbud et al., 2016, section 3.4), a prime over a hundred times as large as 200 slots."""


class Hashing(Protocol):
    def owner(self, key: int) -> int: ...


class Rendezvous:
    """Highest random weight (Thaler and Ravishankar, 1998): no table, each slot is asked."""

    def __init__(self, slots: Sequence[Slot]) -> None:
        self._seeds = [xxhash.xxh3_64_intdigest(slot.slot.encode()) for slot in slots]

    def owner(self, key: int) -> int:
        data = key.to_bytes(8, "big")
        digest = xxhash.xxh3_64_intdigest
        scores = [digest(data, seed) for seed in self._seeds]
        return scores.index(max(scores))


class Maglev:
    """A table that slots fill in turns, each in an order of its own."""

    def __init__(self, slots: Sequence[Slot]) -> None:
        offsets = [xxhash.xxh3_64_intdigest(slot.slot.encode(), 1) % TABLE for slot in slots]
        skips = [xxhash.xxh3_64_intdigest(slot.slot.encode(), 2) % (TABLE - 1) + 1 for slot in slots]
        table = [-1] * TABLE
        left = TABLE
        while left:
            for index, skip in enumerate(skips):
                place = offsets[index]
                while table[place] >= 0:
                    place = (place + skip) % TABLE
                table[place] = index
                offsets[index] = (place + skip) % TABLE
                left -= 1
                if not left:
                    break
        self._table = table

    def owner(self, key: int) -> int:
        return self._table[key % TABLE]


Make = Callable[[Sequence[Slot]], Hashing]
KINDS: Final[dict[str, Make]] = {"ring": Ring, "rendezvous": Rendezvous, "maglev": Maglev}


def slots(count: int) -> list[Slot]:
    """Sorted as the ring sorts them, so that indexes mean the same in all three."""
    return sorted((Slot(f"feed-{number}", f"10.0.0.{number}:8000") for number in range(count)), key=lambda s: s.slot)


def measure(make: Make, count: int) -> dict[str, float]:
    members = slots(count)
    builds, lookups = [], []
    for _ in range(ROUNDS):
        ring._positions.cache_clear()  # noqa: SLF001 - a ring's first build is compared, not its next
        began = time.thread_time()
        hashing = make(members)
        builds.append(time.thread_time() - began)
        owner, keys = hashing.owner, KEYS
        began = time.thread_time()
        for key in keys:
            owner(key)
        lookups.append((time.thread_time() - began) / len(keys))
    before = [hashing.owner(key) for key in KEYS]
    gone = count // 2
    smaller = make([slot for index, slot in enumerate(members) if index != gone])
    after = [index + (index >= gone) for index in (smaller.owner(key) for key in KEYS)]
    moved = sum(old != new for old, new in zip(before, after, strict=True))
    had_to = sum(old == gone for old in before)
    loads = Counter(before)
    return {
        "lookup_ns": round(statistics.median(lookups) * 1e9),
        "build_ms": round(statistics.median(builds) * 1e3, 2),
        "largest_share": round(max(loads.values()) * count / len(KEYS), 2),
        "moved": round(moved / had_to, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slots", type=int, nargs="+", default=[3, 10, 50, 200], help="(default 3 10 50 200)")
    figures: dict[str, Any] = {}
    for count in parser.parse_args().slots:
        figures[str(count)] = {name: measure(make, count) for name, make in KINDS.items()}
        say(f"{count} slots")
        for name, row in figures[str(count)].items():
            say(f"  {name:11}" + "".join(f"  {key} {value:>8}" for key, value in row.items()))
    file = save("ring_choice", figures)
    print(json.dumps(figures, indent=1))
    say(f"saved to {file}")


if __name__ == "__main__":
    main()
