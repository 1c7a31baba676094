"""Which slot of a service takes a request: the ring for users, the less loaded of two for everybody else."""

from __future__ import annotations

import random
from time import monotonic
from typing import TYPE_CHECKING, Final

from fanfold.contracts.ring import Ring
from fanfold.gateway.concurrency import adapt
from fanfold.gateway.metrics import GatewayStats
from fanfold.gateway.outliers import Outliers
from fanfold.gateway.upstream import Endpoint
from fanfold.kit.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from collections.abc import Set as AbstractSet

    from fanfold.contracts.snapshot import Slot, Snapshot
    from fanfold.gateway.settings import GatewaySettings

LOAD_FLOOR: Final = 8
"""Requests under way at one slot before bounded load may send a key elsewhere. Below, a mean over a handful of requests
would move keys at random, each to a cold cache."""
COUNTED_AN_ASK: Final = 16
"""Slots. Between two counts of n slots at most n / 16 requests come: a hundredth of what the floor lets them have."""


class ServiceSlots:
    """The slots of one service at one epoch. Replaced as a whole, never changed."""

    __slots__ = ("_count_in", "_floor", "_in_flight", "endpoints", "members", "ring")

    def __init__(self, ring: Ring, members: dict[str, Endpoint], limit: int) -> None:
        self._floor = min(LOAD_FLOOR, limit)
        self._in_flight = 0
        self._count_in = 0
        self.ring = ring
        self.members = members
        self.endpoints = [members[name] for name in ring.names]

    def of_user(self, key: int, tried: AbstractSet[str]) -> Endpoint | None:
        """The slot that owns ``key``, or the next one with room."""
        endpoints = self.endpoints
        if not tried:
            index = self.ring.owner(key)
            endpoint = endpoints[index]
            load = endpoint.in_flight
            if endpoint.available and load < endpoint.limit:
                # The same as what follows, without a walk: its owner takes nearly every request.
                if load < self._floor:
                    return endpoint
                if load < self.ring.capacity(index, self._load(), LOAD_FLOOR):
                    return endpoint

        def load_of(index: int) -> int | None:
            endpoint = endpoints[index]
            return endpoint.in_flight if endpoint.open_to(tried) else None

        found = self.ring.place(key, load_of, self._load(), floor=LOAD_FLOOR)
        return self.least_loaded(tried) if found is None else endpoints[found]

    def least_loaded(self, tried: AbstractSet[str]) -> Endpoint | None:
        """The less loaded of two random slots (Mitzenmacher, "The Power of Two Choices", 2001)."""
        one, other = random.choice(self.endpoints), random.choice(self.endpoints)  # noqa: S311 - keeps no secret
        if not (one.open_to(tried) and other.open_to(tried)):
            choices = [endpoint for endpoint in self.endpoints if endpoint.open_to(tried)]
            if not choices:
                return None
            one, other = random.choice(choices), random.choice(choices)  # noqa: S311 - as above
        return one if one.in_flight <= other.in_flight else other

    def _load(self) -> int:
        """Requests under way at all slots, counted anew once in so many asks that an ask costs the same at any size."""
        if self._count_in <= 0:
            self._in_flight = sum(endpoint.in_flight for endpoint in self.endpoints)
            self._count_in = len(self.endpoints) // COUNTED_AN_ASK
        self._count_in -= 1
        return self._in_flight


class Balancer:
    """All services of the current snapshot."""

    def __init__(self, settings: GatewaySettings, stats: GatewayStats | None = None) -> None:
        self._settings = settings
        self._stats = stats or GatewayStats()
        self._outliers = Outliers(settings.outlier_errors, settings.outlier_seconds)
        self._services: dict[str, ServiceSlots] = {}
        self._shape: dict[str, object] = {}
        self._leaving: list[Endpoint] = []

    def choose(self, service: str, key: int | None, tried: AbstractSet[str]) -> Endpoint:
        """The slot for one try.

        Args:
            service: Name as in the snapshot.
            key: Position of the user on the ring; None for requests of nobody.
            tried: Slots that failed this request; used again only when there is no other.

        Raises:
            Unavailable: The service has no slot, or all are at their limit.
        """
        slots = self._services.get(service)
        if slots is None or not slots.endpoints:
            raise Unavailable(f"The {service} service has no replica now; try again.")
        endpoint = slots.least_loaded(tried) if key is None else slots.of_user(key, tried)
        if endpoint is None:
            # Those that failed may be tried once more when there is no other; those at their limit may not.
            spare = [endpoint for endpoint in slots.endpoints if not endpoint.full]
            if not spare:
                self._stats.shed[service] = self._stats.shed.get(service, 0) + 1
                raise Unavailable(f"The {service} service is at its limit; try again.", kind="overloaded")
            endpoint = random.choice(spare)  # noqa: S311 - spreads load, keeps no secret
        return endpoint

    def failed(self, service: str, endpoint: Endpoint) -> None:
        """A request failed at ``endpoint``."""
        slots = self._services.get(service)
        if slots is not None and self._outliers.failed(endpoint, slots.endpoints, monotonic()):
            self._stats.ejections[service] = self._stats.ejections.get(service, 0) + 1

    def apply(self, snapshot: Snapshot, rings: dict[str, Ring]) -> None:
        """Switch to ``snapshot``; ``rings`` are those of `build_rings`. Endpoints that stay keep their connections."""
        services: dict[str, ServiceSlots] = {}
        kept: set[Endpoint] = set()
        for service, slots in snapshot.services.items():
            members = {slot.slot: self._endpoint(service, slot) for slot in slots}
            kept.update(members.values())
            services[service] = ServiceSlots(rings[service], members, self._settings.max_in_flight_per_slot)
            self._shape[service] = ring_shape(snapshot, service)
        for _, endpoint in self.endpoints():
            if endpoint not in kept:
                endpoint.drain()
                self._leaving.append(endpoint)
        self._services = services

    def build_rings(self, snapshot: Snapshot) -> dict[str, Ring]:
        """Rings for ``snapshot``; those whose slots and weights stay are used again. Pure: may run in a thread."""
        rings: dict[str, Ring] = {}
        for service, slots in snapshot.services.items():
            known = self._services.get(service)
            if known is not None and self._shape.get(service) == ring_shape(snapshot, service):
                rings[service] = known.ring
            else:
                rings[service] = Ring(slots, snapshot.virtual_nodes, snapshot.bounded_load)
        return rings

    def endpoints(self) -> Iterator[tuple[str, Endpoint]]:
        """(service, endpoint) of the current snapshot."""
        for service, slots in self._services.items():
            for endpoint in slots.members.values():
                yield service, endpoint

    def sweep(self, now: float) -> None:
        """What is done a few times a second, beside all requests (``now``: monotonic seconds).

        Close connections idle for too long, let slots that were left alone be tried again, set limits anew, and forget
        endpoints that have left and are quiet.
        """
        settings = self._settings
        before = now - settings.upstream_idle_seconds
        everyone = [endpoint for _, endpoint in self.endpoints()]
        for endpoint in everyone:
            endpoint.close_idle(before)
            endpoint.revive(now)
            if settings.target_seconds:
                adapt(endpoint, settings.target_seconds, settings.max_in_flight_per_slot)
        for slots in self._services.values():
            self._outliers.sweep(slots.endpoints)
        self._outliers.forgive(everyone, now)
        self._leaving = [endpoint for endpoint in self._leaving if endpoint.in_flight]

    def close(self) -> None:
        """Close all idle connections."""
        for _, endpoint in self.endpoints():
            endpoint.drain()

    def _endpoint(self, service: str, slot: Slot) -> Endpoint:
        known = self._services.get(service)
        endpoint = known.members.get(slot.slot) if known else None
        if endpoint is None or endpoint.address != slot.address:
            return Endpoint(slot.slot, slot.address, self._settings)
        return endpoint


def ring_shape(snapshot: Snapshot, service: str) -> object:
    """What a ring depends on: equal shapes have equal rings."""
    slots = snapshot.services[service]
    return (
        snapshot.virtual_nodes,
        snapshot.bounded_load,
        tuple(sorted((slot.slot, slot.weight, slot.state) for slot in slots)),
    )
