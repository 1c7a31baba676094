"""The consistent hash ring of one service: pure, and equal in every process that reads the same snapshot.

Each slot owns ``virtual_nodes x weight`` positions on a circle of 64-bit hashes; a key belongs to the slot of the next
position clockwise (Karger et al., 1997). Bounded load (Mirrokni, Thorup and Zadimoghaddam, "Consistent Hashing with
Bounded Loads", 2016) lets a key pass on when its slot holds more than ``bounded_load`` times its fair share.

Positions depend on slot names alone, never on addresses, on the order of the list or on Python's hash seed.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import xxhash

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from fanfold.contracts.snapshot import Slot

SPACE: Final = 1 << 64
"""Positions on the circle."""
SECTOR_SHIFT: Final = 54
SECTORS: Final = SPACE >> SECTOR_SHIFT
"""The circle is sorted in so many parts: one long sort would hold the interpreter's lock, and with it all requests, for
as long as it takes, on whatever thread it runs."""
VIRTUAL_NODES: Final = 160
BOUNDED_LOAD: Final = 1.25
MOST_WALKED: Final = 16


def key_of(user_id: bytes) -> int:
    """Position of a key (16 raw bytes of a user id) on the circle."""
    return xxhash.xxh3_64_intdigest(user_id)


@lru_cache(maxsize=1 << 14)
def _positions(name: str, count: int) -> tuple[int, ...]:
    """Positions of a slot. Remembered: rings come and go, and most of their slots stay."""
    return tuple(xxhash.xxh3_64_intdigest(f"{name}#{number}".encode()) for number in range(count))


class Ring:
    """Where keys live among the slots of one service.

    Attributes:
        names: Slots on the ring, sorted; all answers are indexes into it.

    Args:
        slots: As the snapshot lists them. Draining slots get no keys, unless all of them are draining.
        virtual_nodes: Positions per unit of weight.
        bounded_load: Most load of a slot as a multiple of its fair share; above 1.

    Raises:
        ValueError: ``bounded_load`` leaves no room, or a weight or ``virtual_nodes`` is below 1.
    """

    __slots__ = ("_bound", "_owners", "_positions", "_shares", "names")

    def __init__(
        self, slots: Sequence[Slot], virtual_nodes: int = VIRTUAL_NODES, bounded_load: float = BOUNDED_LOAD
    ) -> None:
        if bounded_load <= 1:
            raise ValueError(f"bounded_load must be above 1, not {bounded_load}: slots need room to take an overflow")
        if virtual_nodes < 1 or any(slot.weight < 1 for slot in slots):
            raise ValueError("virtual_nodes and every weight must be at least 1")
        members = sorted(eligible(slots), key=lambda slot: slot.slot)
        self.names = tuple(slot.slot for slot in members)
        self._bound = bounded_load
        total = sum(slot.weight for slot in members)
        self._shares = tuple(slot.weight / total for slot in members)
        sectors: list[list[tuple[int, int]]] = [[] for _ in range(SECTORS)]
        for index, slot in enumerate(members):
            for position in _positions(slot.slot, virtual_nodes * slot.weight):
                sectors[position >> SECTOR_SHIFT].append((position, index))
        self._positions: list[int] = []
        self._owners: list[int] = []
        for sector in sectors:
            sector.sort()
            self._positions += [position for position, _ in sector]
            self._owners += [index for _, index in sector]
        # One past the end wraps to the first, so that a lookup needs no modulo.
        self._owners += self._owners[:1]

    def owner(self, key: int) -> int:
        """The slot that ``key`` belongs to.

        Raises:
            IndexError: The ring is empty.
        """
        return self._owners[bisect_left(self._positions, key)]

    def virtual_node(self, key: int) -> tuple[int, int]:
        """The virtual node that ``key`` belongs to: its position, and its number among its slot's, from 0.

        Raises:
            IndexError: The ring is empty.
        """
        name = self.names[self.owner(key)]
        position = self._positions[bisect_left(self._positions, key) % len(self._positions)]
        numbers = (n for n in itertools.count() if xxhash.xxh3_64_intdigest(f"{name}#{n}".encode()) == position)
        return position, next(numbers)

    def spans(self) -> tuple[int, ...]:
        """How many of the `SPACE` positions belong to each slot, in the order of `names`: its share of all keys."""
        spans = [0] * len(self.names)
        before = self._positions[-1] - SPACE if self._positions else 0
        for position, owner in zip(self._positions, self._owners, strict=False):
            spans[owner] += position - before
            before = position
        return tuple(spans)

    def walk(self, key: int) -> Iterator[int]:
        """Every slot once, in the order in which ``key`` would fall to them."""
        start = bisect_left(self._positions, key)
        count = len(self._positions)
        seen: set[int] = set()
        for step in range(count):
            owner = self._owners[(start + step) % count]
            if owner not in seen:
                seen.add(owner)
                yield owner
                if len(seen) == len(self.names):
                    return

    def capacity(self, index: int, total: int, floor: int = 0) -> int:
        """Load at which a slot takes no more, when ``total`` is on all slots and one comes; never below ``floor``."""
        return max(floor, math.ceil(self._bound * (total + 1) * self._shares[index]))

    def place(
        self, key: int, load_of: Callable[[int], int | None], total: int, *, floor: int = 0, most: int = MOST_WALKED
    ) -> int | None:
        """The first slot of `walk` that may take one more.

        Args:
            key: Position of the key.
            load_of: Current load of the slot at an index of `names`; None excludes it, e.g. because it just failed.
            total: Load of all slots together, as it was lately: it is not summed up here, so that one placement costs a
                few steps however many slots there are.
            floor: A slot loaded less than this always takes its keys: at a handful of requests the mean says nothing,
                and a key that leaves home meets a cold cache.
            most: Slots looked at; with a bound of 1.25 one of five has room, so that sixteen are next to never full.

        Returns:
            The slot's index; None when there is no room at so many, or none that is not excluded. When all slots were
            looked at and only some above the bound are left (those with room are excluded), the first of these.
        """
        fallback: int | None = None
        for index in itertools.islice(self.walk(key), most):
            load = load_of(index)
            if load is None:
                continue
            if load < self.capacity(index, total, floor):
                return index
            if fallback is None:
                fallback = index
        return fallback if len(self.names) <= most else None


def eligible(slots: Sequence[Slot]) -> list[Slot]:
    """Slots that take new keys: the active ones, or all when none is active."""
    return [slot for slot in slots if slot.state == "active"] or list(slots)
