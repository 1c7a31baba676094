"""Slots: stable places on the ring, handed from a pod to the one that replaces it, so that a rollout moves no key.

The ring hashes slot numbers, never addresses. Of one service, `assign` decides who holds which number:

- a ready endpoint keeps its number as long as it is ready;
- a newcomer inherits the number of one that left or is leaving, before any new number is made: of one whose keys are
  still with it, before one whose keys have moved;
- there are never more numbers than replicas wanted, so a rollout's surplus pod waits for the number of the pod it
  replaces instead of moving keys twice;
- an endpoint that is leaving, or has stopped being ready, keeps its number as *draining*: it finishes what it has.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fanfold.contracts.snapshot import SlotState

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One pod's traffic port. `leaving`: the pod is being terminated, whether it still serves or not."""

    address: str
    ready: bool
    leaving: bool = False

    @property
    def usable(self) -> bool:
        """Whether it may get new keys."""
        return self.ready and not self.leaving


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a number, and whether it owns keys."""

    address: str
    state: SlotState


@dataclass(frozen=True, slots=True)
class Slots:
    """Numbers of one service: those held, and those kept vacant for a replacement."""

    held: Mapping[int, Holder]
    vacant: frozenset[int] = frozenset()

    @property
    def active(self) -> frozenset[int]:
        """Numbers that own keys."""
        return frozenset(number for number, holder in self.held.items() if holder.state == "active")


EMPTY = Slots({})


def assign(previous: Slots, endpoints: Collection[Endpoint], wanted: int) -> Slots:
    """The numbers after a change.

    Args:
        previous: Numbers before.
        endpoints: All endpoints there are now, in any order, each address once.
        wanted: Replicas wanted, which bounds how many numbers are made.
    """
    live = {endpoint.address: endpoint for endpoint in endpoints}
    holders = {number: live[holder.address] for number, holder in previous.held.items() if holder.address in live}
    active = {number: endpoint.address for number, endpoint in holders.items() if endpoint.usable}
    draining = {number: endpoint for number, endpoint in holders.items() if not endpoint.usable}
    vacant = (set(previous.held) | previous.vacant) - set(holders)
    taken = set(active.values())
    newcomers = sorted(address for address, endpoint in live.items() if endpoint.usable and address not in taken)

    leaving = {number for number, endpoint in draining.items() if endpoint.leaving}
    unready = set(draining) - leaving
    # Numbers whose keys have not moved yet come first: an heir keeps them where they are.
    free = sorted(vacant | leaving, key=lambda number: (number not in previous.active, number in leaving, number))
    room = max(0, wanted - len(active))
    fresh = _unused(set(active) | set(free) | unready, max(0, room - len(free) - len(unready)))
    active |= dict(zip([*free, *fresh, *sorted(unready)], newcomers[:room], strict=False))

    held = {number: Holder(address, "active") for number, address in active.items()}
    held |= {number: Holder(one.address, "draining") for number, one in draining.items() if number not in active}
    spare = max(0, wanted - len(held))
    return Slots(dict(sorted(held.items())), frozenset(sorted(vacant - set(active))[:spare]))


def _unused(used: set[int], count: int) -> list[int]:
    """The `count` lowest numbers not in use."""
    numbers: list[int] = []
    number = 0
    while len(numbers) < count:
        if number not in used:
            numbers.append(number)
        number += 1
    return numbers
